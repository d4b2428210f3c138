//! The lowest layer of a container's root: a place for each mount that every container has.
//!
//! Most images have no /etc/hosts, and many no /proc. A place that is missing has to be made in the container's writable layer, and
//! for one in /etc overlayfs first copies that directory up: a dozen changes of the disk for each start, and as many to remove the
//! container. What an image has, or has removed by a whiteout, covers this layer.
//!
//! And the places of cgroup v1's mounts, which are in none of an image's directories.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::cgroup::Hierarchy;

const DIRECTORIES: [&str; 4] = ["dev", "etc", "proc", "sys"];
const FILES: [&str; 3] = ["etc/hostname", "etc/hosts", "etc/resolv.conf"];

/// Where the layer is: on the file system of the writable layers, as files of a root with layers of several have no common device
/// number (overlayfs, "Inode properties").
pub(crate) fn layer(state_dir: &Path) -> PathBuf {
    state_dir.join("mount-points")
}

/// Makes the layer, or what a power loss has left out of it.
pub(crate) fn lay_out(layer: &Path) -> io::Result<()> {
    for directory in [""].iter().chain(&DIRECTORIES) {
        make_directory(&layer.join(directory))?;
    }
    for file in FILES {
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(true);
        let file = options.mode(0o644).open(layer.join(file))?;
        file.set_permissions(Permissions::from_mode(0o644))?;
    }
    Ok(())
}

/// Makes a place for each of cgroup v1's mounts, by the names that they have here: with a tmpfs of its own for them, each container
/// would begin with ten new directories, and each cgroup end with a look at one more file system.
pub(crate) fn lay_out_cgroups(places: &Path, hierarchy: &Hierarchy) -> io::Result<()> {
    make_directory(places)?;
    let mounts = hierarchy.mount_paths().into_iter();
    let mut names = mounts.filter_map(Path::file_name);
    names.try_for_each(|name| make_directory(&places.join(name)))
}

fn make_directory(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o755).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        // Whatever the umask is.
        _ => fs::set_permissions(path, Permissions::from_mode(0o755)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_or_wrong_is_made_again() {
        let state = tempfile::tempdir().unwrap();
        let layer = layer(state.path());
        lay_out(&layer).unwrap();
        fs::write(layer.join("etc/hosts"), "zeros").unwrap();
        fs::remove_file(layer.join("etc/hostname")).unwrap();
        fs::set_permissions(layer.join("etc"), Permissions::from_mode(0o700)).unwrap();
        lay_out(&layer).unwrap();
        assert_eq!(fs::read(layer.join("etc/hosts")).unwrap(), b"");
        assert_eq!(fs::read(layer.join("etc/hostname")).unwrap(), b"");
        let mode = |path: &str| {
            let metadata = fs::metadata(layer.join(path)).unwrap();
            metadata.permissions().mode() & 0o7777
        };
        assert_eq!(
            (mode(""), mode("etc"), mode("etc/hosts")),
            (0o755, 0o755, 0o644)
        );
    }
}
