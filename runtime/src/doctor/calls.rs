//! Which system calls this kernel has: each is made with arguments that it refuses before it does anything.
#![allow(unsafe_code)] // libc has no safe call for these system calls.

use std::io;

use super::Seen;

/// A system call that the runtime or pause makes.
#[derive(Clone, Copy)]
pub(super) enum Call {
    Clone3,
    PidfdOpen,
    PidfdSendSignal,
    CloseRange,
    Openat2,
    OpenTree,
    MoveMount,
    Fsopen,
    Fsconfig,
    Fsmount,
    MemfdCreate,
}

impl Call {
    fn number(self) -> libc::c_long {
        match self {
            Self::Clone3 => libc::SYS_clone3,
            Self::PidfdOpen => libc::SYS_pidfd_open,
            Self::PidfdSendSignal => libc::SYS_pidfd_send_signal,
            Self::CloseRange => libc::SYS_close_range,
            Self::Openat2 => libc::SYS_openat2,
            Self::OpenTree => libc::SYS_open_tree,
            Self::MoveMount => libc::SYS_move_mount,
            Self::Fsopen => libc::SYS_fsopen,
            Self::Fsconfig => libc::SYS_fsconfig,
            Self::Fsmount => libc::SYS_fsmount,
            Self::MemfdCreate => libc::SYS_memfd_create,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Clone3 => "clone3",
            Self::PidfdOpen => "pidfd_open",
            Self::PidfdSendSignal => "pidfd_send_signal",
            Self::CloseRange => "close_range",
            Self::Openat2 => "openat2",
            Self::OpenTree => "open_tree",
            Self::MoveMount => "move_mount",
            Self::Fsopen => "fsopen",
            Self::Fsconfig => "fsconfig",
            Self::Fsmount => "fsmount",
            Self::MemfdCreate => "memfd_create",
        }
    }

    /// What it is refused with.
    fn refusal(self) -> io::Error {
        // close_range(2): "first is greater than last"; the others have a null pointer, an impossible descriptor, a length of 0
        // or unknown flags among these.
        let arguments: [libc::c_long; 5] = match self {
            Self::Clone3 | Self::MemfdCreate => [
                0,
                if matches!(self, Self::Clone3) { 0 } else { -1 },
                0,
                0,
                0,
            ],
            Self::CloseRange => [1, 0, 0, 0, 0],
            Self::PidfdOpen | Self::PidfdSendSignal | Self::Fsmount => [-1, 0, 0, -1, 0],
            Self::Openat2 => [-1, 0, 0, 0, 0],
            Self::OpenTree => [-1, 0, -1, 0, 0],
            Self::MoveMount => [-1, 0, -1, 0, -1],
            Self::Fsopen => [0, -1, 0, 0, 0],
            Self::Fsconfig => [-1, -1, 0, 0, 0],
        };
        let [a, b, c, d, e] = arguments;
        // SAFETY: every pointer among the arguments is null, so that the kernel reads and writes no memory of this process, and
        // with the others being invalid as said above no call gets to change anything.
        let result = unsafe { libc::syscall(self.number(), a, b, c, d, e) };
        match result {
            -1 => io::Error::last_os_error(),
            _ => io::Error::other("it did not refuse what is invalid"),
        }
    }
}

/// That the kernel has all of them.
pub(super) fn look(calls: &[Call]) -> Seen {
    let names: Vec<&str> = calls.iter().map(|call| call.name()).collect();
    let tried = format!("{} with invalid arguments", names.join(", "));
    let lacking = calls.iter().find_map(|call| {
        let refusal = call.refusal();
        matches!(
            refusal.raw_os_error(),
            Some(libc::ENOSYS | libc::EPERM | libc::EACCES)
        )
        .then_some((call, refusal))
    });
    match lacking {
        None => Seen::there(tried, "refused as invalid: known"),
        // Mounting takes CAP_SYS_ADMIN, and a seccomp filter around this process may forbid the call.
        Some((call, refusal)) if refusal.raw_os_error() != Some(libc::ENOSYS) => {
            Seen::unknown(tried, format!("{}: {refusal}", call.name()))
        }
        Some((call, refusal)) => Seen::missing(tried, format!("{}: {refusal}", call.name())),
    }
}
