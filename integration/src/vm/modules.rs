//! Kernel modules in the order in which they can be loaded.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

/// A module without directory and ending; the kernel does not tell `-` from `_`.
fn name_of(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let (stem, ending) = file.split_once('.')?;
    ending.starts_with("ko").then(|| stem.replace('-', "_"))
}

/// All modules below `directory`, by name.
///
/// # Errors
/// When the directory cannot be read.
pub(super) fn find(directory: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    let mut left = vec![directory.to_owned()];
    while let Some(directory) = left.pop() {
        let entries =
            fs::read_dir(&directory).with_context(|| format!("reading {}", directory.display()))?;
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                left.push(entry.path());
            } else if let Some(name) = name_of(&entry.path()) {
                found.insert(name, entry.path());
            }
        }
    }
    Ok(found)
}

/// `wanted` and all that they need, each behind what it needs. `needs` names what a module needs
/// directly, or nothing when it is part of the kernel itself.
///
/// # Errors
/// The one of `needs`, and when modules need each other in a circle.
pub(super) fn order(
    wanted: &[&str],
    needs: &dyn Fn(&str) -> Result<Vec<String>>,
) -> Result<Vec<String>> {
    let mut ordered = Vec::new();
    for module in wanted {
        add(module, needs, &mut Vec::new(), &mut ordered)?;
    }
    Ok(ordered)
}

fn add(
    module: &str,
    needs: &dyn Fn(&str) -> Result<Vec<String>>,
    above: &mut Vec<String>,
    ordered: &mut Vec<String>,
) -> Result<()> {
    if ordered.iter().any(|name| name == module) {
        return Ok(());
    }
    if above.iter().any(|name| name == module) {
        bail!(
            "module {module} needs itself, by way of {}",
            above.join(", ")
        );
    }
    above.push(module.to_owned());
    for needed in needs(module)? {
        add(&needed, needs, above, ordered)?;
    }
    above.pop();
    ordered.push(module.to_owned());
    Ok(())
}

/// What the module with this content needs: its `depends=` entry, which the kernel's build writes into
/// the ELF section `.modinfo` as NUL-terminated text.
pub(super) fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(start) = module.windows(KEY.len()).position(|bytes| bytes == KEY) else {
        return Vec::new();
    };
    let value = &module[start + KEY.len()..];
    let end = value.iter().position(|byte| *byte == 0).unwrap_or_default();
    let names = String::from_utf8_lossy(&value[..end]).replace('-', "_");
    let names = names.split(',').filter(|name| !name.is_empty());
    names.map(ToOwned::to_owned).collect()
}

/// Whether a file is compressed, as newer kernels' modules are.
pub(super) fn is_compressed(path: &Path) -> bool {
    path.extension() == Some(OsStr::new("xz"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn names_have_no_ending_and_no_hyphen() {
        for (path, expected) in [
            ("kernel/fs/9p/9p.ko", Some("9p")),
            ("kernel/crypto/crc32c-intel.ko.xz", Some("crc32c_intel")),
            ("modules.order", None),
            ("modules", None),
        ] {
            let expected = expected.map(ToOwned::to_owned);
            assert_eq!(name_of(Path::new(path)), expected, "{path}");
        }
    }

    #[test]
    fn what_a_module_needs_is_read() {
        for (content, expected) in [
            (
                "\x7fELF\0license=GPL\0depends=jbd2,crc32c-x\0retpoline=Y\0",
                vec!["jbd2", "crc32c_x"],
            ),
            ("\x7fELF\0depends=\0name=a\0", vec![]),
            ("\x7fELF\0softdepends=b\0", vec![]),
            ("\x7fELF", vec![]),
        ] {
            assert_eq!(dependencies(content.as_bytes()), expected, "{content:?}");
        }
    }

    #[test]
    fn modules_come_behind_what_they_need() {
        let needs = |module: &str| -> Result<Vec<String>> {
            let needs: &[&str] = match module {
                "virtio_blk" => &["virtio", "virtio_ring"],
                "virtio" => &["virtio_ring"],
                "chicken" => &["egg"],
                "egg" => &["chicken"],
                "absent" => bail!("no such module"),
                _ => &[],
            };
            Ok(needs.iter().map(ToString::to_string).collect())
        };
        assert_eq!(
            order(&["virtio_blk", "virtio", "ext4"], &needs).unwrap(),
            ["virtio_ring", "virtio", "virtio_blk", "ext4"]
        );
        assert!(order(&["chicken"], &needs).is_err());
        assert!(order(&["absent"], &needs).is_err());
    }
}
