//! Resource limits between CRI, OCI and what a cgroup holds.

use std::collections::BTreeMap;

use oci_spec::runtime::{
    LinuxCpu, LinuxDeviceCgroup, LinuxHugepageLimit, LinuxMemory, LinuxResources,
};
use podwright_cri_api::v1::{HugepageLimit, LinuxContainerResources};

use crate::cgroup::HeldResources;
use crate::error::CallError;

/// A request's limits. In CRI zero means "not given".
pub(crate) fn oci_resources(
    request: &LinuxContainerResources,
    devices: Option<Vec<LinuxDeviceCgroup>>,
) -> Result<LinuxResources, CallError> {
    let mut resources = LinuxResources::default();
    resources.set_devices(devices);
    resources.set_cpu(Some(cpu(request)?));
    resources.set_memory(Some(memory(request)?));
    if !request.hugepage_limits.is_empty() {
        let limits = request
            .hugepage_limits
            .iter()
            .map(hugepages)
            .collect::<Result<_, _>>()?;
        resources.set_hugepage_limits(Some(limits));
    }
    if !request.unified.is_empty() {
        resources.set_unified(Some(request.unified.clone().into_iter().collect()));
    }
    Ok(resources)
}

fn positive(name: &str, value: i64) -> Result<Option<u64>, CallError> {
    match u64::try_from(value) {
        Ok(0) => Ok(None),
        Ok(value) => Ok(Some(value)),
        Err(_) => Err(CallError::invalid(format!(
            "the limit {name} = {value} is negative"
        ))),
    }
}

fn cpu(request: &LinuxContainerResources) -> Result<LinuxCpu, CallError> {
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(positive("cpu_shares", request.cpu_shares)?);
    cpu.set_period(positive("cpu_period", request.cpu_period)?);
    match request.cpu_quota {
        0 => {}
        // The kernel writes "no quota" as -1; a quota below 1 ms is refused by it.
        quota if quota >= -1 => {
            cpu.set_quota(Some(quota));
        }
        quota => {
            return Err(CallError::invalid(format!(
                "the limit cpu_quota = {quota} is negative; -1 means none"
            )));
        }
    }
    let text = |value: &String| (!value.is_empty()).then(|| value.clone());
    cpu.set_cpus(text(&request.cpuset_cpus));
    cpu.set_mems(text(&request.cpuset_mems));
    Ok(cpu)
}

fn memory(request: &LinuxContainerResources) -> Result<LinuxMemory, CallError> {
    let mut memory = LinuxMemory::default();
    let bounded = |name: &str, value: i64| match value {
        0 => Ok(None),
        value if value >= -1 => Ok(Some(value)),
        value => Err(CallError::invalid(format!(
            "the limit {name} = {value} is negative; -1 means none"
        ))),
    };
    let limit = bounded("memory_limit_in_bytes", request.memory_limit_in_bytes)?;
    let swap = bounded(
        "memory_swap_limit_in_bytes",
        request.memory_swap_limit_in_bytes,
    )?;
    if let (Some(limit), Some(swap)) = (limit, swap)
        && swap != -1
        && (limit == -1 || swap < limit)
    {
        let what = format!(
            "the limit memory_swap_limit_in_bytes = {swap} counts memory and swap together: it cannot be below memory_limit_in_bytes = {limit}"
        );
        return Err(CallError::invalid(what));
    }
    memory.set_limit(limit);
    memory.set_swap(swap);
    Ok(memory)
}

fn hugepages(limit: &HugepageLimit) -> Result<LinuxHugepageLimit, CallError> {
    let known = |suffix: &str| {
        limit
            .page_size
            .strip_suffix(suffix)
            .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
    };
    if !(known("KB") || known("MB") || known("GB")) {
        return Err(CallError::invalid(format!(
            "'{}' is no huge page size; 2MB or 1GB are",
            crate::index::shown(&limit.page_size)
        )));
    }
    let mut out = LinuxHugepageLimit::default();
    out.set_page_size(limit.page_size.clone());
    out.set_limit(i64::try_from(limit.limit).unwrap_or(i64::MAX));
    Ok(out)
}

/// Limits after an update: zero and empty mean "as before".
pub(crate) fn merge_resources(
    old: LinuxContainerResources,
    new: LinuxContainerResources,
) -> LinuxContainerResources {
    let number = |new: i64, old: i64| if new == 0 { old } else { new };
    let text = |new: String, old: String| if new.is_empty() { old } else { new };
    let mut unified = old.unified;
    unified.extend(new.unified);
    LinuxContainerResources {
        cpu_period: number(new.cpu_period, old.cpu_period),
        cpu_quota: number(new.cpu_quota, old.cpu_quota),
        cpu_shares: number(new.cpu_shares, old.cpu_shares),
        memory_limit_in_bytes: number(new.memory_limit_in_bytes, old.memory_limit_in_bytes),
        oom_score_adj: number(new.oom_score_adj, old.oom_score_adj),
        cpuset_cpus: text(new.cpuset_cpus, old.cpuset_cpus),
        cpuset_mems: text(new.cpuset_mems, old.cpuset_mems),
        hugepage_limits: if new.hugepage_limits.is_empty() {
            old.hugepage_limits
        } else {
            new.hugepage_limits
        },
        unified,
        memory_swap_limit_in_bytes: number(
            new.memory_swap_limit_in_bytes,
            old.memory_swap_limit_in_bytes,
        ),
    }
}

/// A pod's limits: those of its containers together, and its own overhead. Without the containers' limit there is none.
pub(crate) fn sum_resources(
    overhead: &Option<LinuxContainerResources>,
    resources: &Option<LinuxContainerResources>,
) -> LinuxContainerResources {
    let overhead = overhead.clone().unwrap_or_default();
    let mut sum = resources.clone().unwrap_or_default();
    let add = |limit: &mut i64, more: i64| {
        if *limit > 0 {
            *limit = limit.saturating_add(more.max(0));
        }
    };
    // Quotas of different periods: what the overhead's is in the other's.
    let quota = match (overhead.cpu_period, sum.cpu_period) {
        (period, other) if period > 0 && other > 0 && period != other => {
            let scaled = i128::from(overhead.cpu_quota) * i128::from(other) / i128::from(period);
            i64::try_from(scaled).unwrap_or(i64::MAX)
        }
        _ => overhead.cpu_quota,
    };
    add(&mut sum.cpu_quota, quota);
    add(&mut sum.cpu_shares, overhead.cpu_shares);
    add(
        &mut sum.memory_limit_in_bytes,
        overhead.memory_limit_in_bytes,
    );
    add(
        &mut sum.memory_swap_limit_in_bytes,
        overhead.memory_swap_limit_in_bytes,
    );
    sum
}

/// What the cgroup really holds, as CRI reports it; what it cannot hold is as it was asked for.
pub(crate) fn held_resources(
    held: &HeldResources,
    unified: BTreeMap<String, String>,
    asked: &LinuxContainerResources,
    oom_score_adj: i64,
) -> LinuxContainerResources {
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    LinuxContainerResources {
        cpu_period: held.cpu_period.map_or(asked.cpu_period, signed),
        cpu_quota: held.cpu_quota.unwrap_or(asked.cpu_quota),
        cpu_shares: held.cpu_shares.map_or(asked.cpu_shares, |held| {
            signed(held.like(asked.cpu_shares.max(0).unsigned_abs()))
        }),
        memory_limit_in_bytes: held.memory_limit.map_or(0, signed),
        oom_score_adj,
        cpuset_cpus: held.cpus.clone().unwrap_or_default(),
        cpuset_mems: held.mems.clone().unwrap_or_default(),
        hugepage_limits: held
            .hugepages
            .iter()
            .map(|(page_size, limit)| HugepageLimit {
                page_size: page_size.clone(),
                limit: *limit,
            })
            .collect(),
        unified,
        memory_swap_limit_in_bytes: held.memory_swap_limit.map_or(0, signed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_not_given_and_minus_one_is_none() {
        let request = LinuxContainerResources {
            memory_limit_in_bytes: 1 << 20,
            cpu_quota: -1,
            ..Default::default()
        };
        let resources = oci_resources(&request, None).unwrap();
        let (cpu, memory) = (
            resources.cpu().clone().unwrap(),
            resources.memory().unwrap(),
        );
        assert_eq!(
            (cpu.shares(), cpu.quota(), cpu.period()),
            (None, Some(-1), None)
        );
        assert_eq!((memory.limit(), memory.swap()), (Some(1 << 20), None));
    }

    #[test]
    fn a_pod_has_its_containers_limits_and_its_overhead() {
        let overhead = LinuxContainerResources {
            cpu_period: 50_000,
            cpu_quota: 5_000,
            memory_limit_in_bytes: 10,
            memory_swap_limit_in_bytes: 10,
            ..Default::default()
        };
        let resources = LinuxContainerResources {
            cpu_period: 100_000,
            cpu_quota: 20_000,
            memory_limit_in_bytes: 100,
            ..Default::default()
        };
        let sum = sum_resources(&Some(overhead.clone()), &Some(resources));
        assert_eq!((sum.cpu_period, sum.cpu_quota), (100_000, 30_000));
        let memory = (sum.memory_limit_in_bytes, sum.memory_swap_limit_in_bytes);
        assert_eq!(memory, (110, 0));
        assert_eq!(
            sum_resources(&Some(overhead), &None),
            LinuxContainerResources::default()
        );
    }

    #[test]
    fn impossible_limits_are_named() {
        let none = LinuxContainerResources::default;
        let page = |page_size: &str| {
            vec![HugepageLimit {
                page_size: page_size.into(),
                limit: 1,
            }]
        };
        let cases = [
            (
                LinuxContainerResources {
                    cpu_shares: -1,
                    ..none()
                },
                "cpu_shares = -1",
            ),
            (
                LinuxContainerResources {
                    cpu_period: -5,
                    ..none()
                },
                "cpu_period = -5",
            ),
            (
                LinuxContainerResources {
                    cpu_quota: -2,
                    ..none()
                },
                "cpu_quota = -2",
            ),
            (
                LinuxContainerResources {
                    memory_limit_in_bytes: -2,
                    ..none()
                },
                "memory_limit_in_bytes = -2",
            ),
            (
                LinuxContainerResources {
                    memory_limit_in_bytes: 10,
                    memory_swap_limit_in_bytes: 5,
                    ..none()
                },
                "cannot be below",
            ),
            (
                LinuxContainerResources {
                    hugepage_limits: page("2 potatoes"),
                    ..none()
                },
                "2 potatoes",
            ),
        ];
        for (request, expected) in cases {
            let error = oci_resources(&request, None).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
