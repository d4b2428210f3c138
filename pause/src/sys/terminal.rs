//! Pseudoterminals (pty(7), ioctl_tty(2)).
#![allow(unsafe_code)] // ioctl(2)

use super::{Result, check};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `_IO('T', 0x41)`, Linux 4.13; architectures that differ from this are none that Podwright builds for.
const TIOCGPTPEER: libc::Ioctl = 0x5441;
/// `_IOW('T', 0x31, int)`.
const TIOCSPTLCK: libc::Ioctl = 0x4004_5431;

/// Unlocks a new terminal's slave, and opens it without a path, so that nothing mounted meanwhile can come between.
pub(crate) fn open_slave(master: BorrowedFd<'_>) -> Result<OwnedFd> {
    let unlock: libc::c_int = 0;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the first ioctl reads an int during the call, the second takes a number; the descriptor is new.
    unsafe {
        check(libc::ioctl(master.as_raw_fd(), TIOCSPTLCK, &unlock).into())?;
        let slave = check(libc::ioctl(master.as_raw_fd(), TIOCGPTPEER, flags).into())?;
        Ok(OwnedFd::from_raw_fd(slave as i32))
    }
}

/// Sets a terminal's size.
pub(crate) fn resize(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> Result<()> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the kernel reads the struct during the call.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &size) }.into())?;
    Ok(())
}

/// Makes it the controlling terminal of this session.
pub(crate) fn take_control(terminal: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: takes a number: 0, do not steal it from another session.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) }.into())?;
    Ok(())
}
