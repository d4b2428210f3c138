//! A small disk for a daemon's state, to be filled.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::statvfs::statvfs,
};

/// What a tmpfs counts in; more where pages are larger, which then spares less.
const PAGE: u64 = 4096;

/// A disk's size. See tmpfs(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSize {
    /// Bytes of content.
    pub bytes: u64,
    /// Files, directories and links.
    pub inodes: u64,
}

/// What of a disk is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// There is no byte left.
    Bytes,
    /// There is no inode left.
    Inodes,
}

/// A tmpfs. It is unmounted when this is dropped.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
}

/// More often than a daemon gives something back at its end.
const FILLS: u32 = 100;

impl Disk {
    /// Makes the directory `path` one.
    pub(super) fn mount(path: PathBuf, size: DiskSize) -> Result<Self> {
        fs::create_dir_all(&path)?;
        let options = format!("size={},nr_inodes={},mode=755", size.bytes, size.inodes);
        let (kind, flags) = (Some("tmpfs"), MsFlags::empty());
        mount(kind, &path, kind, flags, Some(options.as_str()))
            .with_context(|| format!("mounting a tmpfs on {}", path.display()))?;
        Ok(Self { path })
    }

    /// Uses up what is left, until [`free`](Self::free). Again is fine: it takes what has become free, as it does by itself when the daemon
    /// reclaims something meanwhile.
    ///
    /// # Errors
    /// When something else than space is missing, or space comes without end.
    pub fn fill(&self, shortage: Shortage) -> Result<()> {
        let mut left = 0;
        for _ in 0..FILLS {
            left = self.take_what_is_left(shortage)?;
            if left == 0 {
                return Ok(());
            }
        }
        bail!("{left} {shortage:?} are left of {}", self.path.display())
    }

    /// How much has become free meanwhile.
    fn take_what_is_left(&self, shortage: Shortage) -> Result<u64> {
        let directory = self.filling();
        fs::create_dir_all(&directory)?;
        let filled = match shortage {
            Shortage::Bytes => fill_bytes(&directory.join("bytes")),
            Shortage::Inodes => fill_inodes(&directory),
        };
        match filled {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {}
            other => other.with_context(|| format!("filling {}", self.path.display()))?,
        }
        let stat = statvfs(&self.path)?;
        Ok(match shortage {
            Shortage::Bytes => stat.blocks_available(),
            Shortage::Inodes => stat.files_available(),
        })
    }

    /// Gives back so many pages or inodes of what [`fill`](Self::fill) took.
    ///
    /// # Errors
    /// When it has not taken so many.
    pub fn spare(&self, shortage: Shortage, count: u64) -> Result<()> {
        let directory = self.filling();
        match shortage {
            Shortage::Bytes => {
                let path = directory.join("bytes");
                let file = File::options().write(true).open(&path)?;
                let length = file.metadata()?.len();
                let kept = length.checked_sub(count * PAGE);
                file.set_len(kept.context("the filling is smaller")?)?;
            }
            Shortage::Inodes => {
                for number in 0..count {
                    fs::remove_file(directory.join(number.to_string()))?;
                }
            }
        }
        Ok(())
    }

    /// Gives back what [`fill`](Self::fill) took.
    ///
    /// # Errors
    /// When it cannot be deleted.
    pub fn free(&self) -> Result<()> {
        let filling = self.filling();
        fs::remove_dir_all(&filling).with_context(|| format!("deleting {}", filling.display()))
    }

    /// Bytes in use.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn used(&self) -> Result<u64> {
        let stat = statvfs(&self.path)?;
        Ok((stat.blocks() - stat.blocks_free()) * stat.fragment_size())
    }

    fn filling(&self) -> PathBuf {
        self.path.join("filling")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What clears the slot may have done it before.
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
    }
}

/// Never succeeds: it ends when nothing is left, in the end page by page.
fn fill_bytes(path: &Path) -> io::Result<()> {
    let mut file = File::options().create(true).append(true).open(path)?;
    let page = usize::try_from(PAGE).map_err(io::Error::other)?;
    let mut size = 1 << 20;
    loop {
        match file.write_all(&vec![0; size]) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull && size > page => size = page,
            other => other?,
        }
    }
}

fn fill_inodes(directory: &Path) -> io::Result<()> {
    let taken = fs::read_dir(directory)?.count();
    (taken..).try_for_each(|number| File::create(directory.join(number.to_string())).map(drop))
}
