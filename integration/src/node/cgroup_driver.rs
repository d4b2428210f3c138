//! Who makes the cgroups of the pods that tests run.

use std::process::Command;

use anyhow::Result;

use crate::packages::run;

/// The environment variable that names the driver of all daemons that this process starts.
const VARIABLE: &str = "PODWRIGHT_CGROUP_DRIVER";

/// A cgroup driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupDriver {
    /// The runtime.
    Cgroupfs,
    /// systemd, which has to be the machine's first process.
    Systemd,
}

impl CgroupDriver {
    /// The one that the environment names; cgroupfs when it names none.
    pub fn of_this_run() -> Self {
        match std::env::var(VARIABLE) {
            Ok(name) if name == "systemd" => Self::Systemd,
            _ => Self::Cgroupfs,
        }
    }

    /// As in the configuration file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cgroupfs => "cgroupfs",
            Self::Systemd => "systemd",
        }
    }

    /// Has systemd forget the slice of a slot, whose processes are gone.
    pub(super) fn forget(self, cgroup: &str) -> Result<()> {
        match self {
            Self::Cgroupfs => Ok(()),
            Self::Systemd => {
                run(Command::new("systemctl").args(["stop", cgroup.trim_start_matches('/')]))
                    .map(drop)
            }
        }
    }
}
