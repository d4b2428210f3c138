//! Reading back which limits a group really holds.

use std::collections::BTreeMap;

use super::dir::Dir;
use super::hierarchy::{Interface, Location};
use super::{Cgroup, CgroupError, Controller, CpuShares, format};

/// The limits of a group as the kernel holds them. A field is absent when its controller is, or when there is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldResources {
    /// Relative CPU share.
    pub cpu_shares: Option<CpuShares>,
    /// CPU time per period in microseconds; -1 is no limit.
    pub cpu_quota: Option<i64>,
    /// Microseconds.
    pub cpu_period: Option<u64>,
    /// CPU list such as `0-3,7`.
    pub cpus: Option<String>,
    /// Memory node list.
    pub mems: Option<String>,
    /// Bytes.
    pub memory_limit: Option<u64>,
    /// Memory and swap together, bytes.
    pub memory_swap_limit: Option<u64>,
    /// Number of processes.
    pub pids_limit: Option<u64>,
    /// Page size (`2MB`) and limit in bytes.
    pub hugepages: Vec<(String, u64)>,
}

impl Cgroup {
    /// Reads the limits the group holds now.
    ///
    /// # Errors
    /// [`CgroupError::Io`] when the group is absent, [`CgroupError::Parse`] on an unknown format.
    pub fn read_resources(&self) -> Result<HeldResources, CgroupError> {
        let mut held = HeldResources::default();
        if let Some((dir, location)) = self.controller(Controller::Cpu)? {
            cpu(&dir, location, &mut held)?;
        }
        if let Some((dir, _)) = self.controller(Controller::Cpuset)? {
            held.cpus = list(&dir, "cpuset.cpus")?;
            held.mems = list(&dir, "cpuset.mems")?;
        }
        if let Some((dir, location)) = self.controller(Controller::Memory)? {
            memory(&dir, location, &mut held)?;
        }
        if let Some((dir, _)) = self.controller(Controller::Pids)? {
            held.pids_limit = limit(&dir, "pids.max")?;
        }
        if let Some((dir, location)) = self.controller(Controller::Hugetlb)? {
            for size in self.hierarchy.page_sizes() {
                let file = match location.interface {
                    Interface::V1 => format!("hugetlb.{size}.limit_in_bytes"),
                    Interface::V2 => format!("hugetlb.{size}.max"),
                };
                let value = dir
                    .read_optional(&file)?
                    .and_then(|text| format::v2_limit(&text).flatten());
                held.hugepages.extend(
                    value
                        .and_then(format::v1_limit)
                        .map(|bytes| (size.clone(), bytes)),
                );
            }
        }
        Ok(held)
    }

    /// What these files of the v2 interface hold, as far as they are there: the kernel rounds and joins what is written.
    ///
    /// # Errors
    /// [`CgroupError::Io`] when the group is absent.
    pub fn read_unified<'a>(
        &self,
        keys: impl Iterator<Item = &'a String>,
    ) -> Result<BTreeMap<String, String>, CgroupError> {
        let Some(mount) = self.hierarchy.unified() else {
            return Ok(BTreeMap::new());
        };
        let dir = mount.dir.open(self.path.relative())?;
        let mut held = BTreeMap::new();
        for key in keys {
            if let Some(text) = dir.read_optional(key)? {
                held.insert(key.clone(), text.trim_end().to_owned());
            }
        }
        Ok(held)
    }
}

pub(super) fn cpu(
    dir: &Dir,
    location: Location,
    held: &mut HeldResources,
) -> Result<(), CgroupError> {
    match location.interface {
        Interface::V1 => {
            held.cpu_shares = Some(CpuShares::Exact(number(dir, "cpu.shares")?));
            held.cpu_period = Some(number(dir, "cpu.cfs_period_us")?);
            let text = dir.read("cpu.cfs_quota_us")?;
            let quota = text
                .trim()
                .parse()
                .map_err(|_| dir.parse_error("cpu.cfs_quota_us", &text, "a number"))?;
            held.cpu_quota = Some(quota);
        }
        Interface::V2 => {
            held.cpu_shares = Some(CpuShares::Weight(number(dir, "cpu.weight")?));
            let text = dir.read("cpu.max")?;
            let words = text
                .trim()
                .split_once(' ')
                .and_then(|(quota, period)| Some((format::v2_limit(quota)?, period.parse().ok()?)));
            let (quota, period) =
                words.ok_or_else(|| dir.parse_error("cpu.max", &text, "quota and period"))?;
            held.cpu_quota =
                Some(quota.map_or(-1, |quota| i64::try_from(quota).unwrap_or(i64::MAX)));
            held.cpu_period = Some(period);
        }
    }
    Ok(())
}

pub(super) fn memory(
    dir: &Dir,
    location: Location,
    held: &mut HeldResources,
) -> Result<(), CgroupError> {
    match location.interface {
        Interface::V1 => {
            held.memory_limit = format::v1_limit(number(dir, "memory.limit_in_bytes")?);
            let memsw = dir.read_optional("memory.memsw.limit_in_bytes")?;
            held.memory_swap_limit = memsw
                .and_then(|text| format::number(&text))
                .and_then(format::v1_limit);
        }
        Interface::V2 => {
            held.memory_limit = limit(dir, "memory.max")?;
            let swap = dir
                .read_optional("memory.swap.max")?
                .and_then(|text| format::v2_limit(&text).flatten());
            held.memory_swap_limit = held
                .memory_limit
                .zip(swap)
                .map(|(memory, swap)| memory.saturating_add(swap));
        }
    }
    Ok(())
}

pub(super) fn number(dir: &Dir, file: &str) -> Result<u64, CgroupError> {
    let text = dir.read(file)?;
    format::number(&text).ok_or_else(|| dir.parse_error(file, &text, "a number"))
}

pub(super) fn limit(dir: &Dir, file: &str) -> Result<Option<u64>, CgroupError> {
    let text = dir.read(file)?;
    format::v2_limit(&text).ok_or_else(|| dir.parse_error(file, &text, "a number or max"))
}

fn list(dir: &Dir, file: &str) -> Result<Option<String>, CgroupError> {
    let text = dir.read(file)?;
    Ok(Some(text.trim().to_owned()).filter(|list| !list.is_empty()))
}
