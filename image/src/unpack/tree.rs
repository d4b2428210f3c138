//! Writes a layer's entries beneath one directory descriptor.
//!
//! Guarantee: nothing outside that directory is created, changed or read. Every directory on an entry's
//! way is opened by openat2(2) with RESOLVE_IN_ROOT and RESOLVE_NO_MAGICLINKS, so a symlink in the layer
//! leads at most to the layer's own root, as in the peers; the last component is never followed.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::error::{UnpackError, shown};
use super::path::split;
use super::tar::{Header, Kind, Timestamp};

/// Most bytes of directory names that are kept until the end, where their times are set.
const MAX_DIRECTORY_NAMES: u64 = 64 << 20;
/// openat2(2) answers EAGAIN when a rename anywhere races with a `..`; asking again is what it says to do.
const RESOLVE_TRIES: u32 = 128;
/// What a file occupies is counted in blocks of this size.
const BLOCK: u64 = 4096;

/// overlayfs.rst, "whiteouts and opaque directories".
const OPAQUE: &str = "trusted.overlay.opaque";

/// Disk space of a layer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Usage {
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
}

/// A layer in the making.
pub(super) struct Tree<'a> {
    root: BorrowedFd<'a>,
    trash: BorrowedFd<'a>,
    /// The last directory written to: archives are in order, so most entries need no resolution.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// Directories' times, set at the end because every entry in a directory changes them.
    times: Vec<(Vec<u8>, Timestamp)>,
    names: u64,
    usage: Usage,
    file_bytes: u64,
}

impl<'a> Tree<'a> {
    pub(super) fn new(
        root: BorrowedFd<'a>,
        trash: BorrowedFd<'a>,
    ) -> Result<Tree<'a>, UnpackError> {
        rustix::fs::fchmod(root, Mode::from_raw_mode(0o755))
            .map_err(|errno| UnpackError::io("set the mode of", b"/", errno))?;
        let usage = Usage {
            bytes: BLOCK,
            inodes: 1,
        };
        Ok(Tree {
            root,
            trash,
            parent: None,
            times: Vec::new(),
            names: 0,
            usage,
            file_bytes: 0,
        })
    }

    /// Sets the directories' times, the deepest first.
    pub(super) fn finish(mut self) -> Result<Usage, UnpackError> {
        let times = std::mem::take(&mut self.times);
        for (path, time) in times.iter().rev() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match self.resolve(path, flags) {
                Ok(directory) => rustix::fs::futimens(&directory, &timestamps(*time))
                    .map_err(|errno| UnpackError::io("set the times of", path, errno))?,
                // A later entry replaced it.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(UnpackError::io("open", path, errno)),
            }
        }
        Ok(self.usage)
    }

    pub(super) fn directory(&mut self, path: &[u8], header: &Header) -> Result<(), UnpackError> {
        let directory = if path.is_empty() {
            self.resolve(b".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC)
                .map_err(|errno| UnpackError::io("open", path, errno))?
        } else {
            self.make_directory(path)?
        };
        let failed = |operation| move |errno| UnpackError::io(operation, path, errno);
        rustix::fs::fchown(&directory, owner(header.uid), group(header.gid))
            .map_err(failed("set the owner of"))?;
        rustix::fs::fchmod(&directory, Mode::from_raw_mode(header.mode))
            .map_err(failed("set the mode of"))?;
        for (name, value) in &header.xattrs {
            rustix::fs::fsetxattr(&directory, name.as_slice(), value, XattrFlags::empty())
                .map_err(failed("set an attribute of"))?;
        }
        self.names += path.len() as u64 + 64;
        if self.names > MAX_DIRECTORY_NAMES {
            return Err(UnpackError::TooMany {
                what: "bytes of directory names",
                most: MAX_DIRECTORY_NAMES,
            });
        }
        self.times.push((path.to_vec(), header.mtime));
        Ok(())
    }

    /// Makes the directory, or takes the one that is there; anything else of that name is replaced.
    fn make_directory(&mut self, path: &[u8]) -> Result<OwnedFd, UnpackError> {
        let name = split(path).1;
        let parent = self.parent(path)?;
        let mut opaque = false;
        let made = match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
            Err(Errno::EXIST) => {
                let there = self.stat(path)?;
                if FileType::from_raw_mode(there.st_mode) == FileType::Directory {
                    false
                } else {
                    // A whiteout of this layer under the same name hides what the layers below have.
                    opaque = is_whiteout(&there);
                    self.displace(path, &there)?;
                    let parent = self.parent(path)?;
                    rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))
                        .map_err(|errno| UnpackError::io("create", path, errno))?;
                    true
                }
            }
            result => result
                .map(|()| true)
                .map_err(|errno| UnpackError::io("create", path, errno))?,
        };
        let parent = self.parent(path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(parent, name, flags, Mode::empty())
            .map_err(|errno| UnpackError::io("open", path, errno))?;
        if opaque {
            set_opaque(directory.as_fd(), path)?;
        }
        if made {
            self.count_inode(BLOCK);
        }
        Ok(directory)
    }

    pub(super) fn create_file(&mut self, path: &[u8]) -> Result<OwnedFd, UnpackError> {
        self.file_bytes = 0;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.create(path, "create", |parent, name| {
            rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))
        })
    }

    /// Body bytes written to the current file.
    pub(super) fn count_bytes(&mut self, written: u64) {
        self.file_bytes += written;
    }

    pub(super) fn finish_file(
        &mut self,
        file: &OwnedFd,
        path: &[u8],
        header: &Header,
    ) -> Result<(), UnpackError> {
        let failed = |operation| move |errno| UnpackError::io(operation, path, errno);
        // chown(2) clears setuid, setgid and security.capability, so it comes first.
        rustix::fs::fchown(file, owner(header.uid), group(header.gid))
            .map_err(failed("set the owner of"))?;
        rustix::fs::fchmod(file, Mode::from_raw_mode(header.mode))
            .map_err(failed("set the mode of"))?;
        for (name, value) in &header.xattrs {
            rustix::fs::fsetxattr(file, name.as_slice(), value, XattrFlags::empty())
                .map_err(failed("set an attribute of"))?;
        }
        rustix::fs::futimens(file, &timestamps(header.mtime))
            .map_err(failed("set the times of"))?;
        self.count_inode(self.file_bytes.next_multiple_of(BLOCK));
        Ok(())
    }

    pub(super) fn symlink(
        &mut self,
        path: &[u8],
        target: &[u8],
        header: &Header,
    ) -> Result<(), UnpackError> {
        self.create(path, "create", |parent, name| {
            rustix::fs::symlinkat(target, parent, name)
        })?;
        self.count_inode(0);
        self.set_metadata(path, header)
    }

    /// Device nodes and fifos.
    pub(super) fn special(&mut self, path: &[u8], header: &Header) -> Result<(), UnpackError> {
        let (kind, device) = match header.kind {
            Kind::CharDevice { major, minor } => {
                (FileType::CharacterDevice, rustix::fs::makedev(major, minor))
            }
            Kind::BlockDevice { major, minor } => {
                (FileType::BlockDevice, rustix::fs::makedev(major, minor))
            }
            _ => (FileType::Fifo, 0),
        };
        let mode = Mode::from_raw_mode(0o600);
        self.create(path, "create", |parent, name| {
            rustix::fs::mknodat(parent, name, kind, mode, device)
        })?;
        self.count_inode(0);
        self.set_metadata(path, header)
    }

    pub(super) fn hard_link(&mut self, path: &[u8], target: &[u8]) -> Result<(), UnpackError> {
        let refused = |problem| UnpackError::HardLink {
            entry: shown(path),
            target: shown(target),
            problem,
        };
        let (directory, target_name) = split(target);
        if target_name.is_empty() {
            return Err(refused("it is the layer's root"));
        }
        let from = self.resolve(
            directory_or_root(directory),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        );
        let from = from.map_err(|_| refused("there is no such file in this layer"))?;
        let original = rustix::fs::statat(&from, target_name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|_| refused("there is no such file in this layer"))?;
        if FileType::from_raw_mode(original.st_mode) == FileType::Directory {
            return Err(refused("it is a directory"));
        }
        // A link onto itself must not displace its own target.
        let parent = self.parent(path)?;
        if let Ok(there) = rustix::fs::statat(parent, split(path).1, AtFlags::SYMLINK_NOFOLLOW)
            && (there.st_dev, there.st_ino) == (original.st_dev, original.st_ino)
        {
            return Ok(());
        }
        // Without AT_SYMLINK_FOLLOW a symlink itself is linked, not what it points to (linkat(2)).
        self.create(path, "link", |parent, name| {
            rustix::fs::linkat(&from, target_name, parent, name, AtFlags::empty())
        })
    }

    /// Hides `name` of the layers below: a character device 0:0. `path` is the whiteout's own.
    pub(super) fn hide(&mut self, path: &[u8], name: &[u8]) -> Result<(), UnpackError> {
        let parent = self.parent(path)?;
        match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            // layer.md: a whiteout hides only what lies below. This layer's own directory must then
            // show nothing of the lower one; any other file hides it anyway.
            Ok(there) if FileType::from_raw_mode(there.st_mode) == FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let directory = rustix::fs::openat(parent, name, flags, Mode::empty())
                    .map_err(|errno| UnpackError::io("open", path, errno))?;
                set_opaque(directory.as_fd(), path)
            }
            Ok(_) => Ok(()),
            Err(Errno::NOENT) => {
                rustix::fs::mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0)
                    .map_err(|errno| UnpackError::io("create", path, errno))?;
                self.count_inode(0);
                Ok(())
            }
            Err(errno) => Err(UnpackError::io("look at", path, errno)),
        }
    }

    /// Hides all that the layers below have in the marker's directory.
    pub(super) fn make_opaque(&mut self, marker: &[u8]) -> Result<(), UnpackError> {
        self.parent(marker)?;
        let directory = split(marker).0;
        let opened = self
            .resolve(
                directory_or_root(directory),
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            )
            .map_err(|errno| UnpackError::io("open", directory, errno))?;
        set_opaque(opened.as_fd(), marker)
    }

    /// Owner, mode, attributes and times of what cannot be opened.
    fn set_metadata(&mut self, path: &[u8], header: &Header) -> Result<(), UnpackError> {
        let failed = |operation| move |errno| UnpackError::io(operation, path, errno);
        let name = split(path).1;
        let parent = self.parent(path)?;
        rustix::fs::chownat(
            parent,
            name,
            owner(header.uid),
            group(header.gid),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .map_err(failed("set the owner of"))?;
        if !matches!(header.kind, Kind::Symlink { .. }) {
            rustix::fs::chmodat(
                parent,
                name,
                Mode::from_raw_mode(header.mode),
                AtFlags::empty(),
            )
            .map_err(failed("set the mode of"))?;
        }
        for (attribute, value) in &header.xattrs {
            // There is no fsetxattr for these; the magic link leads to the directory that we hold.
            let mut place = format!(
                "/proc/self/fd/{}/",
                std::os::fd::AsRawFd::as_raw_fd(&parent)
            )
            .into_bytes();
            place.extend_from_slice(name);
            rustix::fs::lsetxattr(
                place.as_slice(),
                attribute.as_slice(),
                value,
                XattrFlags::empty(),
            )
            .map_err(failed("set an attribute of"))?;
        }
        rustix::fs::utimensat(
            parent,
            name,
            &timestamps(header.mtime),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .map_err(failed("set the times of"))
    }

    /// Creates something; what has the name already is replaced, for the last entry wins.
    fn create<T>(
        &mut self,
        path: &[u8],
        operation: &'static str,
        make: impl Fn(BorrowedFd<'_>, &[u8]) -> Result<T, Errno>,
    ) -> Result<T, UnpackError> {
        let name = split(path).1;
        let first = make(self.parent(path)?, name);
        let made = if matches!(first, Err(Errno::EXIST)) {
            let there = self.stat(path)?;
            self.displace(path, &there)?;
            make(self.parent(path)?, name)
        } else {
            first
        };
        made.map_err(|errno| UnpackError::io(operation, path, errno))
    }

    fn stat(&mut self, path: &[u8]) -> Result<Stat, UnpackError> {
        rustix::fs::statat(self.parent(path)?, split(path).1, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| UnpackError::io("look at", path, errno))
    }

    /// Takes away what is at `path`: a file is unlinked, a directory goes to the trash as it is.
    fn displace(&mut self, path: &[u8], there: &Stat) -> Result<(), UnpackError> {
        let name = split(path).1;
        let trash = self.trash;
        let parent = self.parent(path)?;
        if FileType::from_raw_mode(there.st_mode) == FileType::Directory {
            rustix::fs::renameat(parent, name, trash, crate::store::trash_name())
        } else {
            rustix::fs::unlinkat(parent, name, AtFlags::empty())
        }
        .map_err(|errno| UnpackError::io("replace", path, errno))?;
        // The descriptor kept may be of a directory inside the one that just left.
        self.parent = None;
        Ok(())
    }

    /// The directory that holds `path`'s last component; missing ones are made, 0755.
    fn parent(&mut self, path: &[u8]) -> Result<BorrowedFd<'_>, UnpackError> {
        let directory = split(path).0;
        if directory.is_empty() {
            return Ok(self.root);
        }
        if self
            .parent
            .as_ref()
            .is_none_or(|(known, _)| known != directory)
        {
            let opened = self.open_parent(directory, path)?;
            self.parent = Some((directory.to_vec(), opened));
        }
        match &self.parent {
            Some((_, descriptor)) => Ok(descriptor.as_fd()),
            None => Ok(self.root),
        }
    }

    fn open_parent(&mut self, directory: &[u8], entry: &[u8]) -> Result<OwnedFd, UnpackError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match self.resolve(directory, flags) {
            Err(Errno::NOENT) => self.make_parents(directory, entry),
            Err(Errno::NOTDIR | Errno::LOOP) => Err(UnpackError::Parent {
                entry: shown(entry),
                parent: shown(directory),
            }),
            result => result.map_err(|errno| UnpackError::io("open", directory, errno)),
        }
    }

    fn make_parents(&mut self, directory: &[u8], entry: &[u8]) -> Result<OwnedFd, UnpackError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let no_directory = |part: &[u8]| UnpackError::Parent {
            entry: shown(entry),
            parent: shown(part),
        };
        let mut current = self
            .resolve(b".", flags)
            .map_err(|errno| UnpackError::io("open", b"/", errno))?;
        let ends = directory
            .iter()
            .enumerate()
            .filter(|(_, b)| **b == b'/')
            .map(|(at, _)| at);
        for end in ends.chain([directory.len()]) {
            let part = &directory[..end];
            current = match self.resolve(part, flags) {
                Ok(opened) => opened,
                Err(Errno::NOENT) => {
                    match rustix::fs::mkdirat(&current, split(part).1, Mode::from_raw_mode(0o755)) {
                        // A symlink that leads nowhere.
                        Err(Errno::EXIST) => return Err(no_directory(part)),
                        result => result.map_err(|errno| UnpackError::io("create", part, errno))?,
                    }
                    self.count_inode(BLOCK);
                    self.resolve(part, flags)
                        .map_err(|errno| UnpackError::io("open", part, errno))?
                }
                Err(Errno::NOTDIR | Errno::LOOP) => return Err(no_directory(part)),
                Err(errno) => return Err(UnpackError::io("open", part, errno)),
            };
        }
        Ok(current)
    }

    fn resolve(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        let mut tries = 0;
        loop {
            match rustix::fs::openat2(
                self.root,
                directory_or_root(path),
                flags,
                Mode::empty(),
                resolve,
            ) {
                Err(Errno::AGAIN) if tries < RESOLVE_TRIES => tries += 1,
                result => return result,
            }
        }
    }

    fn count_inode(&mut self, bytes: u64) {
        self.usage.inodes += 1;
        self.usage.bytes += bytes;
    }
}

fn directory_or_root(path: &[u8]) -> &[u8] {
    if path.is_empty() { b"." } else { path }
}

fn set_opaque(directory: BorrowedFd<'_>, path: &[u8]) -> Result<(), UnpackError> {
    rustix::fs::fsetxattr(directory, OPAQUE, b"y", XattrFlags::empty())
        .map_err(|errno| UnpackError::io("mark as opaque the directory of", path, errno))
}

fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn owner(uid: u32) -> Option<Uid> {
    Some(Uid::from_raw(uid))
}

fn group(gid: u32) -> Option<Gid> {
    Some(Gid::from_raw(gid))
}

fn timestamps(time: Timestamp) -> Timestamps {
    let time = Timespec {
        tv_sec: time.seconds,
        tv_nsec: i64::from(time.nanoseconds),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}
