//! A mount namespace with one file system and nothing of the host's tree.

use crate::fault::{Fault, OrFault};
use crate::sys::{file, mount};
use std::os::fd::{AsFd, BorrowedFd};

/// Makes a detached mount all that this process's mount namespace has, which must be its own.
pub(crate) fn leave_for(root: BorrowedFd<'_>) -> Result<(), Fault> {
    mount::change_propagation(b"/", libc::MS_PRIVATE | libc::MS_REC).or_fault("mount", b"/")?;
    // /proc is always there to be mounted on, and nothing here needs it any more.
    let place = mount::mount_point(b"/proc").or_fault("openat2", b"/proc")?;
    mount::attach(root, place.as_fd()).or_fault("move_mount", b"/proc")?;
    file::enter_directory(root).or_fault("fchdir", b"")?;
    mount::pivot_here().or_fault("pivot_root", b"")?;
    mount::detach_here().or_fault("umount2", b"")?;
    file::change_root_here().or_fault("chroot", b"")?;
    file::enter_path(b"/").or_fault("chdir", b"/")
}
