//! The state and the run directory: made when absent, and nobody else's.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DirectoryError {
    #[error("cannot {action} the directory {path}: {source}")]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "{path} belongs to user {owner}, not to user {me} whom the daemon runs as: what is in it could be exchanged; remove it or set another directory"
    )]
    ForeignOwner { path: PathBuf, owner: u32, me: u32 },
}

/// Makes `path` with its parents, or takes it when it is ours, and closes it to others: layers hold setuid
/// programs, and a wide mode lets any user run them (CVE-2024-25621).
pub(crate) fn prepare(path: &Path) -> Result<(), DirectoryError> {
    let failed = |action| {
        move |source| DirectoryError::Io {
            action,
            path: path.to_owned(),
            source,
        }
    };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed("make the parent of"))?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(failed("make")(error));
        }
        _ => {}
    }
    let metadata = std::fs::metadata(path).map_err(failed("examine"))?;
    if !metadata.is_dir() {
        return Err(failed("make")(io::ErrorKind::NotADirectory.into()));
    }
    let (owner, me) = (metadata.uid(), geteuid().as_raw());
    if owner != me {
        return Err(DirectoryError::ForeignOwner {
            path: path.to_owned(),
            owner,
            me,
        });
    }
    std::fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(failed("set the mode of"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        prepare(&path).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        prepare(&path).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_file_in_the_way_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, "").unwrap();
        let error = prepare(&path).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()), "{error}");
    }
}
