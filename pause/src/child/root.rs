//! Paths inside a container's root: each is resolved to a descriptor by openat2(RESOLVE_IN_ROOT), never through a magic
//! link, and whatever is made is made relative to such a descriptor. What an image or volume holds, or does meanwhile,
//! cannot lead outside.

use crate::fault::{Fault, OrFault};
use crate::sys::{Errno, file};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The root of a container's tree.
pub(super) struct Root {
    fd: OwnedFd,
    /// Whom mount targets and missing parents belong to.
    owner: (u32, u32),
}

/// What is made of a path that is missing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Make {
    Nothing,
    Directory,
    File,
}

/// Owner and permission bits of what is made.
#[derive(Clone, Copy)]
pub(super) struct Ownership {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Root {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self::owned_by(fd, (0, 0))
    }

    pub(super) fn owned_by(fd: OwnedFd, owner: (u32, u32)) -> Self {
        Self { fd, owner }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(super) fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// What mount targets and missing parents are made as.
    fn as_target(&self) -> Ownership {
        let (uid, gid) = self.owner;
        Ownership {
            mode: 0o755,
            uid,
            gid,
        }
    }

    /// Opens a path.
    pub(super) fn open(&self, path: &[u8], flags: i32) -> Result<OwnedFd, Errno> {
        self.resolve(path, flags, 0)
    }

    /// Opens a path of which no component is a symbolic link.
    pub(super) fn open_real(&self, path: &[u8], flags: i32) -> Result<OwnedFd, Errno> {
        self.resolve(path, flags, libc::RESOLVE_NO_SYMLINKS)
    }

    fn resolve(&self, path: &[u8], flags: i32, more: u64) -> Result<OwnedFd, Errno> {
        let resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS | more;
        // A rename somewhere makes a path with `..` ambiguous for a moment: EAGAIN, try again (openat2(2)).
        for _ in 0..64 {
            match file::openat2(self.fd(), path, flags, 0, resolve) {
                Err(Errno(libc::EAGAIN)) => {}
                result => return result,
            }
        }
        Err(Errno(libc::EAGAIN))
    }

    /// Opens a mount target, O_PATH, and makes it if it is missing.
    pub(super) fn target(&self, path: &[u8], make: Make) -> Result<OwnedFd, Fault> {
        match (self.open(path, libc::O_PATH), make) {
            (Err(Errno(libc::ENOENT)), Make::Directory) => {
                self.make_directories(path, self.as_target())
            }
            (Err(Errno(libc::ENOENT)), Make::File) => self.make_file(path),
            (result, _) => result.or_fault("openat2", path),
        }
    }

    /// Makes a directory and its missing parents.
    pub(super) fn make_directories(
        &self,
        path: &[u8],
        ownership: Ownership,
    ) -> Result<OwnedFd, Fault> {
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        match self.open(path, flags) {
            Err(Errno(libc::ENOENT)) => {}
            result => return result.or_fault("openat2", path),
        }
        // Mostly the last one alone is missing.
        let name = last_component(path);
        let above = &path[..path_end(path) - name.len()];
        if !matches!(name, b"" | b"." | b"..")
            && let Ok(parent) = self.open(if above.is_empty() { b"." } else { above }, flags)
        {
            return make_in(parent.as_fd(), name, path, ownership);
        }
        let mut parent = self.open(b".", flags).or_fault("openat2", path)?;
        for end in component_ends(path) {
            parent = match self.open(&path[..end], flags) {
                Err(Errno(libc::ENOENT)) => make_in(
                    parent.as_fd(),
                    last_component(&path[..end]),
                    path,
                    ownership,
                )?,
                result => result.or_fault("openat2", &path[..end])?,
            };
        }
        Ok(parent)
    }

    /// The directory that a path's last component is in, made if it is missing, and that component.
    pub(super) fn parent<'p>(&self, path: &'p [u8]) -> Result<(OwnedFd, &'p [u8]), Fault> {
        let name = last_component(path);
        if matches!(name, b"" | b"." | b"..") {
            return Err(Fault::new("path", path, libc::EINVAL));
        }
        let above = component_ends(path)
            .last()
            .map_or(0, |end| end - name.len());
        let parent = if path[..above].iter().all(|&byte| byte == b'/') {
            self.open(b".", libc::O_PATH | libc::O_DIRECTORY)
                .or_fault("openat2", path)?
        } else {
            self.make_directories(&path[..above], self.as_target())?
        };
        Ok((parent, name))
    }

    fn make_file(&self, path: &[u8]) -> Result<OwnedFd, Fault> {
        let (parent, name) = self.parent(path)?;
        let flags = libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_WRONLY;
        file::openat2(parent.as_fd(), name, flags, 0o644, 0).or_fault("openat2", path)?;
        open_entry(parent.as_fd(), name).or_fault("openat2", path)
    }
}

/// Opens a directory's entry itself, were it a symbolic link: O_PATH.
pub(super) fn open_entry(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    file::openat2(
        parent,
        name,
        libc::O_PATH | libc::O_NOFOLLOW,
        0,
        libc::RESOLVE_BENEATH,
    )
}

fn make_in(
    parent: BorrowedFd<'_>,
    name: &[u8],
    path: &[u8],
    ownership: Ownership,
) -> Result<OwnedFd, Fault> {
    // EEXIST here is a symbolic link to nowhere (or somebody's race): making its target is not ours.
    file::make_directory(parent, name, ownership.mode).or_fault("mkdirat", path)?;
    let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_DIRECTORY;
    let made =
        file::openat2(parent, name, flags, 0, libc::RESOLVE_BENEATH).or_fault("openat2", path)?;
    if (ownership.uid, ownership.gid) != (0, 0) {
        file::change_owner(made.as_fd(), ownership.uid, ownership.gid)
            .or_fault("fchownat", path)?;
    }
    Ok(made)
}

/// Where each component of a path ends.
fn component_ends(path: &[u8]) -> impl Iterator<Item = usize> + '_ {
    (1..=path.len())
        .filter(|&end| path[end - 1] != b'/' && path.get(end).is_none_or(|&next| next == b'/'))
}

/// Where the last component ends.
fn path_end(path: &[u8]) -> usize {
    component_ends(path).last().unwrap_or(0)
}

/// The last component, without the slashes behind it; empty for the root.
fn last_component(path: &[u8]) -> &[u8] {
    let end = path_end(path);
    let start = path[..end]
        .iter()
        .rposition(|&byte| byte == b'/')
        .map_or(0, |slash| slash + 1);
    &path[start..end]
}
