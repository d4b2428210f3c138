//! A layer before it is packed: a list of entries.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use anyhow::{Context as _, Result};

use super::tar;

/// What an [`Entry`] is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file with this content.
    File(Vec<u8>),
    /// A symbolic link to this target.
    Symlink(String),
    /// Another name of an entry before this one.
    HardLink(String),
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice {
        /// The driver.
        major: u32,
        /// The device of the driver.
        minor: u32,
    },
}

/// One member of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Written as it is, also when hostile.
    pub path: String,
    /// Permission bits, with set-user-ID and the like.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The owning group.
    pub gid: u32,
    /// Extended attributes; values are text.
    pub xattrs: BTreeMap<String, String>,
    /// What it is.
    pub kind: Kind,
}

impl Entry {
    /// An entry of root's.
    pub fn new(path: &str, mode: u32, kind: Kind) -> Self {
        let (path, xattrs) = (path.to_owned(), BTreeMap::new());
        Self {
            path,
            mode,
            uid: 0,
            gid: 0,
            xattrs,
            kind,
        }
    }

    /// A directory.
    pub fn directory(path: &str, mode: u32) -> Self {
        Self::new(path, mode, Kind::Directory)
    }

    /// A regular file.
    pub fn file(path: &str, mode: u32, content: impl Into<Vec<u8>>) -> Self {
        Self::new(path, mode, Kind::File(content.into()))
    }

    /// A symbolic link.
    pub fn symlink(path: &str, target: &str) -> Self {
        Self::new(path, 0o777, Kind::Symlink(target.to_owned()))
    }

    /// A second name for the earlier entry `target`.
    pub fn hard_link(path: &str, target: &str) -> Self {
        Self::new(path, 0o755, Kind::HardLink(target.to_owned()))
    }

    /// Changes the owner.
    pub fn owned_by(mut self, uid: u32, gid: u32) -> Self {
        (self.uid, self.gid) = (uid, gid);
        self
    }

    /// Adds an extended attribute.
    pub fn with_xattr(mut self, name: &str, value: &str) -> Self {
        self.xattrs.insert(name.to_owned(), value.to_owned());
        self
    }
}

/// Entries in the order in which they are packed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layer {
    /// The members.
    pub entries: Vec<Entry>,
}

impl Layer {
    /// A layer of these entries.
    pub fn new(entries: impl Into<Vec<Entry>>) -> Self {
        Self {
            entries: entries.into(),
        }
    }

    /// The uncompressed archive; its digest is the layer's diff id.
    pub fn tar(&self) -> Vec<u8> {
        tar::archive(&self.entries)
    }

    /// Adds everything below the directory `root` whose path, relative to it, `keep` accepts, with
    /// the directories that lead there. Owners become root.
    pub fn add_tree(&mut self, root: &Path, keep: &dyn Fn(&str) -> bool) -> Result<()> {
        let mut found = Vec::new();
        walk(root, "", &mut found)
            .with_context(|| format!("reading the tree at {}", root.display()))?;
        for path in found.iter().filter(|path| keep(path)) {
            for (end, _) in path.match_indices('/') {
                self.add_directory(&path[..end]);
            }
            self.entries.push(entry_on_disk(root, path)?);
        }
        Ok(())
    }

    fn add_directory(&mut self, path: &str) {
        if !self.entries.iter().any(|entry| entry.path == path) {
            self.entries.push(Entry::directory(path, 0o755));
        }
    }
}

/// All files and links below `root`, sorted; without directories.
fn walk(root: &Path, below: &str, found: &mut Vec<String>) -> io::Result<()> {
    let mut children: Vec<_> = fs::read_dir(root.join(below))?
        .collect::<io::Result<Vec<_>>>()?
        .into_iter()
        .collect();
    children.sort_by_key(fs::DirEntry::file_name);
    for child in children {
        let name = child.file_name().to_string_lossy().into_owned();
        let path = if below.is_empty() {
            name
        } else {
            format!("{below}/{name}")
        };
        if child.file_type()?.is_dir() {
            walk(root, &path, found)?;
        } else {
            found.push(path);
        }
    }
    Ok(())
}

fn entry_on_disk(root: &Path, path: &str) -> Result<Entry> {
    let full = root.join(path);
    let read = || -> io::Result<Entry> {
        let meta = fs::symlink_metadata(&full)?;
        if meta.is_symlink() {
            let target = fs::read_link(&full)?;
            return Ok(Entry::symlink(path, &target.to_string_lossy()));
        }
        debug_assert!(meta.is_file() && meta.nlink() > 0);
        Ok(Entry::file(
            path,
            meta.permissions().mode() & 0o7777,
            fs::read(&full)?,
        ))
    };
    read().with_context(|| format!("reading {}", full.display()))
}
