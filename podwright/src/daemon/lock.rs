//! One daemon for each state and run directory.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// How long a lock is waited for: far more than a child takes from its birth to its program.
const PATIENCE: Duration = Duration::from_millis(500);

/// An exclusive flock(2) of `DIRECTORY/lock`. The kernel releases it when the daemon ends in any way, so it never
/// goes stale; the file's text, the holder's pid, is for the message to the next one only.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    _file: Flock<File>,
}

/// Why a directory is not ours.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    #[error(
        "another podwright (process {holder}) uses the directory {directory}; stop it, or give this one its own directories"
    )]
    Held { directory: PathBuf, holder: String },
    #[error("cannot lock {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

impl DirectoryLock {
    /// Takes the lock. A holder that was killed gives it back at once, unless a child of its that is on the way to its
    /// own program still shares it: hence the patience.
    pub(crate) fn take(directory: &Path) -> Result<Self, LockError> {
        let path = directory.join("lock");
        let io_error = |source| LockError::Io {
            path: path.clone(),
            source,
        };
        // Not truncated: until the lock is ours, the text is the holder's.
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(io_error)?;
        let mut file = match lock(file) {
            Ok(file) => file,
            Err((mut file, Errno::EWOULDBLOCK)) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                let holder = if holder.trim().is_empty() {
                    "unknown".to_owned()
                } else {
                    holder.trim().to_owned()
                };
                return Err(LockError::Held {
                    directory: directory.to_owned(),
                    holder,
                });
            }
            Err((_, errno)) => return Err(io_error(errno.into())),
        };
        file.set_len(0).map_err(io_error)?;
        writeln!(file, "{}", std::process::id()).map_err(io_error)?;
        Ok(Self { _file: file })
    }
}

fn lock(mut file: File) -> Result<Flock<File>, (File, Errno)> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Err((back, Errno::EWOULDBLOCK)) if Instant::now() < deadline => file = back,
            result => return result,
        }
        // flock(2) tells nobody when it becomes free but who blocks in it, without a deadline.
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_second_one_learns_who_holds_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = DirectoryLock::take(dir.path()).unwrap();
        let error = DirectoryLock::take(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains(&format!("process {}", std::process::id())),
            "{error}"
        );
        drop(first);
        DirectoryLock::take(dir.path()).unwrap();
    }
}
