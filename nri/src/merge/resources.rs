//! Limits: every one has one owner.

use crate::api::{Field, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};
use crate::error::NriError;

use super::Claims;

/// Sets, in all targets, each optional field that `from` has, and takes it for the plugin.
macro_rules! merge_fields {
    ($claims:expr, $from:expr, $targets:expr, $($field:ident: $name:ident),* $(,)?) => {$(
        if let Some(value) = &$from.$field {
            $claims.take(Field::$name)?;
            for target in $targets.iter_mut() {
                target.$field = Some(value.clone());
            }
        }
    )*};
}

/// Merges what a plugin wants into `targets`: what the next plugin sees, and what all have set together.
pub(super) fn merge(
    claims: &mut Claims<'_>,
    from: &LinuxResources,
    targets: &mut [&mut LinuxResources],
) -> Result<(), NriError> {
    if let Some(memory) = &from.memory {
        let mut targets: Vec<_> = targets
            .iter_mut()
            .map(|target| target.memory.get_or_insert_default())
            .collect();
        merge_memory(claims, memory, &mut targets)?;
    }
    if let Some(cpu) = &from.cpu {
        let mut targets: Vec<_> = targets
            .iter_mut()
            .map(|target| target.cpu.get_or_insert_default())
            .collect();
        merge_cpu(claims, cpu, &mut targets)?;
    }
    for limit in &from.hugepage_limits {
        claims.take_entry(Field::HugepageLimits, &limit.page_size)?;
        for target in targets.iter_mut() {
            let limits = &mut target.hugepage_limits;
            limits.retain(|other| other.page_size != limit.page_size);
            limits.push(limit.clone());
        }
    }
    for (key, value) in &from.unified {
        claims.take_entry(Field::CgroupsUnified, key)?;
        for target in targets.iter_mut() {
            target.unified.insert(key.clone(), value.clone());
        }
    }
    merge_fields!(claims, from, targets, blockio_class: BlockioClass, rdt_class: RdtClass);
    if let Some(LinuxPids { limit }) = from.pids {
        claims.take(Field::PidsLimit)?;
        for target in targets.iter_mut() {
            target.pids = Some(LinuxPids { limit });
        }
    }
    // Rules follow each other; none takes another's place.
    for target in targets.iter_mut() {
        target.devices.extend(from.devices.iter().cloned());
    }
    Ok(())
}

fn merge_memory(
    claims: &mut Claims<'_>,
    from: &LinuxMemory,
    targets: &mut [&mut LinuxMemory],
) -> Result<(), NriError> {
    merge_fields!(
        claims,
        from,
        targets,
        limit: MemLimit,
        reservation: MemReservation,
        swap: MemSwapLimit,
        kernel: MemKernelLimit,
        kernel_tcp: MemTcpLimit,
        swappiness: MemSwappiness,
        disable_oom_killer: MemDisableOomKiller,
        use_hierarchy: MemUseHierarchy,
    );
    Ok(())
}

fn merge_cpu(
    claims: &mut Claims<'_>,
    from: &LinuxCpu,
    targets: &mut [&mut LinuxCpu],
) -> Result<(), NriError> {
    merge_fields!(
        claims,
        from,
        targets,
        shares: CpuShares,
        quota: CpuQuota,
        period: CpuPeriod,
        realtime_runtime: CpuRealtimeRuntime,
        realtime_period: CpuRealtimePeriod,
    );
    if !from.cpus.is_empty() {
        claims.take(Field::CpuSetCpUs)?;
        for target in targets.iter_mut() {
            target.cpus.clone_from(&from.cpus);
        }
    }
    if !from.mems.is_empty() {
        claims.take(Field::CpuSetMems)?;
        for target in targets.iter_mut() {
            target.mems.clone_from(&from.mems);
        }
    }
    Ok(())
}
