//! Device nodes, links and the console.

use super::root::{Make, Root, open_entry};
use crate::fault::{Fault, OrFault};
use crate::sys::mount::{self, Depth};
use crate::sys::{Errno, file};
use podwright_pause::plan::Step;
use std::os::fd::{AsFd, BorrowedFd};

/// Executes a [`Step::Device`], at `inside` below the root.
pub(super) fn make_device(root: &Root, inside: &[u8], step: &Step) -> Result<(), Fault> {
    let Step::Device {
        path,
        mode,
        major,
        minor,
        uid,
        gid,
    } = step
    else {
        return Ok(());
    };
    let number = libc::makedev(*major, *minor);
    let (parent, name) = root.parent(inside)?;
    match file::make_node(parent.as_fd(), name, *mode, number) {
        Err(Errno(libc::EEXIST)) => {
            let there = file::stat_entry(parent.as_fd(), name).or_fault("fstatat", &path.0)?;
            let same_kind = (there.st_mode ^ mode) & libc::S_IFMT == 0;
            if !same_kind || (there.st_rdev != number && mode & libc::S_IFMT != libc::S_IFIFO) {
                return Err(Fault::new("mknodat", &path.0, libc::EEXIST));
            }
            Ok(())
        }
        made => {
            made.or_fault("mknodat", &path.0)?;
            if (*uid, *gid) != (0, 0) {
                file::change_entry_owner(parent.as_fd(), name, *uid, *gid)
                    .or_fault("fchownat", &path.0)?;
            }
            Ok(())
        }
    }
}

/// Executes a [`Step::Symlink`].
pub(super) fn make_link(root: &Root, text: &[u8], path: &[u8]) -> Result<(), Fault> {
    let (parent, name) = root.parent(path)?;
    match file::make_link(text, parent.as_fd(), name) {
        Err(Errno(libc::EEXIST)) if file::link_says(parent.as_fd(), name, text) == Ok(true) => {
            Ok(())
        }
        made => made.or_fault("symlinkat", path),
    }
}

/// Binds a terminal's slave on /dev/console, which must not be a symbolic link (CVE-2025-52565).
pub(super) fn bind_console(root: &Root, slave: BorrowedFd<'_>) -> Result<(), Fault> {
    let path = b"/dev/console";
    let (parent, name) = root.parent(path)?;
    let place = match open_entry(parent.as_fd(), name) {
        Err(Errno(libc::ENOENT)) => root.target(path, Make::File)?,
        there => there.or_fault("openat2", path)?,
    };
    if file::stat(place.as_fd()).or_fault("fstat", path)?.st_mode & libc::S_IFMT == libc::S_IFLNK {
        return Err(Fault::new("verify console", path, libc::ELOOP));
    }
    let console = mount::clone_tree(slave, Depth::This).or_fault("open_tree", path)?;
    mount::attach(console.as_fd(), place.as_fd()).or_fault("move_mount", path)
}
