//! A directory of a cgroup mount, kept open; its files are reached by `openat(2)`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, read, unlinkat, write};

use super::CgroupError;

/// No interface file of one group is larger; `cgroup.procs` of 100,000 processes is 800 KiB.
const MAX_FILE: usize = 16 << 20;

/// Half of the least buffer seq_file uses.
const SHORT: usize = 2048;

/// An open directory and, for messages, its path.
#[derive(Debug)]
pub(super) struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

impl Dir {
    /// Opens the root of a mount.
    pub(super) fn root(path: &Path) -> Result<Self, CgroupError> {
        Self::open_at(AT_FDCWD, path, path.to_owned())
    }

    /// Opens the directory `relative` below this one.
    pub(super) fn open(&self, relative: &str) -> Result<Self, CgroupError> {
        Self::open_at(self.fd.as_fd(), relative, self.path.join(relative))
    }

    fn open_at<P: ?Sized + nix::NixPath>(
        at: BorrowedFd<'_>,
        name: &P,
        path: PathBuf,
    ) -> Result<Self, CgroupError> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match openat(at, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Self { fd, path }),
            Err(source) => Err(CgroupError::Io {
                action: "open cgroup",
                path,
                source,
            }),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(super) fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// Makes the directory `relative`; one that exists is fine.
    pub(super) fn mkdir(&self, relative: &str) -> Result<(), Errno> {
        match mkdirat(&self.fd, relative, Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Removes the group `relative`.
    pub(super) fn rmdir(&self, relative: &str) -> Result<(), Errno> {
        unlinkat(&self.fd, relative, UnlinkatFlags::RemoveDir)
    }

    /// Opens the file `name` to be read or polled.
    pub(super) fn open_file(&self, name: &str, flags: OFlag) -> Result<OwnedFd, Errno> {
        openat(
            &self.fd,
            name,
            flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW,
            Mode::empty(),
        )
    }

    /// The whole text of the file `name`.
    pub(super) fn read(&self, name: &str) -> Result<String, CgroupError> {
        self.try_read(name)
            .map_err(|source| self.error("read", name, source))
    }

    /// The whole text of the file `name`, or nothing when this kernel has no such file.
    pub(super) fn read_optional(&self, name: &str) -> Result<Option<String>, CgroupError> {
        match self.try_read(name) {
            Ok(text) => Ok(Some(text)),
            // EOPNOTSUPP: pressure files while PSI is off.
            Err(Errno::ENOENT | Errno::EOPNOTSUPP) => Ok(None),
            Err(source) => Err(self.error("read", name, source)),
        }
    }

    fn try_read(&self, name: &str) -> Result<String, Errno> {
        let file = self.open_file(name, OFlag::O_RDONLY)?;
        let mut bytes = vec![0; 4096];
        let mut length = 0;
        loop {
            if length == bytes.len() {
                if length >= MAX_FILE {
                    return Err(Errno::EFBIG);
                }
                bytes.resize(length * 2, 0);
            }
            match read(&file, &mut bytes[length..]) {
                Ok(0) => break,
                Ok(count) => {
                    length += count;
                    // seq_file gathers records until a page is full, and no record of a file with several is
                    // longer than a line: a read this short was the last one.
                    if count < SHORT {
                        break;
                    }
                }
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        bytes.truncate(length);
        String::from_utf8(bytes).map_err(|_| Errno::EILSEQ)
    }

    /// Writes `value` to the file `name` in one call, as cgroupfs asks for.
    pub(super) fn write(&self, name: &str, value: &str) -> Result<(), CgroupError> {
        self.try_write(name, value)
            .map_err(|source| self.write_error(name, value, String::new(), source))
    }

    /// As [`Dir::write`] with the bare errno, for callers that try another order or add a hint.
    pub(super) fn try_write(&self, name: &str, value: &str) -> Result<(), Errno> {
        let file = self.open_file(name, OFlag::O_WRONLY)?;
        loop {
            match write(&file, value.as_bytes()) {
                Ok(count) if count == value.len() => return Ok(()),
                Ok(_) => return Err(Errno::EIO),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    pub(super) fn error(&self, action: &'static str, name: &str, source: Errno) -> CgroupError {
        CgroupError::Io {
            action,
            path: self.path.join(name),
            source,
        }
    }

    pub(super) fn write_error(
        &self,
        name: &str,
        value: &str,
        hint: String,
        source: Errno,
    ) -> CgroupError {
        CgroupError::Write {
            path: self.path.join(name),
            value: value.to_owned(),
            hint,
            source,
        }
    }

    /// The error for a file whose text is not what its documentation says.
    pub(super) fn parse_error(
        &self,
        name: &str,
        text: &str,
        expected: &'static str,
    ) -> CgroupError {
        CgroupError::Parse {
            path: self.path.join(name),
            text: text.chars().take(80).collect(),
            expected,
        }
    }

    /// The names of the child groups.
    pub(super) fn children(&self) -> Result<Vec<String>, CgroupError> {
        let failed = |error: std::io::Error| CgroupError::Io {
            action: "list cgroup",
            path: self.path.clone(),
            source: Errno::from_raw(error.raw_os_error().unwrap_or(0)),
        };
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_type().is_ok_and(|kind| kind.is_dir())
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        Ok(names)
    }
}
