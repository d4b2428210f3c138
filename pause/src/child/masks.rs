//! Hidden and read-only paths.

use super::mounts::is_directory;
use super::root::Root;
use crate::fault::{Fault, OrFault};
use crate::sys::mount::{self, Depth, attributes};
use crate::sys::{Errno, file};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What hides paths; made when the first path needs it.
#[derive(Default)]
pub(super) struct Masks {
    /// The mounted empty directory over the first path that needed one: later ones show the same.
    directory: Option<OwnedFd>,
}

impl Masks {
    /// Hides a path, if it is there.
    pub(super) fn hide(&mut self, root: &Root, path: &[u8]) -> Result<(), Fault> {
        let Some(place) = open_if_there(root, path)? else {
            return Ok(());
        };
        if !is_directory(place.as_fd()).or_fault("fstat", path)? {
            let null = null_device(root)?;
            return mount::attach(null.as_fd(), place.as_fd()).or_fault("move_mount", path);
        }
        let empty = match &self.directory {
            Some(mounted) => {
                mount::clone_tree(mounted.as_fd(), Depth::This).or_fault("open_tree", path)?
            }
            None => empty_directory().or_fault("fsmount", path)?,
        };
        mount::attach(empty.as_fd(), place.as_fd()).or_fault("move_mount", path)?;
        self.directory = Some(empty);
        Ok(())
    }
}

/// Makes a path read-only by a bind over itself, if it is there.
pub(super) fn make_read_only(root: &Root, path: &[u8]) -> Result<(), Fault> {
    let Some(place) = open_if_there(root, path)? else {
        return Ok(());
    };
    let copy = mount::clone_tree(place.as_fd(), Depth::Tree).or_fault("open_tree", path)?;
    mount::add_attributes(copy.as_fd(), attributes::RDONLY, Depth::Tree)
        .or_fault("mount_setattr", path)?;
    mount::attach(copy.as_fd(), place.as_fd()).or_fault("move_mount", path)
}

fn open_if_there(root: &Root, path: &[u8]) -> Result<Option<OwnedFd>, Fault> {
    match root.open(path, libc::O_PATH) {
        Err(Errno(libc::ENOENT | libc::ENOTDIR)) => Ok(None),
        place => place.map(Some).or_fault("openat2", path),
    }
}

fn empty_directory() -> Result<OwnedFd, Errno> {
    let options = [("size", "4096"), ("nr_inodes", "1"), ("mode", "0555")];
    mount::detached_tmpfs(
        &options,
        attributes::RDONLY | attributes::NOSUID | attributes::NODEV | attributes::NOEXEC,
    )
}

/// A detached mount of the null device: the container's, if it really has one (CVE-2025-31133), or the host's.
fn null_device(root: &Root) -> Result<OwnedFd, Fault> {
    let path = b"/dev/null";
    let own = root.open_real(path, libc::O_PATH).ok();
    let null = match own.filter(|fd| is_null(fd.as_fd())) {
        Some(null) => null,
        None => file::open_host(path, libc::O_PATH | libc::O_NOFOLLOW).or_fault("openat2", path)?,
    };
    if !is_null(null.as_fd()) {
        return Err(Fault::new("verify null device", path, libc::ENODEV));
    }
    mount::clone_tree(null.as_fd(), Depth::This).or_fault("open_tree", path)
}

fn is_null(fd: BorrowedFd<'_>) -> bool {
    file::stat(fd).is_ok_and(|stat| {
        stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == libc::makedev(1, 3)
    })
}
