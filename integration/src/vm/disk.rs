//! Disks of a machine: sparse files with a file system in them.

use std::{
    fmt, fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::programs::{Programs, sparse};
use crate::packages::run;

/// What a read-only image has beyond its files' content, for directories and the file system's own use.
const IMAGE_RESERVE: u64 = 32 << 20;

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
    path: PathBuf,
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
        Ok(Self { path })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Writes the tree below `root` into the new read-only image `path`.
pub(super) fn image_of(root: &Path, path: &Path, programs: &Programs) -> Result<()> {
    sparse(path, size_of(root)? + IMAGE_RESERVE)?;
    // Nothing is ever written to it, so it needs no journal and no room for root.
    let mut make = programs.command("mke2fs")?;
    make.args(["-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d"]);
    run(make.arg(root).arg(path)).with_context(|| format!("packing {}", root.display()))?;
    Ok(())
}

/// Bytes that the files below `root` take in blocks.
fn size_of(root: &Path) -> Result<u64> {
    let entries = fs::read_dir(root).with_context(|| format!("reading {}", root.display()))?;
    let mut sum = 0;
    for entry in entries {
        let entry = entry?;
        sum += entry.metadata()?.blocks() * 512;
        if entry.file_type()?.is_dir() {
            sum += size_of(&entry.path())?;
        }
    }
    Ok(sum)
}
