//! What else a group's files tell: for metrics, which are asked for less often than the statistics. Opened for each
//! reading.

use super::dir::Dir;
use super::format;
use super::held::{self, HeldResources, limit, number};
use super::hierarchy::{Interface, Location};
use super::{Cgroup, CgroupError, Controller};

/// A group's use of the machine in detail, its subtree included. What a kernel does not tell is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Detail {
    /// CPU time in user mode, nanoseconds.
    pub cpu_user_ns: u64,
    /// CPU time in the kernel, nanoseconds.
    pub cpu_system_ns: u64,
    /// The limits of CPU time and memory that the group holds; the others are left out.
    pub limits: HeldResources,
    /// By the CPU quota; absent without the controller.
    pub throttling: Option<Throttling>,
    /// The most memory that was ever in use, bytes. v2: since Linux 5.19.
    pub memory_peak: Option<u64>,
    /// How often the memory limit was hit.
    pub memory_limit_hits: Option<u64>,
    /// What reclaim leaves to the group while it can, bytes.
    pub memory_reservation: Option<u64>,
    /// Memory of the kernel for this group, bytes.
    pub memory_kernel: Option<u64>,
    /// Processes that the kernel killed for want of memory.
    pub oom_kills: u64,
    /// The most tasks allowed; absent without a limit.
    pub tasks_limit: Option<u64>,
    /// Huge pages by size; empty without the controller.
    pub hugetlb: Vec<HugetlbStats>,
    /// Block devices by number and operation.
    pub io: Vec<DeviceIo>,
}

/// What a CPU quota has cost since the group was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttling {
    /// Periods in which the group could run.
    pub periods: u64,
    /// Those in which it was stopped.
    pub throttled_periods: u64,
    /// For how long, in nanoseconds.
    pub throttled_ns: u64,
}

/// Huge pages of one size, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HugetlbStats {
    /// As in `2MB`.
    pub page_size: String,
    /// In use.
    pub usage: u64,
    /// The most that was in use; absent from v2.
    pub max_usage: Option<u64>,
    /// How often the limit was hit.
    pub limit_hits: u64,
}

/// What is done with a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Telling it what is free.
    Discard,
}

/// One operation on one device, since the group was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceIo {
    /// The device's major number.
    pub major: u32,
    /// And minor number.
    pub minor: u32,
    /// What was done.
    pub operation: Operation,
    /// How many bytes.
    pub bytes: u64,
    /// How many requests.
    pub requests: u64,
}

impl Cgroup {
    /// Reads the group's use of the machine in detail. Parts whose controller is absent stay zero or absent.
    ///
    /// # Errors
    /// [`CgroupError::Io`] when the group is absent, [`CgroupError::Parse`] on an unknown format.
    pub fn detail(&self) -> Result<Detail, CgroupError> {
        let mut detail = Detail::default();
        self.cpu_detail(&mut detail)?;
        if let Some((dir, location)) = self.controller(Controller::Memory)? {
            held::memory(&dir, location, &mut detail.limits)?;
            match location.interface {
                Interface::V1 => memory_v1(&dir, &mut detail)?,
                Interface::V2 => memory_v2(&dir, &mut detail)?,
            }
        }
        if let Some((dir, _)) = self.controller(Controller::Pids)? {
            detail.tasks_limit = limit(&dir, "pids.max")?;
        }
        if let Some((dir, location)) = self.controller(Controller::Hugetlb)? {
            for size in self.hierarchy.page_sizes() {
                let stats = hugetlb(&dir, size, location.interface)?;
                detail.hugetlb.extend(stats);
            }
        }
        if let Some((dir, location)) = self.controller(Controller::Io)? {
            detail.io = io(&dir, location)?;
        }
        Ok(detail)
    }

    fn cpu_detail(&self, detail: &mut Detail) -> Result<(), CgroupError> {
        if let Some((dir, _)) = self.controller(Controller::Cpuacct)? {
            detail.cpu_user_ns = number(&dir, "cpuacct.usage_user")?;
            detail.cpu_system_ns = number(&dir, "cpuacct.usage_sys")?;
        } else if let Some(mount) = self.hierarchy.unified() {
            let text = mount.dir.open(self.path.relative())?.read("cpu.stat")?;
            let ns = |name| {
                format::value(&text, name)
                    .unwrap_or_default()
                    .saturating_mul(1000)
            };
            detail.cpu_user_ns = ns("user_usec");
            detail.cpu_system_ns = ns("system_usec");
        }
        if let Some((dir, location)) = self.controller(Controller::Cpu)? {
            held::cpu(&dir, location, &mut detail.limits)?;
            let text = dir.read("cpu.stat")?;
            let value = |name| format::value(&text, name).unwrap_or_default();
            detail.throttling = Some(Throttling {
                periods: value("nr_periods"),
                throttled_periods: value("nr_throttled"),
                throttled_ns: match location.interface {
                    Interface::V1 => value("throttled_time"),
                    Interface::V2 => value("throttled_usec").saturating_mul(1000),
                },
            });
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
        oom_kills(&dir, location.interface)
    }
}

fn oom_kills(dir: &Dir, interface: Interface) -> Result<u64, CgroupError> {
    let text = dir.read(match interface {
        Interface::V1 => "memory.oom_control",
        Interface::V2 => "memory.events",
    })?;
    Ok(format::value(&text, "oom_kill").unwrap_or_default())
}

fn memory_v1(dir: &Dir, detail: &mut Detail) -> Result<(), CgroupError> {
    detail.memory_peak = Some(number(dir, "memory.max_usage_in_bytes")?);
    detail.memory_limit_hits = Some(number(dir, "memory.failcnt")?);
    detail.memory_reservation = format::v1_limit(number(dir, "memory.soft_limit_in_bytes")?);
    // Kernels are built without it.
    let kernel = dir.read_optional("memory.kmem.usage_in_bytes")?;
    detail.memory_kernel = kernel.as_deref().and_then(format::number);
    detail.oom_kills = oom_kills(dir, Interface::V1)?;
    Ok(())
}

fn memory_v2(dir: &Dir, detail: &mut Detail) -> Result<(), CgroupError> {
    let peak = dir.read_optional("memory.peak")?;
    detail.memory_peak = peak.as_deref().and_then(format::number);
    detail.memory_reservation = limit(dir, "memory.low")?;
    let events = dir.read("memory.events")?;
    detail.memory_limit_hits = format::value(&events, "max");
    detail.oom_kills = format::value(&events, "oom_kill").unwrap_or_default();
    let stat = dir.read("memory.stat")?;
    // Linux 5.18 sums it up; before, its largest parts are told.
    detail.memory_kernel = format::value(&stat, "kernel").or_else(|| {
        let parts = ["kernel_stack", "slab", "pagetables", "percpu", "sock"];
        parts.iter().map(|name| format::value(&stat, name)).sum()
    });
    Ok(())
}

/// Beside v1 controllers the unified mount's hugetlb may not be enabled for this group: then there is nothing to tell.
fn hugetlb(
    dir: &Dir,
    size: &str,
    interface: Interface,
) -> Result<Option<HugetlbStats>, CgroupError> {
    let file = |suffix: &str| format!("hugetlb.{size}.{suffix}");
    let current = match interface {
        Interface::V1 => "usage_in_bytes",
        Interface::V2 => "current",
    };
    let usage = dir.read_optional(&file(current))?;
    let Some(usage) = usage.as_deref().and_then(format::number) else {
        return Ok(None);
    };
    let (max_usage, limit_hits) = match interface {
        Interface::V1 => (
            Some(number(dir, &file("max_usage_in_bytes"))?),
            number(dir, &file("failcnt"))?,
        ),
        Interface::V2 => {
            let events = dir.read_optional(&file("events"))?;
            let hits = events.and_then(|text| format::value(&text, "max"));
            (None, hits.unwrap_or_default())
        }
    };
    Ok(Some(HugetlbStats {
        page_size: size.to_owned(),
        usage,
        max_usage,
        limit_hits,
    }))
}

fn io(dir: &Dir, location: Location) -> Result<Vec<DeviceIo>, CgroupError> {
    match location.interface {
        Interface::V1 => {
            // Of the whole subtree; counted whatever limits there are.
            let bytes = dir.read_optional("blkio.throttle.io_service_bytes_recursive")?;
            let requests = dir.read_optional("blkio.throttle.io_serviced_recursive")?;
            Ok(format::blkio(
                &bytes.unwrap_or_default(),
                &requests.unwrap_or_default(),
            ))
        }
        // Absent where io is not delegated to the group.
        Interface::V2 => {
            let text = dir.read_optional("io.stat")?;
            Ok(text.map_or(Vec::new(), |text| format::io_stat(&text)))
        }
    }
}
