//! Process descriptors (pidfd_open(2), Linux 5.3): a signal through one cannot hit a process that reused the number.
#![allow(unsafe_code)] // libc has no safe call for these two system calls.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// A reference to a process.
#[derive(Debug)]
pub(super) struct PidFd(OwnedFd);

impl PidFd {
    /// `ESRCH` when there is no such process.
    pub(super) fn open(pid: Pid) -> Result<Self, Errno> {
        // SAFETY: pidfd_open(2) takes two integers and touches no memory of ours.
        let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
        let fd = i32::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)?;
        // SAFETY: the kernel just made this descriptor for us and nothing else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Sends `signal`; `ESRCH` when the process has ended.
    pub(super) fn send(&self, signal: Signal) -> Result<(), Errno> {
        let info = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: the descriptor is open while `self` lives; a null siginfo asks the kernel to fill in its own.
        let result = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.0.as_raw_fd(),
                signal as i32,
                info,
                0,
            )
        };
        Errno::result(result).map(drop)
    }
}

impl AsFd for PidFd {
    /// Readable once the process has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
