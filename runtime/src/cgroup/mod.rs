//! Control groups by plain file I/O: v1, v2 and both at once, cgroupfs driver.
//!
//! A [`Hierarchy`] is detected once and keeps the mounts' roots open; a [`Cgroup`] names the same path in every
//! mount. Each operation opens its directories once and reaches the files with `openat(2)`. Nothing here sleeps,
//! runs a program or lists anything but the subtree in question.
//!
//! A container's tasks sit at the same path in every v1 controller, in `name=systemd` and in the unified mount, so
//! that `cgroup.kill`, `cgroup.events` and pressure files of the unified mount work on v1 machines as well.
//!
//! On v2 a group that has children with controllers holds no processes itself (cgroups(7), "no internal processes"):
//! a process of the pod belongs in a leaf beside the containers, never in the pod's own group.

mod apply;
mod apply_devices;
mod apply_unified;
mod apply_v1;
mod apply_v2;
mod bpf;
mod create;
mod detail;
mod device_program;
mod device_rule;
mod dir;
mod error;
mod exec;
mod format;
mod held;
mod hierarchy;
mod kill;
mod leaf;
mod meter;
mod mountinfo;
mod path;
mod pidfd;
mod remove;
mod stats;
mod undo;
mod weight;

#[cfg(test)]
mod fake_v2;
#[cfg(test)]
mod kernel_tests;

use std::os::fd::OwnedFd;
use std::path::PathBuf;

pub use detail::{Detail, DeviceIo, HugetlbStats, Operation, Throttling};
pub use error::CgroupError;
pub use exec::{ExecGroup, ExecGroups};
pub use format::{Pressure, PressureLine};
pub use held::HeldResources;
pub use hierarchy::{Controller, Hierarchy, Version};
pub use leaf::Leaf;
pub use meter::HeldMeter;
pub use path::CgroupPath;
pub use stats::{CpuStats, MemoryStats, Stats, SwapStats};
pub use undo::Undo;
pub use weight::CpuShares;

use dir::Dir;
use hierarchy::Location;

/// Whether this kernel takes device programs (cgroup v2).
///
/// # Errors
/// What the kernel says.
pub(crate) fn try_device_program() -> std::io::Result<()> {
    Ok(apply_devices::try_program()?)
}

/// One path in every mounted hierarchy. Naming one does no I/O.
#[derive(Clone, Debug)]
pub struct Cgroup {
    hierarchy: Hierarchy,
    path: CgroupPath,
}

impl Cgroup {
    /// The path below every mount.
    pub fn path(&self) -> &CgroupPath {
        &self.path
    }

    /// Whether the group exists in the hierarchy that holds its processes.
    pub fn exists(&self) -> bool {
        let mount = self.hierarchy.anchor();
        mount.dir.open(self.path.relative()).is_ok()
    }

    /// The files into which a process of one thread writes `0` to join, one per mount, in join order: `tasks` of v1, where
    /// writing to `cgroup.procs` would wait milliseconds for a lock of all forks, `cgroup.procs` of the unified mount.
    pub fn join_files(&self) -> Vec<PathBuf> {
        (0..self.hierarchy.mounts().len())
            .map(|mount| self.join_file(mount))
            .collect()
    }

    fn join_file(&self, mount: usize) -> PathBuf {
        let name = if self.hierarchy.unified_index() == Some(mount) {
            "cgroup.procs"
        } else {
            "tasks"
        };
        let directory = self.hierarchy.mounts()[mount].dir.path();
        directory.join(self.path.relative()).join(name)
    }

    /// The directory in the unified mount, for `clone3(2)` with `CLONE_INTO_CGROUP`.
    ///
    /// # Errors
    /// [`CgroupError::MissingController`] when no cgroup2 is mounted; [`CgroupError::Io`] when the group is absent.
    pub fn dir(&self) -> Result<OwnedFd, CgroupError> {
        let Some(mount) = self.hierarchy.unified() else {
            return Err(CgroupError::MissingController {
                controller: "cgroup2",
                field: "clone into a cgroup",
            });
        };
        Ok(mount.dir.open(self.path.relative())?.into_fd())
    }

    /// The group's directory in the mount of `controller`, or nothing when the kernel has no such controller.
    fn controller(&self, controller: Controller) -> Result<Option<(Dir, Location)>, CgroupError> {
        let Some(location) = self.hierarchy.location(controller) else {
            return Ok(None);
        };
        let mount = &self.hierarchy.mounts()[location.mount];
        Ok(Some((mount.dir.open(self.path.relative())?, location)))
    }
}
