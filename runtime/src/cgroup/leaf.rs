//! A group below another one, in one mount only; in the other mounts, its processes are in the other one.
//!
//! It keeps processes apart where that is needed: on cgroup v2, where no group has both processes and children with controllers
//! (cgroups(7)). In each of v1's mounts it would cost as much, and serve nothing.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;

use super::hierarchy::Mount;
use super::{Cgroup, CgroupError, CgroupPath, Hierarchy};

/// See the module.
#[derive(Clone, Debug)]
pub struct Leaf {
    group: Cgroup,
    /// In the other mounts.
    trunk: Cgroup,
}

impl Leaf {
    pub(super) fn new(group: Cgroup, trunk: Cgroup) -> Self {
        Self { group, trunk }
    }

    /// The mount that leaves are in: the unified one where there is one, with `cgroup.kill` for all at once (Linux 5.14,
    /// cgroups(7)), or else v1's freezer.
    pub(super) fn mount(hierarchy: &Hierarchy) -> &Mount {
        &hierarchy.mounts()[Self::mount_index(hierarchy)]
    }

    fn mount_index(hierarchy: &Hierarchy) -> usize {
        let unified = hierarchy.unified_index();
        unified.unwrap_or_else(|| hierarchy.anchor_index())
    }

    /// Its path in its own mount.
    pub(super) fn path(&self) -> &CgroupPath {
        self.group.path()
    }

    /// Its group in the other mounts.
    pub(super) fn trunk(&self) -> &Cgroup {
        &self.trunk
    }

    /// Its group in a mount.
    pub(super) fn in_mount(&self, mount: usize) -> &Cgroup {
        if mount == Self::mount_index(&self.group.hierarchy) {
            &self.group
        } else {
            &self.trunk
        }
    }

    /// The files into which a process writes `0`, as [`Cgroup::join_files`].
    pub fn join_files(&self) -> Vec<PathBuf> {
        (0..self.group.hierarchy.mounts().len())
            .map(|mount| self.in_mount(mount).join_file(mount))
            .collect()
    }

    /// As [`Cgroup::dir`].
    ///
    /// # Errors
    /// Its.
    pub fn dir(&self) -> Result<OwnedFd, CgroupError> {
        self.group.dir()
    }

    /// Kills everything in it; blocks until all is gone.
    ///
    /// # Errors
    /// As [`Cgroup::kill_all`].
    pub(super) fn kill(&self, timeout: Duration) -> Result<(), CgroupError> {
        self.group.kill_all(timeout)
    }

    /// Removes it, unless processes are in it.
    pub(super) fn remove(&self) {
        let root = &Self::mount(&self.group.hierarchy).dir;
        match root.rmdir(self.group.path.relative()) {
            Ok(()) | Err(Errno::ENOENT | Errno::ENODEV | Errno::EBUSY | Errno::ENOTEMPTY) => {}
            Err(errno) => {
                tracing::warn!(cgroup = %self.group.path, %errno, "cannot remove a group of one mount")
            }
        }
    }
}
