//! What a group uses.

use super::dir::Dir;
use super::format::{self, Pressure};
use super::held::{limit, number};
use super::hierarchy::{Interface, Location};
use super::{Cgroup, CgroupError, Controller};

/// A group's use of the machine, its subtree included.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// CPU time.
    pub cpu: CpuStats,
    /// Memory in bytes.
    pub memory: MemoryStats,
    /// Swap; absent when it is not accounted.
    pub swap: Option<SwapStats>,
    /// Processes.
    pub pids: PidsStats,
    /// Huge pages by size; empty without the controller.
    pub hugetlb: Vec<HugetlbStats>,
    /// Time lost waiting for I/O.
    pub io_pressure: Option<Pressure>,
}

/// CPU time since the group was made, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CpuStats {
    /// All of it.
    pub usage_ns: u64,
    /// In user mode.
    pub user_ns: u64,
    /// In the kernel.
    pub system_ns: u64,
    /// Time lost waiting for a CPU.
    pub pressure: Option<Pressure>,
}

/// Memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MemoryStats {
    /// Everything charged, page cache included.
    pub usage: u64,
    /// Usage without the inactive page cache: what the kubelet's eviction looks at.
    pub working_set: u64,
    /// Anonymous memory.
    pub rss: u64,
    /// Page faults since the group was made.
    pub page_faults: u64,
    /// Those that needed I/O.
    pub major_page_faults: u64,
    /// The group's own limit.
    pub limit: Option<u64>,
    /// The limit minus the working set.
    pub available: Option<u64>,
    /// Time lost waiting for memory.
    pub pressure: Option<Pressure>,
}

/// Swap, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SwapStats {
    /// In use.
    pub usage: u64,
    /// What the limit leaves; absent without a limit.
    pub available: Option<u64>,
}

/// Processes and threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PidsStats {
    /// Now.
    pub current: u64,
    /// Allowed.
    pub limit: Option<u64>,
}

/// Huge pages of one size, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HugetlbStats {
    /// As in `2MB`.
    pub page_size: String,
    /// In use.
    pub usage: u64,
    /// The most that was in use; absent from v2, where it reads as the current use.
    pub max_usage: u64,
}

impl Cgroup {
    /// Reads the group's use of the machine. Parts whose controller is absent stay zero.
    ///
    /// # Errors
    /// [`CgroupError::Io`] when the group is absent, [`CgroupError::Parse`] on an unknown format.
    pub fn stats(&self) -> Result<Stats, CgroupError> {
        let mut stats = Stats::default();
        if let Some(mount) = self.hierarchy.unified() {
            self.unified_stats(&mount.dir.open(self.path.relative())?, &mut stats)?;
        }
        if let Some((dir, _)) = self.controller(Controller::Cpuacct)? {
            stats.cpu.usage_ns = number(&dir, "cpuacct.usage")?;
            stats.cpu.user_ns = number(&dir, "cpuacct.usage_user")?;
            stats.cpu.system_ns = number(&dir, "cpuacct.usage_sys")?;
        }
        if let Some((dir, location)) = self.controller(Controller::Memory)? {
            match location.interface {
                Interface::V1 => memory_v1(&dir, &mut stats)?,
                Interface::V2 => memory_v2(&dir, &mut stats)?,
            }
        }
        if let Some((dir, _)) = self.controller(Controller::Pids)? {
            stats.pids = PidsStats {
                current: number(&dir, "pids.current")?,
                limit: limit(&dir, "pids.max")?,
            };
        }
        if let Some((dir, location)) = self.controller_v1(Controller::Hugetlb)? {
            for size in self.hierarchy.page_sizes() {
                stats
                    .hugetlb
                    .extend(hugetlb(&dir, size, location.interface)?);
            }
        }
        Ok(stats)
    }

    /// As [`Cgroup::controller`], for controllers that the cgroup2 directory does not hold.
    fn controller_v1(
        &self,
        controller: Controller,
    ) -> Result<Option<(Dir, Location)>, CgroupError> {
        match self.hierarchy.location(controller) {
            Some(Location {
                interface: Interface::V1,
                ..
            }) => self.controller(controller),
            _ => Ok(None),
        }
    }

    /// What the cgroup2 directory tells, beside v1 controllers too.
    fn unified_stats(&self, dir: &Dir, stats: &mut Stats) -> Result<(), CgroupError> {
        let pressure = |file| {
            let text = dir.read_optional(file)?;
            Ok(text.and_then(|text| format::pressure(&text)))
        };
        stats.cpu.pressure = pressure("cpu.pressure")?;
        stats.memory.pressure = pressure("memory.pressure")?;
        stats.io_pressure = pressure("io.pressure")?;
        if self.hierarchy.location(Controller::Cpuacct).is_none() {
            cpu_v2(dir, &mut stats.cpu)?;
        }
        let hugetlb_here = self.hierarchy.location(Controller::Hugetlb);
        if hugetlb_here.is_some_and(|location| location.interface == Interface::V2) {
            for size in self.hierarchy.page_sizes() {
                stats.hugetlb.extend(hugetlb(dir, size, Interface::V2)?);
            }
        }
        Ok(())
    }

    /// How many processes of the group the kernel killed for want of memory. v1 counts the group itself, v2 its subtree.
    ///
    /// # Errors
    /// [`CgroupError::Io`] when the group is absent.
    pub fn oom_kills(&self) -> Result<u64, CgroupError> {
        let Some((dir, location)) = self.controller(Controller::Memory)? else {
            return Ok(0);
        };
        let text = dir.read(match location.interface {
            Interface::V1 => "memory.oom_control",
            Interface::V2 => "memory.events",
        })?;
        let mut pairs = format::pairs(&text);
        Ok(pairs
            .find(|(name, _)| *name == "oom_kill")
            .map_or(0, |(_, count)| count))
    }
}

fn cpu_v2(dir: &Dir, cpu: &mut CpuStats) -> Result<(), CgroupError> {
    for (name, value) in format::pairs(&dir.read("cpu.stat")?) {
        let ns = value.saturating_mul(1000);
        match name {
            "usage_usec" => cpu.usage_ns = ns,
            "user_usec" => cpu.user_ns = ns,
            "system_usec" => cpu.system_ns = ns,
            _ => {}
        }
    }
    Ok(())
}

fn memory_v1(dir: &Dir, stats: &mut Stats) -> Result<(), CgroupError> {
    let memory = &mut stats.memory;
    memory.usage = number(dir, "memory.usage_in_bytes")?;
    memory.limit = format::v1_limit(number(dir, "memory.limit_in_bytes")?);
    let (mut inactive_file, mut swap, mut memsw_limit) = (0, None, None);
    for (name, value) in format::pairs(&dir.read("memory.stat")?) {
        match name {
            "total_rss" => memory.rss = value,
            "total_pgfault" => memory.page_faults = value,
            "total_pgmajfault" => memory.major_page_faults = value,
            "total_inactive_file" => inactive_file = value,
            "total_swap" => swap = Some(value),
            "hierarchical_memsw_limit" => memsw_limit = format::v1_limit(value),
            _ => {}
        }
    }
    memory.derive(inactive_file);
    stats.swap = swap.map(|usage| SwapStats {
        usage,
        // memory+swap is limited together: what it leaves after both.
        available: memsw_limit
            .map(|limit| limit.saturating_sub(memory.usage).saturating_sub(usage)),
    });
    Ok(())
}

fn memory_v2(dir: &Dir, stats: &mut Stats) -> Result<(), CgroupError> {
    let memory = &mut stats.memory;
    memory.usage = number(dir, "memory.current")?;
    memory.limit = limit(dir, "memory.max")?;
    let mut inactive_file = 0;
    for (name, value) in format::pairs(&dir.read("memory.stat")?) {
        match name {
            "anon" => memory.rss = value,
            "pgfault" => memory.page_faults = value,
            "pgmajfault" => memory.major_page_faults = value,
            "inactive_file" => inactive_file = value,
            _ => {}
        }
    }
    memory.derive(inactive_file);
    if let Some(usage) = dir
        .read_optional("memory.swap.current")?
        .as_deref()
        .and_then(format::number)
    {
        let available = limit(dir, "memory.swap.max")?.map(|limit| limit.saturating_sub(usage));
        stats.swap = Some(SwapStats { usage, available });
    }
    Ok(())
}

impl MemoryStats {
    fn derive(&mut self, inactive_file: u64) {
        self.working_set = self.usage.saturating_sub(inactive_file);
        self.available = self
            .limit
            .map(|limit| limit.saturating_sub(self.working_set));
    }
}

/// Beside v1 controllers the unified mount's hugetlb may not be enabled for this group: then there is nothing to tell.
fn hugetlb(
    dir: &Dir,
    size: &str,
    interface: Interface,
) -> Result<Option<HugetlbStats>, CgroupError> {
    let file = |suffix: &str| format!("hugetlb.{size}.{suffix}");
    let usage = dir.read_optional(&file(if interface == Interface::V1 {
        "usage_in_bytes"
    } else {
        "current"
    }))?;
    let Some(usage) = usage.as_deref().and_then(format::number) else {
        return Ok(None);
    };
    let max_usage = match interface {
        Interface::V1 => number(dir, &file("max_usage_in_bytes"))?,
        Interface::V2 => usage,
    };
    Ok(Some(HugetlbStats {
        page_size: size.to_owned(),
        usage,
        max_usage,
    }))
}
