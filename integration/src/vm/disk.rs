//! Disks that a machine writes to: sparse files with a file system in them.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::programs::{Programs, sparse};
use crate::packages::run;

/// A file system that images and pods may live on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum FileSystem {
    /// ext4(5).
    #[default]
    Ext4,
    /// xfs(5).
    Xfs,
}

impl fmt::Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        })
    }
}

/// A disk that a machine writes to. Its content stays when the machine ends, in whichever way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    source: Source,
}

/// Who has a disk's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A file.
    File(PathBuf),
    /// A server of NBD that listens on this Unix socket.
    Server(PathBuf),
}

impl Disk {
    /// Makes an empty one of `size` bytes, of which `path` takes what is written.
    ///
    /// # Errors
    /// When the file system cannot be made.
    pub fn create(path: &Path, file_system: FileSystem, size: u64) -> Result<Self> {
        let programs = Programs::open()?;
        sparse(path, size)?;
        let mut make = match file_system {
            FileSystem::Ext4 => {
                let mut make = programs.command("mke2fs")?;
                make.args(["-q", "-t", "ext4"]);
                make
            }
            FileSystem::Xfs => {
                let mut make = programs.command("mkfs.xfs")?;
                make.args(["-q", "-f"]);
                make
            }
        };
        run(make.arg(path))
            .with_context(|| format!("making {file_system} in {}", path.display()))?;
        Self::open(path)
    }

    /// One that is there already.
    ///
    /// # Errors
    /// When it is not.
    pub fn open(path: &Path) -> Result<Self> {
        let path = fs::canonicalize(path).with_context(|| format!("no disk {}", path.display()))?;
        Ok(Self {
            source: Source::File(path),
        })
    }

    /// One that an NBD server has.
    pub(super) fn served_at(socket: &Path) -> Self {
        Self {
            source: Source::Server(socket.to_owned()),
        }
    }

    /// Who has its content.
    pub(super) fn source(&self) -> &Source {
        &self.source
    }
}
