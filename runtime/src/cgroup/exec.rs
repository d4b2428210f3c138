//! A group for one exec, below its container's: what it starts can be ended as a whole, however it detaches itself.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use podwright_pause::protocol::EXEC_GROUP;

use super::{Cgroup, CgroupError, Leaf};

/// Counts the groups of this process; with its id, a name is never met again while a process is in the old one.
static NUMBERS: AtomicU64 = AtomicU64::new(1);

/// The group of one exec. Dropping it removes it, if nothing is left in it; what is left goes with the container's group.
#[derive(Debug)]
pub struct ExecGroup(Leaf);

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
        let dir = &Leaf::mount(&self.hierarchy).dir;
        dir.mkdir(path.relative())
            .map_err(|errno| dir.error("make cgroup", path.relative(), errno))?;
        let group = self.hierarchy.cgroup(&path);
        Ok(ExecGroup(Leaf::new(group, self.clone())))
    }
}

impl ExecGroup {
    /// The files into which the exec writes `0`, as [`Cgroup::join_files`].
    pub fn join_files(&self) -> Vec<PathBuf> {
        self.0.join_files()
    }

    /// Kills everything in it; blocks until all is gone.
    ///
    /// # Errors
    /// As [`Cgroup::kill_all`].
    pub fn kill(&self, timeout: Duration) -> Result<(), CgroupError> {
        self.0.kill(timeout)
    }
}

impl Drop for ExecGroup {
    fn drop(&mut self) {
        // The command may have left processes behind, which is its right.
        self.0.remove();
    }
}
