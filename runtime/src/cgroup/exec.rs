//! A group for one exec, below its container's: what it starts can be ended as a whole, however it detaches itself.
//!
//! It exists only in one mount: the unified one where there is one, with `cgroup.kill` for all at once (Linux 5.14, cgroups(7)), or
//! else v1's freezer. In the other mounts an exec is in its container's group.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use podwright_pause::protocol::EXEC_GROUP;

use super::hierarchy::Mount;
use super::{Cgroup, CgroupError, Hierarchy};

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
        let dir = &mount(&self.hierarchy).dir;
        dir.mkdir(path.relative())
            .map_err(|errno| dir.error("make cgroup", path.relative(), errno))?;
        Ok(ExecGroup {
            group: self.hierarchy.cgroup(&path),
            container: self.clone(),
        })
    }
}

/// Where execs have groups of their own.
fn mount(hierarchy: &Hierarchy) -> &Mount {
    hierarchy.unified().unwrap_or_else(|| hierarchy.anchor())
}

impl ExecGroup {
    /// The files into which the exec writes `0`, as [`Cgroup::join_files`].
    pub fn join_files(&self) -> Vec<PathBuf> {
        let hierarchy = &self.group.hierarchy;
        let own = hierarchy
            .unified_index()
            .unwrap_or_else(|| hierarchy.anchor_index());
        (0..hierarchy.mounts().len())
            .map(|mount| {
                let group = if mount == own {
                    &self.group
                } else {
                    &self.container
                };
                group.join_file(mount)
            })
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
        let root = &mount(&self.group.hierarchy).dir;
        match root.rmdir(self.group.path.relative()) {
            // EBUSY: the command left processes behind, which is its right.
            Ok(()) | Err(Errno::ENOENT | Errno::ENODEV | Errno::EBUSY | Errno::ENOTEMPTY) => {}
            Err(errno) => {
                tracing::warn!(cgroup = %self.group.path, %errno, "cannot remove the group of an exec")
            }
        }
    }
}
