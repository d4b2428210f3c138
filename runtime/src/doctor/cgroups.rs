//! Control groups.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Machine, Seen, Verdict};
use crate::cgroup::{Controller, Hierarchy, Version};
use crate::error::chain;
use crate::security::seccomp::KernelVersion;

const MOUNTS: &str = "/proc/self/mountinfo";

/// Looks with the mounts that the daemon would find.
fn with(machine: &Machine, look: impl FnOnce(&Hierarchy) -> Seen) -> Seen {
    match &machine.hierarchy {
        Ok(hierarchy) => look(hierarchy),
        Err(error) => Seen::missing(MOUNTS, chain(error)),
    }
}

pub(super) fn layout(machine: &Machine) -> Seen {
    with(machine, |hierarchy| {
        let layout = match hierarchy.version() {
            Version::V1 => "cgroup v1",
            Version::Hybrid => "cgroup v1 with a cgroup2 mount beside it",
            Version::V2 => "cgroup v2",
        };
        Seen::there(MOUNTS, layout)
    })
}

fn controller(machine: &Machine, controller: Controller) -> Seen {
    with(machine, |hierarchy| {
        let tried = format!("the controller {} in {MOUNTS}", controller.name());
        match hierarchy.supports(controller) {
            true => Seen::there(tried, "mounted"),
            false => Seen::missing(tried, "not there, or not enabled at the root"),
        }
    })
}

pub(super) fn cpu(machine: &Machine) -> Seen {
    controller(machine, Controller::Cpu)
}

pub(super) fn memory(machine: &Machine) -> Seen {
    controller(machine, Controller::Memory)
}

pub(super) fn pids(machine: &Machine) -> Seen {
    controller(machine, Controller::Pids)
}

pub(super) fn cpuset(machine: &Machine) -> Seen {
    controller(machine, Controller::Cpuset)
}

pub(super) fn block_io(machine: &Machine) -> Seen {
    controller(machine, Controller::Io)
}

pub(super) fn hugetlb(machine: &Machine) -> Seen {
    controller(machine, Controller::Hugetlb)
}

/// On v2 the rules are a program, which is made and not attached.
pub(super) fn devices(machine: &Machine) -> Seen {
    with(machine, |hierarchy| match hierarchy.version() {
        Version::V2 => Seen::tried(
            "bpf: a device program, loaded and dropped",
            crate::cgroup::try_device_program(),
        ),
        Version::V1 | Version::Hybrid => controller(machine, Controller::Devices),
    })
}

pub(super) fn freezer(machine: &Machine) -> Seen {
    with(machine, |hierarchy| match hierarchy.version() {
        Version::V2 => file_of_a_group(hierarchy, &["cgroup.freeze"]),
        Version::V1 | Version::Hybrid => controller(machine, Controller::Freezer),
    })
}

pub(super) fn kill(machine: &Machine) -> Seen {
    with(machine, |hierarchy| {
        file_of_a_group(hierarchy, &["cgroup.kill"])
    })
}

pub(super) fn swap(machine: &Machine) -> Seen {
    with(machine, |hierarchy| {
        let of_controller = OfController {
            files: &["memory.swap.max", "memory.memsw.limit_in_bytes"],
            sign: "memory.max",
            since: KernelVersion(4, 5),
            configured: Path::new("/proc/swaps"),
        };
        of_controller.look(hierarchy)
    })
}

pub(super) fn burst(machine: &Machine) -> Seen {
    with(machine, |hierarchy| {
        let of_controller = OfController {
            files: &["cpu.max.burst", "cpu.cfs_burst_us"],
            sign: "cpu.weight",
            since: KernelVersion(5, 14),
            configured: Path::new("/proc/sys/kernel/sched_cfs_bandwidth_slice_us"),
        };
        of_controller.look(hierarchy)
    })
}

/// Files of a v2 controller, which a new group has only where the controller is enabled below the root. The daemon enables
/// it for its first pod; that would outlast a look.
struct OfController {
    /// One of them is enough.
    files: &'static [&'static str],
    /// What a new group has wherever the controller is enabled.
    sign: &'static str,
    /// The first Linux that has the files, where they cannot be seen.
    since: KernelVersion,
    /// What a kernel that is configured for them has.
    configured: &'static Path,
}

impl OfController {
    fn look(&self, hierarchy: &Hierarchy) -> Seen {
        let seen = file_of_a_group(hierarchy, self.files);
        let is_enabled = file_of_a_group(hierarchy, &[self.sign]).verdict == Verdict::There;
        if seen.verdict != Verdict::Missing || hierarchy.version() != Version::V2 || is_enabled {
            return seen;
        }
        let KernelVersion(major, minor) = self.since;
        let tried = format!(
            "Linux {major}.{minor} or later with {}: the controller is not enabled below the root yet",
            self.configured.display()
        );
        match KernelVersion::running() >= self.since && self.configured.exists() {
            true => Seen::there(tried, "the kernel has it"),
            false => Seen::missing(tried, "it is older, or made without"),
        }
    }
}

/// The root has few of the files that groups have: an empty group is made below it, and removed.
fn file_of_a_group(hierarchy: &Hierarchy, names: &[&str]) -> Seen {
    let tried = format!("{} of a new cgroup", names.join(" or "));
    let mut refused = None;
    for root in hierarchy.mount_paths() {
        match Group::below(root) {
            Ok(group) => {
                if let Some(name) = names.iter().find(|name| group.0.join(name).exists()) {
                    return Seen::there(tried, format!("{name} in {}", root.display()));
                }
            }
            Err(error) => refused = Some(error),
        }
    }
    match refused {
        Some(error) => Seen::unknown(tried, error.to_string()),
        None => Seen::missing(tried, "none of the mounts has it"),
    }
}

/// A group that nobody is in, until this is dropped.
struct Group(PathBuf);

impl Group {
    fn below(root: &Path) -> io::Result<Self> {
        let path = root.join(format!(".podwright-doctor-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "cannot remove the cgroup of a trial");
        }
    }
}

pub(super) fn pressure(_: &Machine) -> Seen {
    let path = "/proc/pressure/cpu";
    match fs::read_to_string(path) {
        Ok(_) => Seen::there(path, "readable"),
        Err(error) => Seen::missing(path, error.to_string()),
    }
}

pub(super) fn systemd(_: &Machine) -> Seen {
    let path = "/run/systemd/system";
    match Path::new(path).is_dir() {
        true => Seen::there(path, "systemd runs this machine"),
        false => Seen::missing(path, "not there"),
    }
}
