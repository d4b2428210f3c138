//! Mounts of a container's tree.

use super::root::{Make, Root};
use crate::fault::{Fault, OrFault};
use crate::procfs;
use crate::sys::file::{self, CWD};
use crate::sys::mount::{self, Depth, FsContext};
use podwright_pause::plan::{Create, FsOption, Recursion};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

pub(super) fn depth(recursion: &Recursion) -> Depth {
    match *recursion {
        Recursion::This => Depth::This,
        Recursion::Tree => Depth::Tree,
    }
}

/// Attaches a detached root to a directory, whichever that is: the mount namespace's root will be this.
pub(super) fn attach_root(root: OwnedFd, at: &[u8]) -> Result<Root, Fault> {
    let place = file::openat2(CWD, at, libc::O_PATH | libc::O_DIRECTORY, 0, 0);
    let place = place.or_fault("openat2", at)?;
    mount::attach(root.as_fd(), place.as_fd()).or_fault("move_mount", at)?;
    Ok(Root::new(root))
}

/// A detached mount of a file system of its own.
pub(super) fn new_file_system(
    fstype: &[u8],
    source: &[u8],
    options: &[FsOption],
    attributes: u64,
) -> Result<OwnedFd, Fault> {
    let context = FsContext::open(fstype).or_fault("fsopen", fstype)?;
    if !source.is_empty() {
        context
            .set(b"source", Some(source))
            .or_fault("fsconfig source", fstype)?;
    }
    for option in options {
        let value = option.value.as_ref().map(|value| value.0.as_slice());
        context
            .set(&option.key.0, value)
            .or_fault("fsconfig", &option.key.0)?;
    }
    context.create().or_fault("fsconfig create", fstype)?;
    context.mount(attributes).or_fault("fsmount", fstype)
}

/// Attaches it. On /proc and /sys the target must be the root's own directory: an image's symbolic link there would leave
/// the masks and labels that follow on the wrong tree (CVE-2019-19921).
pub(super) fn attach_file_system(
    root: &Root,
    mounted: OwnedFd,
    fstype: &[u8],
    target: &[u8],
    create: &Create,
) -> Result<(), Fault> {
    let make = match create {
        Create::Nothing => Make::Nothing,
        Create::Directory | Create::AsSource => Make::Directory,
        Create::File => Make::File,
    };
    let place = root.target(target, make)?;
    if matches!(fstype, b"proc" | b"sysfs") {
        root.open_real(target, libc::O_PATH | libc::O_DIRECTORY)
            .or_fault("openat2", target)?;
    }
    mount::attach(mounted.as_fd(), place.as_fd()).or_fault("move_mount", target)?;
    if fstype == b"proc" {
        let mounted = root
            .open_real(target, libc::O_PATH)
            .or_fault("openat2", target)?;
        procfs::verify(mounted.as_fd(), target)?;
    }
    Ok(())
}

/// A detached copy of what a host path names.
pub(super) fn clone_host(path: &[u8], tree: &Recursion) -> Result<OwnedFd, Fault> {
    let source = file::open_host(path, libc::O_PATH).or_fault("openat2", path)?;
    mount::clone_tree(source.as_fd(), depth(tree)).or_fault("open_tree", path)
}

/// A detached mount of an image's directory. The image is mounted at `at`, over what is there, only until its part is
/// cloned: an older kernel clones no part of a mount that is attached nowhere (open_tree(2)).
pub(super) fn image_tree(
    layers: &[u8],
    options: &[u8],
    sub_path: &[u8],
    at: &[u8],
) -> Result<OwnedFd, Fault> {
    file::enter_path(layers).or_fault("chdir", layers)?;
    mount::mount_overlay(at, options).or_fault("mount", at)?;
    let directory = libc::O_PATH | libc::O_DIRECTORY;
    let image = file::openat2(CWD, at, directory, 0, 0).or_fault("openat2", at)?;
    let inside = if sub_path.is_empty() { b"." } else { sub_path };
    let part = Root::new(image)
        .open(inside, directory)
        .or_fault("openat2 (sub path of an image)", inside)?;
    let tree = mount::clone_tree(part.as_fd(), Depth::This).or_fault("open_tree", inside)?;
    mount::detach(at).or_fault("umount2", at)?;
    Ok(tree)
}

/// Attaches a detached mount to a target, which is made if it is missing and `create` says so.
pub(super) fn attach_bind(
    root: &Root,
    source: OwnedFd,
    target: &[u8],
    create: &Create,
) -> Result<(), Fault> {
    let make = match create {
        Create::Nothing => Make::Nothing,
        Create::Directory => Make::Directory,
        Create::File => Make::File,
        Create::AsSource if is_directory(source.as_fd()).or_fault("fstat", target)? => {
            Make::Directory
        }
        Create::AsSource => Make::File,
    };
    let place = root.target(target, make)?;
    // What is bound on procfs by its name was allowed; a link of the image's that leads there was not (CVE-2019-19921).
    if !target.starts_with(b"/proc/")
        && file::filesystem(place.as_fd()).or_fault("fstatfs", target)? == file::PROC_SUPER_MAGIC
    {
        return Err(Fault::new("bind on /proc", target, libc::EXDEV));
    }
    mount::attach(source.as_fd(), place.as_fd()).or_fault("move_mount", target)
}

pub(super) fn is_directory(fd: BorrowedFd<'_>) -> Result<bool, crate::sys::Errno> {
    Ok(file::stat(fd)?.st_mode & libc::S_IFMT == libc::S_IFDIR)
}

/// Makes the root, which covers the namespace's own one, that of this process and of all that enter the namespace.
pub(super) fn enter_root(root: &Root) -> Result<(), Fault> {
    file::enter_directory(root.fd()).or_fault("fchdir", b"root")?;
    file::change_root_here().or_fault("chroot", b"root")?;
    file::enter_path(b"/").or_fault("chdir", b"/")
}

/// Makes the root the namespace's root, and leaves the host's tree for good.
pub(super) fn pivot(root: &Root) -> Result<(), Fault> {
    let old = mount::mount_point(b"/").or_fault("openat2", b"/")?;
    file::enter_directory(root.fd()).or_fault("fchdir", b"root")?;
    mount::pivot_here().or_fault("pivot_root", b"root")?;
    file::enter_directory(old.as_fd()).or_fault("fchdir", b"old root")?;
    // Unmounting must not propagate to the host, whose peer the old tree may still be.
    mount::change_propagation(b".", libc::MS_SLAVE | libc::MS_REC)
        .or_fault("mount", b"old root")?;
    mount::detach_here().or_fault("umount2", b"old root")?;
    file::enter_path(b"/").or_fault("chdir", b"/")
}
