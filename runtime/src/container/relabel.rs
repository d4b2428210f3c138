//! SELinux labels of volumes (`selinux_relabel`): every file gets the container's.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::Spec;
use podwright_cri_api::v1::ContainerConfig;

use crate::RuntimeError;
use crate::error::{CallError, Context};
use crate::index::shown;
use crate::security::selinux::Selinux;
use crate::sys;

/// Directories of the host itself: relabelled, the host would no longer work.
const OF_THE_HOST: [&str; 14] = [
    "/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/proc", "/root", "/run",
    "/sys", "/usr", "/var",
];

/// Where a file's label is (xattr(7)).
const ATTRIBUTE: &str = "security.selinux";

/// Deeper trees than any file system's longest path are none.
const DEEPEST: usize = 2048;

/// Labels the volumes whose requests say so, where SELinux is on.
pub(super) fn volumes(config: &ContainerConfig, spec: &Spec) -> Result<(), CallError> {
    let linux = spec.linux().as_ref();
    let Some(label) = linux.and_then(|linux| linux.mount_label().as_deref()) else {
        return Ok(());
    };
    let asked = config.mounts.iter().filter(|mount| mount.selinux_relabel);
    asked
        .map(|mount| mount.host_path.as_str())
        .filter(|path| !path.is_empty())
        .try_for_each(|path| relabel(path, label))
}

/// Labels the image store's layers for reading, where containers have labels. What is unpacked later has the label of its
/// directory; what was there before SELinux was switched on is walked through once.
///
/// Through an overlay a container maps the layer's own file, whose label then counts beside the overlay's (Linux's
/// mm/mmap.c asks about the file that ovl_mmap() puts in place).
pub(crate) fn layers(selinux: &Selinux, layers_root: &Path) -> Result<(), RuntimeError> {
    let Some(label) = selinux.layer_label() else {
        return Ok(());
    };
    let staging = layers_root.with_file_name("staging");
    for path in [layers_root, &staging] {
        let failed = |source| RuntimeError::File {
            action: "label for SELinux",
            path: path.to_owned(),
            source,
        };
        let root = File::open(path).map_err(failed)?;
        // The kernel adds a NUL.
        let has = sys::attribute(root.as_fd(), ATTRIBUTE).unwrap_or_default();
        if has.strip_suffix(b"\0").unwrap_or(&has) != label.as_bytes() {
            tracing::info!(path = %path.display(), label, "labelling the image store");
            let beneath = root.try_clone().map_err(failed)?;
            label_below(beneath.into(), label).map_err(failed)?;
            // Last: what is interrupted is begun again.
            label_file(root.as_fd(), label).map_err(failed)?;
        }
    }
    Ok(())
}

/// Labels all that is at and below a host path.
fn relabel(path: &str, label: &str) -> Result<(), CallError> {
    let failed = || format!("cannot give '{}' the SELinux label {label}", shown(path));
    let real = std::fs::canonicalize(path).invalid(failed)?;
    if OF_THE_HOST.iter().any(|own| real == Path::new(own)) {
        return Err(CallError::invalid(format!(
            "{}: it belongs to the host itself",
            failed()
        )));
    }
    let root = File::open(&real).internal(failed)?;
    let is_directory = root.metadata().internal(failed)?.is_dir();
    label_file(root.as_fd(), label).internal(failed)?;
    if is_directory {
        label_below(root.into(), label).internal(failed)?;
    }
    Ok(())
}

/// Walks by descriptors: whoever writes to the volume meanwhile leads nowhere else.
fn label_below(root: OwnedFd, label: &str) -> io::Result<()> {
    let mut open = vec![root];
    while let Some(directory) = open.pop() {
        if open.len() > DEEPEST {
            return Err(io::Error::from_raw_os_error(libc::ELOOP));
        }
        let list = std::fs::read_dir(format!("/proc/self/fd/{}", directory.as_raw_fd()))?;
        for entry in list {
            let entry = entry?;
            let kind = entry.file_type()?;
            // A link has no files, and its own label opens nothing.
            if kind.is_symlink() {
                continue;
            }
            let flags = libc::O_PATH | libc::O_NOFOLLOW;
            let resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS;
            let name = entry.file_name();
            let file = sys::open_beneath(directory.as_fd(), Path::new(&name), flags, 0, resolve);
            let file = match file {
                // It was removed, or made a link, meanwhile.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ELOOP)) => {
                    continue;
                }
                file => file?,
            };
            label_file(file.as_fd(), label)?;
            if kind.is_dir() {
                open.push(file);
            }
        }
    }
    Ok(())
}

/// Labels one file or directory of the runtime's own.
pub(crate) fn label_path(path: &Path, label: &str) -> Result<(), CallError> {
    File::open(path)
        .and_then(|file| label_file(file.as_fd(), label))
        .internal(|| format!("cannot give {} the SELinux label {label}", path.display()))
}

/// A file system without labels of its own (NFS, FAT) has the mount's: that is as good.
fn label_file(file: std::os::fd::BorrowedFd<'_>, label: &str) -> io::Result<()> {
    match sys::set_attribute(file, ATTRIBUTE, label.as_bytes()) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_s_own_directories_are_refused() {
        for path in ["/", "/etc", "/usr/", "/etc/../usr"] {
            let error = relabel(path, "a:b:c:s0").unwrap_err().to_string();
            assert!(error.contains("host itself"), "{error}");
        }
    }

    /// Without SELinux any label can be set, and links lead nowhere.
    #[test]
    fn every_file_below_is_labelled_and_nothing_else() {
        let (volume, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let inside = volume.path().join("deep/er");
        std::fs::create_dir_all(&inside).unwrap();
        std::fs::write(inside.join("file"), "").unwrap();
        std::os::unix::fs::symlink(outside.path(), volume.path().join("link")).unwrap();
        relabel(volume.path().to_str().unwrap(), "u:r:t:s0").unwrap();
        let label =
            |path: &Path| sys::attribute(File::open(path).unwrap().as_fd(), "security.selinux");
        for path in [volume.path(), &inside, &inside.join("file")] {
            assert_eq!(label(path).unwrap(), b"u:r:t:s0", "{}", path.display());
        }
        assert!(label(outside.path()).is_err());
    }
}
