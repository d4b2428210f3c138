//! Compares a layer's directory, file by file, with what the layer was made of.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use podwright_integration::images::{Entry, Kind, Layer};

/// See the image-spec's layer.md and the kernel's overlayfs.rst.
const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";
const OPAQUE_XATTR: &str = "trusted.overlay.opaque";
/// Values here are short.
const MAX_XATTR: usize = 256;

/// What one path of a layer must be.
#[derive(Debug)]
enum Expected<'a> {
    Entry(&'a Entry),
    /// The path is hidden: a character device 0:0.
    Whiteout,
}

/// Compares everything; returned is the number of entries.
///
/// # Errors
/// With the first thing that is not as it must be.
pub(crate) fn compare(root: &Path, layer: &Layer) -> Result<usize> {
    let mut expected = BTreeMap::new();
    let mut opaque = Vec::new();
    for entry in &layer.entries {
        let (directory, name) = entry.path.rsplit_once('/').unwrap_or(("", &entry.path));
        if name == OPAQUE {
            opaque.push(directory.to_owned());
        } else if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            expected.insert(format!("{directory}/{hidden}"), Expected::Whiteout);
        } else {
            expected.insert(entry.path.clone(), Expected::Entry(entry));
        }
    }
    let mut found = Vec::new();
    walk(root, "", &mut found).with_context(|| format!("reading {}", root.display()))?;
    found.sort();
    let wanted: Vec<_> = expected.keys().cloned().collect();
    let missing: Vec<_> = wanted.iter().filter(|path| !found.contains(path)).collect();
    let strange: Vec<_> = found
        .iter()
        .filter(|path| !expected.contains_key(*path))
        .collect();
    ensure!(
        missing.is_empty() && strange.is_empty(),
        "{}: missing {missing:?}, and nobody's {strange:?}",
        root.display()
    );
    for (path, expected) in &expected {
        let at = root.join(path);
        let is_opaque = opaque.contains(path);
        compare_one(root, &at, expected, is_opaque).with_context(|| at.display().to_string())?;
    }
    Ok(wanted.len())
}

fn walk(root: &Path, below: &str, found: &mut Vec<String>) -> Result<()> {
    for child in fs::read_dir(root.join(below))? {
        let child = child?;
        let name = child.file_name().to_string_lossy().into_owned();
        let path = match below {
            "" => name,
            below => format!("{below}/{name}"),
        };
        if child.file_type()?.is_dir() {
            walk(root, &path, found)?;
        }
        found.push(path);
    }
    Ok(())
}

fn compare_one(root: &Path, at: &Path, expected: &Expected<'_>, is_opaque: bool) -> Result<()> {
    let found = fs::symlink_metadata(at)?;
    let kind = found.file_type();
    let entry = match expected {
        Expected::Whiteout => {
            ensure!(kind.is_char_device() && found.rdev() == 0, "no whiteout");
            return Ok(());
        }
        Expected::Entry(entry) => entry,
    };
    match &entry.kind {
        Kind::Directory => ensure!(kind.is_dir(), "no directory"),
        Kind::File(content) => {
            ensure!(kind.is_file(), "no file");
            let read = fs::read(at)?;
            ensure!(
                read == *content,
                "another content: {} bytes, of which the first {} are right, instead of {}",
                read.len(),
                read.iter().zip(content).take_while(|(a, b)| a == b).count(),
                content.len()
            );
        }
        Kind::Symlink(target) => {
            let found = fs::read_link(at)?;
            ensure!(
                found.as_os_str() == target.as_str(),
                "leads to {}",
                found.display()
            );
        }
        Kind::HardLink(target) => {
            let target = fs::symlink_metadata(root.join(target))?;
            ensure!(target.ino() == found.ino(), "is a file of its own");
            // The other name's owner, mode and attributes, which are compared there.
            return Ok(());
        }
        Kind::Fifo => ensure!(kind.is_fifo(), "no pipe"),
        Kind::CharDevice { .. } => ensure!(kind.is_char_device(), "no device"),
    }
    let owner = (found.uid(), found.gid());
    ensure!(owner == (entry.uid, entry.gid), "belongs to {owner:?}");
    if !kind.is_symlink() {
        let mode = found.mode() & 0o7777;
        ensure!(
            mode == entry.mode,
            "has mode {mode:o} instead of {:o}",
            entry.mode
        );
    }
    if kind.is_file() {
        ensure!(found.mtime() == 0, "was changed at {}", found.mtime());
    }
    for (name, value) in &entry.xattrs {
        let found = xattr(at, name)?;
        ensure!(found == value.as_bytes(), "its {name} is {found:?}");
    }
    if is_opaque {
        ensure!(xattr(at, OPAQUE_XATTR)? == b"y", "is not opaque");
    }
    Ok(())
}

fn xattr(path: &Path, name: &str) -> Result<Vec<u8>> {
    let mut value = [0; MAX_XATTR];
    let length = rustix::fs::lgetxattr(path, name, &mut value)
        .with_context(|| format!("reading the attribute {name}"))?;
    Ok(value[..length].to_vec())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn every_difference_is_found() {
        let (uid, gid) = (
            nix::unistd::geteuid().as_raw(),
            nix::unistd::getegid().as_raw(),
        );
        let layer = Layer::new([
            Entry::directory("d", 0o755).owned_by(uid, gid),
            Entry::file("d/file", 0o644, "content").owned_by(uid, gid),
            Entry::symlink("d/link", "file").owned_by(uid, gid),
        ]);
        type Change = fn(&Path);
        let changes: [(&str, Change); 6] = [
            ("another content", |d| {
                fs::write(d.join("file"), "contenT").unwrap();
            }),
            ("missing", |d| fs::remove_file(d.join("file")).unwrap()),
            ("nobody's", |d| fs::write(d.join("more"), "").unwrap()),
            ("mode", |d| {
                fs::set_permissions(d.join("file"), fs::Permissions::from_mode(0o600)).unwrap();
            }),
            ("leads to", |d| {
                fs::remove_file(d.join("link")).unwrap();
                std::os::unix::fs::symlink("other", d.join("link")).unwrap();
            }),
            ("changed at", |d| {
                let file = fs::File::options().write(true).open(d.join("file"));
                file.unwrap()
                    .set_modified(std::time::SystemTime::now())
                    .unwrap();
            }),
        ];
        let make = || {
            let root = tempfile::tempdir().unwrap();
            let d = root.path().join("d");
            fs::create_dir(&d).unwrap();
            fs::set_permissions(&d, fs::Permissions::from_mode(0o755)).unwrap();
            fs::write(d.join("file"), "content").unwrap();
            fs::set_permissions(d.join("file"), fs::Permissions::from_mode(0o644)).unwrap();
            let file = fs::File::options().write(true).open(d.join("file"));
            let epoch = std::time::SystemTime::UNIX_EPOCH;
            file.unwrap().set_modified(epoch).unwrap();
            std::os::unix::fs::symlink("file", d.join("link")).unwrap();
            root
        };
        assert_eq!(compare(make().path(), &layer).unwrap(), 3);
        for (expected, change) in changes {
            let root = make();
            change(&root.path().join("d"));
            let error = format!("{:#}", compare(root.path(), &layer).unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
    }
}
