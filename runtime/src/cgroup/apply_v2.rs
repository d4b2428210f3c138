//! Limits in the files of the v2 controllers (`Documentation/admin-guide/cgroup-v2.rst`).

use nix::errno::Errno;
use oci_spec::runtime::{LinuxCpu, LinuxMemory};

use super::apply::write_in_any_order;
use super::dir::Dir;
use super::held::number;
use super::undo::Target;
use super::{CgroupError, format, weight};

/// Memory, swap and protection. OCI counts memory+swap, v2 counts swap alone.
pub(super) fn memory(target: &mut Target<'_>, memory: &LinuxMemory) -> Result<(), CgroupError> {
    let limit = memory.limit().filter(|limit| *limit != 0);
    if let Some(limit) = limit.and_then(|limit| u64::try_from(limit).ok()) {
        make_room(target, limit)?;
    }
    // Without swap accounting there is no such file, and nothing to limit.
    let swap = match memory.swap().filter(|swap| *swap != 0) {
        Some(total) => swap_alone(&target.dir, limit, total)?,
        None if limit.is_some_and(|limit| limit < 0) => Some("max".to_owned()),
        None => None,
    };
    if let Some(swap) = swap.filter(|_| target.has("memory.swap.max")) {
        target.write("memory.swap.max", &swap)?;
    }
    if let Some(limit) = limit {
        target.write("memory.max", &max_or(limit))?;
    }
    match memory.reservation().filter(|reservation| *reservation != 0) {
        Some(reservation) => target.write("memory.low", &max_or(reservation)),
        None => Ok(()),
    }
}

/// Makes a group in use fit into a lower limit, or refuses the limit: the kernel would kill processes rather than refuse it
/// (cgroup-v2.rst, memory.max), while v1 answers EBUSY.
///
/// A process that takes more between the look and the write of the limit may still be killed, as it would have been under that limit.
pub(super) fn make_room(target: &Target<'_>, limit: u64) -> Result<(), CgroupError> {
    if !target.may_be_in_use() {
        return Ok(());
    }
    let used = number(&target.dir, "memory.current")?;
    if used <= limit {
        return Ok(());
    }
    // Page cache goes, and what may be swapped, as v1 does by itself. Linux 5.19; EAGAIN says that less was to be had, and the
    // second look says how much.
    let _ = target
        .dir
        .try_write("memory.reclaim", &(used - limit).to_string());
    let used = number(&target.dir, "memory.current")?;
    if used <= limit {
        return Ok(());
    }
    let hint = format!(
        "the group uses {used} bytes that cannot be reclaimed, and the kernel would kill its processes"
    );
    let value = limit.to_string();
    Err(target
        .dir
        .write_error("memory.max", &value, hint, Errno::EBUSY))
}

/// `total` minus the memory limit of the request, else of the group.
fn swap_alone(dir: &Dir, limit: Option<i64>, total: i64) -> Result<Option<String>, CgroupError> {
    if total < 0 {
        return Ok(Some("max".to_owned()));
    }
    let limit = match limit {
        Some(limit) if limit < 0 => None,
        Some(limit) => Some(limit.unsigned_abs()),
        None => {
            let text = dir.read("memory.max")?;
            format::v2_limit(&text)
                .ok_or_else(|| dir.parse_error("memory.max", &text, "a number or max"))?
        }
    };
    let invalid = |reason| CgroupError::InvalidValue {
        field: "memory.swap",
        value: total.to_string(),
        reason,
    };
    match limit {
        Some(limit) => match total.unsigned_abs().checked_sub(limit) {
            Some(swap) => Ok(Some(swap.to_string())),
            None => Err(invalid("memory+swap is below the memory limit")),
        },
        None => Err(invalid(
            "memory+swap cannot be limited without a memory limit",
        )),
    }
}

/// Weight, idle, bandwidth, burst.
pub(super) fn cpu(target: &mut Target<'_>, cpu: &LinuxCpu) -> Result<(), CgroupError> {
    if let Some(idle) = cpu.idle() {
        target.write("cpu.idle", &idle.to_string())?;
    }
    if let Some(shares) = cpu
        .shares()
        .filter(|shares| *shares != 0 && cpu.idle() != Some(1))
    {
        target.write("cpu.weight", &weight::from_shares(shares).to_string())?;
    }
    let quota = cpu.quota().filter(|quota| *quota != 0);
    let period = cpu.period().filter(|period| *period != 0);
    let mut values = Vec::with_capacity(2);
    if let Some(value) = bandwidth(&target.dir, quota, period)? {
        values.push(("cpu.max", value));
    }
    if let Some(burst) = cpu.burst() {
        values.push(("cpu.max.burst", burst.to_string()));
    }
    write_in_any_order(target, &values, |_, file, errno| match (file, errno) {
        ("cpu.max", Errno::EINVAL) => {
            "a period is 1000 to 1000000 µs, a quota at least 1000 µs".to_owned()
        }
        ("cpu.max.burst", Errno::EINVAL) => "a burst cannot be above the quota".to_owned(),
        _ => String::new(),
    })
}

/// `cpu.max` keeps the period when only the quota is written; a period alone needs the held quota.
fn bandwidth(
    dir: &Dir,
    quota: Option<i64>,
    period: Option<u64>,
) -> Result<Option<String>, CgroupError> {
    let quota = match (quota, period) {
        (None, None) => return Ok(None),
        (Some(quota), _) => max_or(quota),
        (None, Some(_)) => dir
            .read("cpu.max")?
            .split_ascii_whitespace()
            .next()
            .unwrap_or("max")
            .to_owned(),
    };
    Ok(Some(match period {
        Some(period) => format!("{quota} {period}"),
        None => quota,
    }))
}

fn max_or(limit: i64) -> String {
    if limit < 0 {
        "max".to_owned()
    } else {
        limit.to_string()
    }
}
