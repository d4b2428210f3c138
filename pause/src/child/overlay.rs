//! The overlay of a container's root.

use super::root::Root;
use crate::fault::{Fault, OrFault};
use crate::sys::Errno;
use crate::sys::file::{self, CWD};
use crate::sys::mount::{self, FsContext};
use podwright_pause::overlay::settings;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Mounts it and opens it.
pub(super) fn mount(layers: &[u8], options: &[u8], at: &[u8]) -> Result<Root, Fault> {
    file::enter_path(layers).or_fault("chdir", layers)?;
    mount::mount_overlay(at, options).or_fault("mount", at)?;
    let root =
        file::openat2(CWD, at, libc::O_PATH | libc::O_DIRECTORY, 0, 0).or_fault("openat2", at)?;
    check_writable(root.as_fd(), at)?;
    Ok(Root::new(root))
}

/// Makes it as a detached mount (Linux 6.7), of options that are understood.
pub(super) fn detached(layers: &[u8], options: &[u8]) -> Result<OwnedFd, Fault> {
    let settings = settings(options)
        .ok_or_else(|| Fault::new("options of an overlay", options, libc::EINVAL))?;
    file::enter_path(layers).or_fault("chdir", layers)?;
    let context = FsContext::open(b"overlay").or_fault("fsopen", b"overlay")?;
    context
        .set(b"source", Some(b"overlay"))
        .or_fault("fsconfig source", b"overlay")?;
    for (key, value) in settings {
        context
            .set(key, value)
            .or_fault("fsconfig overlay", value.unwrap_or(key))?;
    }
    context.create().or_fault("fsconfig create", b"overlay")?;
    let root = context.mount(0).or_fault("fsmount", b"overlay")?;
    check_writable(root.as_fd(), layers)?;
    Ok(root)
}

/// overlayfs that cannot make its work directory mounts read-only and says so only in the kernel's log (fs/overlayfs/super.c,
/// ovl_make_workdir): the file system of the writable layer has no space or no inodes left.
fn check_writable(root: BorrowedFd<'_>, path: &[u8]) -> Result<(), Fault> {
    match file::is_read_only(root).or_fault("fstatfs", path)? {
        true => Err(Errno(libc::ENOSPC)).or_fault("mount a writable overlay", path),
        false => Ok(()),
    }
}
