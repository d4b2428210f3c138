//! Read-only disk images of what a machine is made of.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use anyhow::{Context as _, Result};

use super::programs::{Programs, sparse};
use crate::packages::run;

/// What an image has beyond its files' content, for directories and the file system's own use.
const IMAGE_RESERVE: u64 = 32 << 20;

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
