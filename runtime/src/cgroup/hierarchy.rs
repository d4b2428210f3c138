//! Which cgroup mounts the machine has and which controller is where.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;

use super::dir::Dir;
use super::meter::Budget;
use super::mountinfo::{self, CgroupMount, Kind};
use super::{Cgroup, CgroupError, CgroupPath};

const MOUNTINFO: &str = "/proc/self/mountinfo";
const HUGEPAGES: &str = "/sys/kernel/mm/hugepages";

/// How the machine's control groups are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Only v1 mounts.
    V1,
    /// v1 controllers, and a cgroup2 mount beside them.
    Hybrid,
    /// All controllers in one cgroup2 mount.
    V2,
}

/// The controllers this module sets or reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Controller {
    /// CPU time: shares, quota.
    Cpu,
    /// CPU accounting (v1 only; part of cpu in v2).
    Cpuacct,
    /// CPUs and memory nodes.
    Cpuset,
    /// Memory and swap.
    Memory,
    /// Device access (v1 only).
    Devices,
    /// Freezer (v1 only; built in in v2).
    Freezer,
    /// Number of processes.
    Pids,
    /// Huge pages.
    Hugetlb,
    /// Block devices: `blkio` in v1.
    Io,
}

impl Controller {
    const ALL: [Self; 9] = [
        Self::Cpu,
        Self::Cpuacct,
        Self::Cpuset,
        Self::Memory,
        Self::Devices,
        Self::Freezer,
        Self::Pids,
        Self::Hugetlb,
        Self::Io,
    ];

    /// The kernel's name in v2, and in v1 of all but one.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cpuacct => "cpuacct",
            Self::Cpuset => "cpuset",
            Self::Memory => "memory",
            Self::Devices => "devices",
            Self::Freezer => "freezer",
            Self::Pids => "pids",
            Self::Hugetlb => "hugetlb",
            Self::Io => "io",
        }
    }

    fn v1_name(self) -> &'static str {
        match self {
            Self::Io => "blkio",
            other => other.name(),
        }
    }
}

/// Which set of interface files a controller has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interface {
    V1,
    V2,
}

/// Where a controller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) mount: usize,
    pub(super) interface: Interface,
}

/// A cgroup mount, its root held open.
#[derive(Debug)]
pub(super) struct Mount {
    pub(super) dir: Dir,
    kind: Kind,
}

/// The machine's cgroup mounts, detected once. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Hierarchy(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    version: Version,
    /// Unified last, so that a joining process is limited before it becomes killable by `cgroup.kill`.
    mounts: Vec<Mount>,
    locations: [Option<Location>; Controller::ALL.len()],
    unified: Option<usize>,
    /// Which mount is asked for the processes of a group.
    anchor: usize,
    /// As in file names: `2MB`, `1GB`.
    page_sizes: Vec<String>,
    /// What meters hold open.
    descriptors: Budget,
}

impl Hierarchy {
    /// Reads `/proc/self/mountinfo` and opens the mounts.
    ///
    /// # Errors
    /// [`CgroupError::NoHierarchy`] without a cgroup mount, [`CgroupError::Io`] when one cannot be opened.
    pub fn detect() -> Result<Self, CgroupError> {
        let text = std::fs::read(MOUNTINFO).map_err(|error| CgroupError::Io {
            action: "read",
            path: MOUNTINFO.into(),
            source: Errno::from_raw(error.raw_os_error().unwrap_or(0)),
        })?;
        Self::from_mounts(
            mountinfo::parse(&String::from_utf8_lossy(&text)),
            page_sizes(Path::new(HUGEPAGES)),
        )
    }

    pub(super) fn from_mounts(
        found: Vec<CgroupMount>,
        page_sizes: Vec<String>,
    ) -> Result<Self, CgroupError> {
        let mut mounts = Vec::with_capacity(found.len());
        let wanted = |kind: &Kind| !matches!(kind, Kind::Named(name) if name != "systemd");
        let (unified, rest): (Vec<_>, Vec<_>) = found
            .into_iter()
            .partition(|mount| mount.kind == Kind::Unified);
        for CgroupMount { path, kind } in rest
            .into_iter()
            .filter(|mount| wanted(&mount.kind))
            .chain(unified)
        {
            mounts.push(Mount {
                dir: Dir::root(&path)?,
                kind,
            });
        }
        let unified = mounts.iter().position(|mount| mount.kind == Kind::Unified);
        let has_v1 = mounts
            .iter()
            .any(|mount| matches!(mount.kind, Kind::Controllers(_)));
        let version = match (has_v1, unified) {
            (true, None) => Version::V1,
            (true, Some(_)) => Version::Hybrid,
            (false, Some(_)) => Version::V2,
            (false, None) => {
                return Err(CgroupError::NoHierarchy {
                    mountinfo: PathBuf::from(MOUNTINFO),
                });
            }
        };
        let in_unified = match unified {
            Some(index) => mounts[index].dir.read("cgroup.controllers")?,
            None => String::new(),
        };
        let locations =
            Controller::ALL.map(|controller| locate(controller, &mounts, unified, &in_unified));
        let first =
            |controller: Controller| locations[controller as usize].map(|location| location.mount);
        let anchor = match (version, unified) {
            (Version::V2, Some(index)) => index,
            _ => first(Controller::Freezer)
                .or(first(Controller::Pids))
                .or(first(Controller::Memory))
                .unwrap_or(0),
        };
        Ok(Self(Arc::new(Inner {
            version,
            mounts,
            locations,
            unified,
            anchor,
            page_sizes,
            descriptors: Budget::of_this_process(),
        })))
    }

    /// Which layout this machine has.
    pub fn version(&self) -> Version {
        self.0.version
    }

    /// Whether the kernel offers `controller` (in v2: at the root).
    pub fn supports(&self, controller: Controller) -> bool {
        self.location(controller).is_some()
    }

    /// Names a group; does no I/O.
    pub fn cgroup(&self, path: &CgroupPath) -> Cgroup {
        Cgroup {
            hierarchy: self.clone(),
            path: path.clone(),
        }
    }

    /// The children of `parent` in any mount whose names start with `prefix`, sorted. An absent parent has none.
    ///
    /// # Errors
    /// [`CgroupError::Io`] when a directory cannot be listed.
    pub fn children(
        &self,
        parent: &CgroupPath,
        prefix: &str,
    ) -> Result<Vec<CgroupPath>, CgroupError> {
        let mut found = BTreeSet::new();
        for mount in self.mounts() {
            let names = match mount
                .dir
                .open(parent.relative())
                .and_then(|dir| dir.children())
            {
                Ok(names) => names,
                Err(error) if error.is_missing() => continue,
                Err(error) => return Err(error),
            };
            for name in names.iter().filter(|name| name.starts_with(prefix)) {
                found.insert(parent.join(name)?);
            }
        }
        Ok(found.into_iter().collect())
    }

    /// Where the hierarchies are mounted.
    pub(crate) fn mount_paths(&self) -> Vec<&Path> {
        let mounts = self.mounts().iter();
        mounts.map(|mount| mount.dir.path()).collect()
    }

    pub(super) fn mounts(&self) -> &[Mount] {
        &self.0.mounts
    }

    pub(super) fn anchor(&self) -> &Mount {
        &self.0.mounts[self.0.anchor]
    }

    pub(super) fn anchor_index(&self) -> usize {
        self.0.anchor
    }

    pub(super) fn unified(&self) -> Option<&Mount> {
        self.0.unified.map(|index| &self.0.mounts[index])
    }

    pub(super) fn unified_index(&self) -> Option<usize> {
        self.0.unified
    }

    pub(super) fn location(&self, controller: Controller) -> Option<Location> {
        self.0.locations[controller as usize]
    }

    /// The huge page sizes of this machine as in file names.
    pub(super) fn page_sizes(&self) -> &[String] {
        &self.0.page_sizes
    }

    pub(super) fn descriptors(&self) -> &Budget {
        &self.0.descriptors
    }

    /// The controllers of the cgroup2 mount that this module uses.
    pub(super) fn v2_controllers(&self) -> impl Iterator<Item = Controller> {
        Controller::ALL.into_iter().filter(|controller| {
            self.location(*controller)
                .is_some_and(|location| location.interface == Interface::V2)
        })
    }
}

fn locate(
    controller: Controller,
    mounts: &[Mount],
    unified: Option<usize>,
    in_unified: &str,
) -> Option<Location> {
    let (name, v1_name) = (controller.name(), controller.v1_name());
    let holds = |mount: &Mount| matches!(&mount.kind, Kind::Controllers(names) if names.iter().any(|held| held == v1_name));
    if let Some(mount) = mounts.iter().position(holds) {
        return Some(Location {
            mount,
            interface: Interface::V1,
        });
    }
    let mount = unified?;
    in_unified
        .split_ascii_whitespace()
        .any(|held| held == name)
        .then_some(Location {
            mount,
            interface: Interface::V2,
        })
}

/// Reads names such as `hugepages-2048kB` and gives `2MB`, as the kernel's hugetlb files are called.
fn page_sizes(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        // No huge pages in this kernel.
        return Vec::new();
    };
    let names = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    let mut sizes: Vec<u64> = names
        .filter_map(|name| {
            name.strip_prefix("hugepages-")?
                .strip_suffix("kB")?
                .parse()
                .ok()
        })
        .collect();
    sizes.sort_unstable();
    sizes.into_iter().map(page_size_name).collect()
}

fn page_size_name(kib: u64) -> String {
    match kib {
        kib if kib >= 1 << 20 => format!("{}GB", kib >> 20),
        kib if kib >= 1 << 10 => format!("{}MB", kib >> 10),
        kib => format!("{kib}KB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_page_sizes() {
        for (kib, name) in [
            (64, "64KB"),
            (2048, "2MB"),
            (32768, "32MB"),
            (1 << 20, "1GB"),
            (16 << 20, "16GB"),
        ] {
            assert_eq!(page_size_name(kib), name);
        }
    }
}
