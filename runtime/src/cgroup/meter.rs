//! Reading a group's use again and again: its files stay open, and each costs one pread(2).
//!
//! An open cgroup file costs the kernel about 5 KiB, its buffer included, so there is a bound to how many are held; beyond
//! it they are opened for each reading.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::uio::pread;

use super::dir::Dir;
use super::format;
use super::hierarchy::{Hierarchy, Interface};
use super::stats::{RawSwap, Stats};
use super::{Cgroup, CgroupError, Controller};

/// The most descriptors that all meters hold together, however many a process may have: a node's 100 pods need some 1,500.
const MOST_HELD: usize = 4096;

/// Larger than any of these files by far: memory.stat has 50 lines.
const LARGEST: usize = 16 * 1024;

/// A file, and what of the statistics it tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    CpuUsageV1,
    CpuStatV2,
    MemoryUsageV1,
    MemoryLimitV1,
    MemoryStatV1,
    MemoryUsageV2,
    MemoryLimitV2,
    MemoryStatV2,
    SwapUsageV2,
    SwapLimitV2,
    Tasks,
    CpuPressure,
    MemoryPressure,
    IoPressure,
}

/// In whose directory a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Controller(Controller),
    /// The cgroup2 directory, beside v1 controllers too.
    Unified,
}

/// Whether a kernel may be without a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Always,
    /// Swap accounting and PSI can be off.
    IfThere,
}

impl Item {
    /// The files of a machine with these interfaces; those of absent controllers are left out when they are opened.
    fn all(hierarchy: &Hierarchy) -> impl Iterator<Item = Self> {
        let of = |controller| hierarchy.location(controller).map(|at| at.interface);
        let cpu: &[Self] = match of(Controller::Cpuacct) {
            Some(_) => &[Self::CpuUsageV1],
            None => &[Self::CpuStatV2],
        };
        let memory: &[Self] = match of(Controller::Memory) {
            Some(Interface::V1) => &[Self::MemoryUsageV1, Self::MemoryLimitV1, Self::MemoryStatV1],
            Some(Interface::V2) => &[
                Self::MemoryUsageV2,
                Self::MemoryLimitV2,
                Self::MemoryStatV2,
                Self::SwapUsageV2,
                Self::SwapLimitV2,
            ],
            None => &[],
        };
        let rest: &[Self] = &[
            Self::Tasks,
            Self::CpuPressure,
            Self::MemoryPressure,
            Self::IoPressure,
        ];
        cpu.iter().chain(memory).chain(rest).copied()
    }

    fn about(self) -> (Place, &'static str, Need) {
        let memory = Place::Controller(Controller::Memory);
        match self {
            Self::CpuUsageV1 => (
                Place::Controller(Controller::Cpuacct),
                "cpuacct.usage",
                Need::Always,
            ),
            Self::CpuStatV2 => (Place::Unified, "cpu.stat", Need::Always),
            Self::MemoryUsageV1 => (memory, "memory.usage_in_bytes", Need::Always),
            Self::MemoryLimitV1 => (memory, "memory.limit_in_bytes", Need::Always),
            Self::MemoryStatV1 | Self::MemoryStatV2 => (memory, "memory.stat", Need::Always),
            Self::MemoryUsageV2 => (memory, "memory.current", Need::Always),
            Self::MemoryLimitV2 => (memory, "memory.max", Need::Always),
            Self::SwapUsageV2 => (memory, "memory.swap.current", Need::IfThere),
            Self::SwapLimitV2 => (memory, "memory.swap.max", Need::IfThere),
            Self::Tasks => (
                Place::Controller(Controller::Pids),
                "pids.current",
                Need::Always,
            ),
            Self::CpuPressure => (Place::Unified, "cpu.pressure", Need::IfThere),
            Self::MemoryPressure => (Place::Unified, "memory.pressure", Need::IfThere),
            Self::IoPressure => (Place::Unified, "io.pressure", Need::IfThere),
        }
    }

    /// Takes the text in; what was expected when it is not that.
    fn take(self, text: &str, stats: &mut Stats, swap: &mut RawSwap) -> Result<(), &'static str> {
        let number = || format::number(text).ok_or("a number");
        let limit = || format::v2_limit(text).ok_or("a number or max");
        match self {
            Self::CpuUsageV1 => stats.cpu.usage_ns = number()?,
            Self::CpuStatV2 => {
                let usage = format::value(text, "usage_usec").ok_or("a line usage_usec")?;
                stats.cpu.usage_ns = usage.saturating_mul(1000);
            }
            Self::MemoryUsageV1 | Self::MemoryUsageV2 => stats.memory.usage = number()?,
            Self::MemoryLimitV1 => stats.memory.limit = format::v1_limit(number()?),
            Self::MemoryLimitV2 => stats.memory.limit = limit()?,
            Self::MemoryStatV1 => stats.memory.take_v1(text, swap),
            Self::MemoryStatV2 => stats.memory.take_v2(text),
            Self::SwapUsageV2 => swap.usage = Some(number()?),
            Self::SwapLimitV2 => swap.limit = limit()?,
            Self::Tasks => stats.tasks = Some(number()?),
            Self::CpuPressure => stats.cpu.pressure = format::pressure(text),
            Self::MemoryPressure => stats.memory.pressure = format::pressure(text),
            Self::IoPressure => stats.io_pressure = format::pressure(text),
        }
        Ok(())
    }
}

/// A group's open files.
#[derive(Debug)]
struct Meter(Vec<(Item, OwnedFd)>);

impl Cgroup {
    /// Reads the group's use of the machine. Parts whose controller is absent stay zero.
    ///
    /// # Errors
    /// [`CgroupError::Io`] when the group is absent, [`CgroupError::Parse`] on an unknown format.
    pub fn stats(&self) -> Result<Stats, CgroupError> {
        Meter::open(self)?.read(self)
    }
}

impl Meter {
    fn open(cgroup: &Cgroup) -> Result<Self, CgroupError> {
        let hierarchy = &cgroup.hierarchy;
        // Each mount's directory once.
        let mut dirs: Vec<Option<Dir>> = hierarchy.mounts().iter().map(|_| None).collect();
        let mut files = Vec::new();
        for item in Item::all(hierarchy) {
            let (place, name, need) = item.about();
            let Some(mount) = cgroup.mount_of(place) else {
                continue;
            };
            let slot = &mut dirs[mount];
            let dir = match slot {
                Some(dir) => dir,
                None => {
                    let dir = hierarchy.mounts()[mount].dir.open(cgroup.path.relative())?;
                    slot.insert(dir)
                }
            };
            match dir.open_file(name, OFlag::O_RDONLY) {
                Ok(file) => files.push((item, file)),
                // EOPNOTSUPP: PSI is off.
                Err(Errno::ENOENT | Errno::EOPNOTSUPP) if need == Need::IfThere => {}
                Err(source) => return Err(dir.error("read", name, source)),
            }
        }
        Ok(Self(files))
    }

    fn read(&self, cgroup: &Cgroup) -> Result<Stats, CgroupError> {
        let (mut stats, mut swap) = (Stats::default(), RawSwap::default());
        let mut buffer = [0; LARGEST];
        for (item, file) in &self.0 {
            let (place, name, need) = item.about();
            let failed = |source| cgroup.read_error(place, name, source);
            let length = loop {
                // From the start: the kernel then makes the text anew. Each of these files is one record, which it gives
                // whole when it fits.
                match pread(file, &mut buffer, 0) {
                    Err(Errno::EINTR) => {}
                    Err(Errno::EOPNOTSUPP) if need == Need::IfThere => break 0,
                    result => break result.map_err(failed)?,
                }
            };
            let text = str::from_utf8(&buffer[..length]).map_err(|_| failed(Errno::EILSEQ))?;
            if let Err(expected) = item.take(text, &mut stats, &mut swap) {
                return Err(cgroup.parse_error(place, name, text, expected));
            }
        }
        stats.derive(swap);
        Ok(stats)
    }
}

impl Cgroup {
    fn mount_of(&self, place: Place) -> Option<usize> {
        match place {
            Place::Controller(controller) => {
                let location = self.hierarchy.location(controller);
                location.map(|location| location.mount)
            }
            Place::Unified => self.hierarchy.unified_index(),
        }
    }

    /// The file's path, for messages.
    fn file_path(&self, place: Place, name: &str) -> std::path::PathBuf {
        let mount = self.mount_of(place).unwrap_or_default();
        let root = self.hierarchy.mounts()[mount].dir.path();
        root.join(self.path.relative()).join(name)
    }

    fn read_error(&self, place: Place, name: &str, source: Errno) -> CgroupError {
        CgroupError::Io {
            action: "read",
            path: self.file_path(place, name),
            source,
        }
    }

    fn parse_error(
        &self,
        place: Place,
        name: &str,
        text: &str,
        expected: &'static str,
    ) -> CgroupError {
        CgroupError::Parse {
            path: self.file_path(place, name),
            text: text.chars().take(80).collect(),
            expected,
        }
    }
}

/// How many descriptors may be held.
#[derive(Debug)]
pub(super) struct Budget {
    most: usize,
    held: AtomicUsize,
}

impl Budget {
    /// A quarter of what this process may open, and never more than [`MOST_HELD`].
    pub(super) fn of_this_process() -> Self {
        let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or_default();
        let most = usize::try_from(soft / 4).unwrap_or(usize::MAX);
        Self::new(most.min(MOST_HELD))
    }

    fn new(most: usize) -> Self {
        Self {
            most,
            held: AtomicUsize::new(0),
        }
    }

    fn take(&self, count: usize) -> bool {
        self.held
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
                held.checked_add(count).filter(|sum| *sum <= self.most)
            })
            .is_ok()
    }

    fn give_back(&self, count: usize) {
        self.held.fetch_sub(count, Ordering::Relaxed);
    }
}

/// A place for one group's meter, from the first reading until the group ends.
#[derive(Debug, Default)]
pub struct HeldMeter(Mutex<Holding>);

/// Guarded across the reading: two readers of one group take turns, and no other group's wait.
#[derive(Debug, Default)]
enum Holding {
    /// Not read yet, or too many are held.
    #[default]
    Nothing,
    Open(Held),
    /// The group has ended: nothing is to keep it in the kernel.
    Ended,
}

/// Gives its share of the budget back when it is dropped.
#[derive(Debug)]
struct Held {
    meter: Meter,
    hierarchy: Hierarchy,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.hierarchy.descriptors().give_back(self.meter.0.len());
    }
}

impl HeldMeter {
    /// Reads the use of `cgroup`, always the same one, and keeps its files open if there is room.
    ///
    /// # Errors
    /// As [`Cgroup::stats`].
    pub fn read(&self, cgroup: &Cgroup) -> Result<Stats, CgroupError> {
        let mut holding = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Holding::Open(held) = &*holding {
            let stats = held.meter.read(cgroup);
            if stats.as_ref().is_err_and(CgroupError::is_missing) {
                *holding = Holding::Nothing;
            }
            return stats;
        }
        let meter = Meter::open(cgroup)?;
        let stats = meter.read(cgroup)?;
        let hierarchy = &cgroup.hierarchy;
        if matches!(*holding, Holding::Nothing) && hierarchy.descriptors().take(meter.0.len()) {
            *holding = Holding::Open(Held {
                meter,
                hierarchy: hierarchy.clone(),
            });
        }
        Ok(stats)
    }

    /// Closes the files for good: a group that has ended stays in the kernel's memory for as long as any is open.
    pub fn end(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Holding::Ended;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_held_than_the_budget_allows() {
        let budget = Budget::new(20);
        assert!(budget.take(12) && !budget.take(9) && budget.take(8) && !budget.take(1));
        budget.give_back(12);
        assert!(budget.take(12));
        assert!(Budget::of_this_process().most <= MOST_HELD);
    }
}
