//! Limits between plugins, CRI and OCI.

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, LinuxPids, LinuxResources};
use podwright_cri_api::v1::{HugepageLimit, LinuxContainerResources};
use podwright_nri::api;

use crate::error::CallError;
use crate::index::shown;

/// A plugin's limits in two parts: what CRI can say, which is kept with the container's limits, and the rest.
pub(crate) fn split(
    limits: api::LinuxResources,
) -> Result<(LinuxContainerResources, api::LinuxResources), CallError> {
    let signed = |name: &str, value: u64| {
        i64::try_from(value)
            .map_err(|_| CallError::state(format!("the limit {name} = {value} is out of range")))
    };
    let mut rest = limits;
    let cpu = rest.cpu.get_or_insert_default();
    let memory = rest.memory.get_or_insert_default();
    let said = LinuxContainerResources {
        cpu_shares: signed("cpu_shares", cpu.shares.take().map_or(0, |v| v.value))?,
        cpu_quota: cpu.quota.take().map_or(0, |v| v.value),
        cpu_period: signed("cpu_period", cpu.period.take().map_or(0, |v| v.value))?,
        cpuset_cpus: std::mem::take(&mut cpu.cpus),
        cpuset_mems: std::mem::take(&mut cpu.mems),
        memory_limit_in_bytes: memory.limit.take().map_or(0, |v| v.value),
        memory_swap_limit_in_bytes: memory.swap.take().map_or(0, |v| v.value),
        hugepage_limits: rest
            .hugepage_limits
            .drain(..)
            .map(|limit| HugepageLimit {
                page_size: limit.page_size,
                limit: limit.limit,
            })
            .collect(),
        unified: std::mem::take(&mut rest.unified),
        oom_score_adj: 0,
    };
    rest.cpu = rest.cpu.filter(|cpu| *cpu != api::LinuxCpu::default());
    rest.memory = rest
        .memory
        .filter(|memory| *memory != api::LinuxMemory::default());
    refuse(&rest)?;
    Ok((said, rest))
}

/// What no cgroup of this runtime can hold.
fn refuse(rest: &api::LinuxResources) -> Result<(), CallError> {
    let named = |class: &Option<api::OptionalString>| {
        class.as_ref().is_some_and(|class| !class.value.is_empty())
    };
    let memory = rest.memory.unwrap_or_default();
    let cpu = rest.cpu.clone().unwrap_or_default();
    let number = |value: Option<i64>| value.is_some_and(|value| value != 0);
    let refused = [
        ("a block I/O class", named(&rest.blockio_class)),
        ("an RDT class", named(&rest.rdt_class)),
        (
            "a limit on kernel memory",
            number(memory.kernel.map(|v| v.value)),
        ),
        (
            "a limit on TCP memory",
            number(memory.kernel_tcp.map(|v| v.value)),
        ),
        ("swappiness", memory.swappiness.is_some()),
        (
            "no OOM killer",
            memory.disable_oom_killer.is_some_and(|v| v.value),
        ),
        (
            "accounting without hierarchy",
            memory.use_hierarchy.is_some_and(|v| !v.value),
        ),
        (
            "a realtime runtime",
            number(cpu.realtime_runtime.map(|v| v.value)),
        ),
        (
            "a realtime period",
            cpu.realtime_period.is_some_and(|v| v.value != 0),
        ),
    ];
    match refused.into_iter().find(|(_, set)| *set) {
        Some((what, _)) => Err(super::adjust::cannot(what)),
        None => Ok(()),
    }
}

/// Puts what CRI cannot say onto limits that CRI has said.
pub(crate) fn overlay(
    limits: &mut LinuxResources,
    rest: &api::LinuxResources,
) -> Result<(), CallError> {
    if let Some(pids) = rest.pids {
        let mut limit = LinuxPids::default();
        limit.set_limit(pids.limit);
        limits.set_pids(Some(limit));
    }
    if let Some(reservation) = rest.memory.as_ref().and_then(|memory| memory.reservation) {
        let mut memory = limits.memory().unwrap_or_default();
        memory.set_reservation(Some(reservation.value));
        limits.set_memory(Some(memory));
    }
    if !rest.devices.is_empty() {
        let mut rules = limits.devices().clone().unwrap_or_default();
        for rule in &rest.devices {
            rules.push(device_rule(rule)?);
        }
        limits.set_devices(Some(rules));
    }
    Ok(())
}

/// Adds what CRI cannot say to what was said so before.
pub(super) fn add(limits: &mut api::LinuxResources, new: api::LinuxResources) {
    limits.pids = new.pids.or(limits.pids);
    if let Some(reservation) = new.memory.and_then(|memory| memory.reservation) {
        limits.memory.get_or_insert_default().reservation = Some(reservation);
    }
}

/// The rules for devices stand in the spec, which does not change once the container is made.
pub(crate) fn refuse_rules(limits: &api::LinuxResources) -> Result<(), CallError> {
    match limits.devices.is_empty() {
        true => Ok(()),
        false => Err(super::adjust::cannot(
            "other rules for devices of a container that is there",
        )),
    }
}

fn device_rule(rule: &api::LinuxDeviceCgroup) -> Result<LinuxDeviceCgroup, CallError> {
    let mut out = LinuxDeviceCgroup::default();
    out.set_allow(rule.allow)
        .set_typ(Some(device_type(&rule.r#type)?))
        .set_major(rule.major.map(|number| number.value))
        .set_minor(rule.minor.map(|number| number.value))
        .set_access(Some(rule.access.clone()));
    Ok(out)
}

/// As mknod(1) and the device cgroup write it.
pub(super) fn type_name(kind: LinuxDeviceType) -> &'static str {
    match kind {
        LinuxDeviceType::A => "a",
        LinuxDeviceType::B => "b",
        LinuxDeviceType::C => "c",
        LinuxDeviceType::U => "u",
        LinuxDeviceType::P => "p",
    }
}

/// The reverse of [`type_name`].
pub(super) fn device_type(text: &str) -> Result<LinuxDeviceType, CallError> {
    match text {
        "c" | "u" => Ok(LinuxDeviceType::C),
        "b" => Ok(LinuxDeviceType::B),
        "p" => Ok(LinuxDeviceType::P),
        "a" | "" => Ok(LinuxDeviceType::A),
        other => Err(CallError::state(format!(
            "a NRI plugin set a device of the type '{}', which is none",
            shown(other)
        ))),
    }
}

/// Later limits over earlier ones, entry by entry.
pub(crate) fn combine(
    old: LinuxContainerResources,
    new: LinuxContainerResources,
) -> LinuxContainerResources {
    let mut new = new;
    // What a limit on memory leaves for swap stays as it was.
    let room = old.memory_swap_limit_in_bytes - old.memory_limit_in_bytes;
    if new.memory_limit_in_bytes > 0
        && new.memory_swap_limit_in_bytes == 0
        && old.memory_swap_limit_in_bytes > 0
        && room >= 0
    {
        new.memory_swap_limit_in_bytes = new.memory_limit_in_bytes.saturating_add(room);
    }
    if !new.hugepage_limits.is_empty() {
        let set = |limit: &&HugepageLimit| {
            !new.hugepage_limits
                .iter()
                .any(|other| other.page_size == limit.page_size)
        };
        let kept: Vec<_> = old.hugepage_limits.iter().filter(set).cloned().collect();
        new.hugepage_limits.extend(kept);
    }
    crate::plan::merge_resources(old, new)
}

/// CRI's limits as plugins see them. Zero is not given.
pub(crate) fn of_cri(limits: &LinuxContainerResources) -> api::LinuxResources {
    let signed = |value: i64| (value != 0).then_some(api::OptionalInt64 { value });
    let unsigned = |value: i64| {
        u64::try_from(value)
            .ok()
            .filter(|value| *value != 0)
            .map(|value| api::OptionalUInt64 { value })
    };
    api::LinuxResources {
        memory: Some(api::LinuxMemory {
            limit: signed(limits.memory_limit_in_bytes),
            swap: signed(limits.memory_swap_limit_in_bytes),
            ..api::LinuxMemory::default()
        }),
        cpu: Some(api::LinuxCpu {
            shares: unsigned(limits.cpu_shares),
            quota: signed(limits.cpu_quota),
            period: unsigned(limits.cpu_period),
            cpus: limits.cpuset_cpus.clone(),
            mems: limits.cpuset_mems.clone(),
            ..api::LinuxCpu::default()
        }),
        hugepage_limits: limits
            .hugepage_limits
            .iter()
            .map(|limit| api::HugepageLimit {
                page_size: limit.page_size.clone(),
                limit: limit.limit,
            })
            .collect(),
        unified: limits.unified.clone(),
        ..api::LinuxResources::default()
    }
}

/// The same with what CRI cannot say, and the rules for devices.
pub(super) fn of_container(
    limits: &LinuxContainerResources,
    rest: &api::LinuxResources,
    rules: &[LinuxDeviceCgroup],
) -> api::LinuxResources {
    let mut out = of_cri(limits);
    out.pids = rest.pids;
    if let (Some(memory), Some(rest)) = (&mut out.memory, &rest.memory) {
        memory.reservation = rest.reservation;
    }
    out.devices = rules.iter().map(of_rule).collect();
    out.devices.extend(rest.devices.iter().cloned());
    out
}

fn of_rule(rule: &LinuxDeviceCgroup) -> api::LinuxDeviceCgroup {
    let number = |value: Option<i64>| value.map(|value| api::OptionalInt64 { value });
    api::LinuxDeviceCgroup {
        allow: rule.allow(),
        r#type: type_name(rule.typ().unwrap_or(LinuxDeviceType::A)).to_owned(),
        major: number(rule.major()),
        minor: number(rule.minor()),
        access: rule.access().clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(change: impl FnOnce(&mut LinuxContainerResources)) -> LinuxContainerResources {
        let mut limits = LinuxContainerResources::default();
        change(&mut limits);
        limits
    }

    #[test]
    fn what_cri_can_say_is_split_off_and_comes_back_the_same() {
        let said = limits(|limits| {
            limits.cpu_shares = 512;
            limits.cpu_quota = -1;
            limits.memory_limit_in_bytes = 1 << 20;
            limits.cpuset_cpus = "0-1".into();
            limits.unified = [("memory.high".to_owned(), "1".to_owned())].into();
        });
        let mut asked = of_cri(&said);
        asked.pids = Some(api::LinuxPids { limit: 7 });
        let (back, rest) = split(asked).unwrap();
        assert_eq!(back, said);
        assert_eq!(
            (rest.pids, rest.cpu, rest.memory),
            (Some(api::LinuxPids { limit: 7 }), None, None)
        );
    }

    #[test]
    fn a_raised_memory_limit_keeps_the_room_for_swap() {
        let old = limits(|limits| {
            limits.memory_limit_in_bytes = 100;
            limits.memory_swap_limit_in_bytes = 100;
        });
        let new = limits(|limits| limits.memory_limit_in_bytes = 300);
        let combined = combine(old, new);
        assert_eq!(combined.memory_limit_in_bytes, 300);
        assert_eq!(combined.memory_swap_limit_in_bytes, 300);
    }

    #[test]
    fn what_cannot_be_held_is_named() {
        let class = |value: &str| {
            Some(api::OptionalString {
                value: value.into(),
            })
        };
        let asked = api::LinuxResources {
            blockio_class: class("gold"),
            ..api::LinuxResources::default()
        };
        assert!(split(asked).unwrap_err().to_string().contains("block I/O"));
        let cleared = api::LinuxResources {
            rdt_class: class(""),
            ..api::LinuxResources::default()
        };
        assert!(split(cleared).is_ok(), "no class is no wish");
    }
}
