//! Limits in the files of the v2 controllers (`Documentation/admin-guide/cgroup-v2.rst`).

use nix::errno::Errno;
use nix::fcntl::OFlag;
use oci_spec::runtime::{LinuxCpu, LinuxMemory};

use super::apply::write_in_any_order;
use super::dir::Dir;
use super::{CgroupError, format, weight};

/// Memory, swap and protection. OCI counts memory+swap, v2 counts swap alone.
pub(super) fn memory(dir: &Dir, memory: &LinuxMemory) -> Result<(), CgroupError> {
    let limit = memory.limit().filter(|limit| *limit != 0);
    if let Some(limit) = limit.filter(|limit| *limit > 0)
        && memory.check_before_update() == Some(true)
    {
        refuse_below_usage(dir, limit)?;
    }
    if let Some(total) = memory.swap().filter(|swap| *swap != 0)
        && let Some(swap) = swap_alone(dir, limit, total)?
    {
        // Without swap accounting there is no such file, and nothing to limit.
        if dir.open_file("memory.swap.max", OFlag::O_PATH).is_ok() {
            dir.write("memory.swap.max", &swap)?;
        }
    } else if limit.is_some_and(|limit| limit < 0)
        && dir.open_file("memory.swap.max", OFlag::O_PATH).is_ok()
    {
        dir.write("memory.swap.max", "max")?;
    }
    if let Some(limit) = limit {
        dir.write("memory.max", &max_or(limit))?;
    }
    match memory.reservation().filter(|reservation| *reservation != 0) {
        Some(reservation) => dir.write("memory.low", &max_or(reservation)),
        None => Ok(()),
    }
}

/// The kernel would rather kill processes than refuse the limit.
fn refuse_below_usage(dir: &Dir, limit: i64) -> Result<(), CgroupError> {
    let usage = dir.read("memory.current")?;
    match format::number(&usage) {
        Some(used) if used > limit.unsigned_abs() => {
            let hint = format!("the group uses {used} bytes and would be killed");
            Err(dir.write_error("memory.max", &limit.to_string(), hint, Errno::EBUSY))
        }
        _ => Ok(()),
    }
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
pub(super) fn cpu(dir: &Dir, cpu: &LinuxCpu) -> Result<(), CgroupError> {
    if let Some(idle) = cpu.idle() {
        dir.write("cpu.idle", &idle.to_string())?;
    }
    if let Some(shares) = cpu
        .shares()
        .filter(|shares| *shares != 0 && cpu.idle() != Some(1))
    {
        dir.write("cpu.weight", &weight::from_shares(shares).to_string())?;
    }
    let quota = cpu.quota().filter(|quota| *quota != 0);
    let period = cpu.period().filter(|period| *period != 0);
    let mut values = Vec::with_capacity(2);
    if let Some(value) = bandwidth(dir, quota, period)? {
        values.push(("cpu.max", value));
    }
    if let Some(burst) = cpu.burst() {
        values.push(("cpu.max.burst", burst.to_string()));
    }
    write_in_any_order(dir, &values, |_, file, errno| match (file, errno) {
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
