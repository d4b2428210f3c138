//! A group for one exec, below its container's: what it starts can be ended as a whole, however it detaches itself.
//!
//! It exists only in the mount that holds the processes' places (the unified one where there is one); in the other mounts an
//! exec is in its container's group. Where `cgroup.kill` exists, ending a group is one write (Linux 5.14, cgroups(7)).

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use podwright_pause::protocol::EXEC_GROUP;

use super::{Cgroup, CgroupError};

/// Counts the groups of this process; with its id, a name is never met again while a process is in the old one.
static NUMBERS: AtomicU64 = AtomicU64::new(1);

/// The group of one exec. Dropping it removes it, if nothing is left in it; what is left goes with the container's group.
#[derive(Debug)]
pub struct ExecGroup {
    group: Cgroup,
    container: Cgroup,
}

impl Cgroup {
    /// Makes a group for an exec in this container.
    ///
    /// # Errors
    /// [`CgroupError::Io`]: the container's group is gone, say.
    pub fn exec_group(&self) -> Result<ExecGroup, CgroupError> {
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let path = self
            .path
            .join(&format!("{EXEC_GROUP}{}-{number}", std::process::id()))?;
        let dir = &self.hierarchy.anchor().dir;
        dir.mkdir(path.relative())
            .map_err(|errno| dir.error("make cgroup", path.relative(), errno))?;
        Ok(ExecGroup {
            group: self.hierarchy.cgroup(&path),
            container: self.clone(),
        })
    }
}

impl ExecGroup {
    /// The `cgroup.procs` files into which the exec writes `0`, in join order.
    pub fn procs_files(&self) -> Vec<PathBuf> {
        let anchor = self.group.hierarchy.anchor();
        let own = anchor
            .dir
            .path()
            .join(self.group.path.relative())
            .join("cgroup.procs");
        let shared = anchor
            .dir
            .path()
            .join(self.container.path.relative())
            .join("cgroup.procs");
        let files = self.container.procs_files().into_iter();
        files
            .map(|file| if file == shared { own.clone() } else { file })
            .collect()
    }

    /// Kills everything in it; blocks until all is gone.
    ///
    /// # Errors
    /// As [`Cgroup::kill_all`].
    pub fn kill(&self, timeout: Duration) -> Result<(), CgroupError> {
        self.group.kill_all(timeout)
    }
}

impl Drop for ExecGroup {
    fn drop(&mut self) {
        let anchor = &self.group.hierarchy.anchor().dir;
        match anchor.rmdir(self.group.path.relative()) {
            // EBUSY: the command left processes behind, which is its right.
            Ok(()) | Err(Errno::ENOENT | Errno::ENODEV | Errno::EBUSY | Errno::ENOTEMPTY) => {}
            Err(errno) => {
                tracing::warn!(cgroup = %self.group.path, %errno, "cannot remove the group of an exec")
            }
        }
    }
}
