//! The session and its standard streams.

use super::Streams;
use crate::fault::{Fault, OrFault};
use crate::sys::{Errno, file, process, terminal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Starts a session and connects 0, 1 and 2. Everything else is closed at exec.
pub(super) fn connect(streams: &Streams, slave: Option<OwnedFd>, uid: u32) -> Result<(), Fault> {
    process::new_session().or_fault("setsid", b"")?;
    match (streams, &slave) {
        (Streams::Given(streams), _) => {
            for (number, stream) in (0..).zip(streams) {
                file::duplicate_onto(stream.as_fd(), number).or_fault("dup2", b"")?;
            }
        }
        (Streams::Terminal, Some(slave)) => {
            terminal::take_control(slave.as_fd()).or_fault("ioctl TIOCSCTTY", b"")?;
            give_to(slave.as_fd(), uid)?;
            for number in 0..=2 {
                file::duplicate_onto(slave.as_fd(), number).or_fault("dup2", b"")?;
            }
        }
        (Streams::Terminal, None) => return Err(Fault::new("terminal", b"", libc::ENOTTY)),
    }
    file::close_range(3, u32::MAX, file::CloseRange::AtExec).or_fault("close_range", b"")
}

/// Lets the process open its own streams again by /dev/stdout and the like. Devices such as /dev/null belong to everybody
/// and stay as they are.
pub(super) fn give_to(stream: BorrowedFd<'_>, uid: u32) -> Result<(), Fault> {
    let stat = file::stat(stream).or_fault("fstat", b"")?;
    let terminal = stat.st_mode & libc::S_IFMT == libc::S_IFCHR
        && file::filesystem(stream) == Ok(file::DEVPTS_SUPER_MAGIC);
    let private = matches!(stat.st_mode & libc::S_IFMT, libc::S_IFIFO | libc::S_IFSOCK) || terminal;
    if !private || stat.st_uid == uid {
        return Ok(());
    }
    match file::change_owner(stream, uid, u32::MAX) {
        // What cannot be given works as it is, only not by its /dev name.
        Err(Errno(libc::EINVAL | libc::EPERM | libc::EROFS)) => Ok(()),
        result => result.or_fault("fchownat", b""),
    }
}
