//! Limits in the files of the v1 controllers (`Documentation/admin-guide/cgroup-v1/`).

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::write;
use oci_spec::runtime::{LinuxCpu, LinuxDeviceCgroup, LinuxMemory};

use super::CgroupError;
use super::apply::write_in_any_order;
use super::device_rule::{self, DeviceRule, Kind};
use super::dir::Dir;
use super::undo::Target;

const LIMIT: &str = "memory.limit_in_bytes";
const MEMSW: &str = "memory.memsw.limit_in_bytes";

/// Memory, memory+swap and reservation.
pub(super) fn memory(target: &mut Target<'_>, memory: &LinuxMemory) -> Result<(), CgroupError> {
    let limit = memory.limit().filter(|limit| *limit != 0);
    let mut swap = memory.swap().filter(|swap| *swap != 0);
    if limit.is_some_and(|limit| limit < 0) && swap.is_none() {
        // No limit on memory implies none on memory+swap, which must not be lower.
        swap = Some(-1);
    }
    let mut values = Vec::with_capacity(2);
    if let Some(limit) = limit {
        values.push((LIMIT, limit.max(-1).to_string()));
    }
    if let Some(swap) = swap {
        // Without swap accounting there is nothing to limit: memory+swap is memory.
        if target.has(MEMSW) {
            values.push((MEMSW, swap.max(-1).to_string()));
        }
    }
    write_in_any_order(target, &values, memory_hint)?;
    match memory.reservation().filter(|reservation| *reservation != 0) {
        Some(reservation) => target.write(
            "memory.soft_limit_in_bytes",
            &reservation.max(-1).to_string(),
        ),
        None => Ok(()),
    }
}

fn memory_hint(dir: &Dir, file: &str, errno: Errno) -> String {
    let held = |name: &str| {
        dir.read(name)
            .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
    };
    match (file, errno) {
        (LIMIT, Errno::EBUSY) => format!(
            "the group uses {} bytes and cannot be shrunk below that",
            held("memory.usage_in_bytes")
        ),
        (_, Errno::EBUSY) => format!(
            "the group uses {} bytes of memory and swap",
            held("memory.memsw.usage_in_bytes")
        ),
        (LIMIT, Errno::EINVAL) => format!(
            "the memory+swap limit is {}, the memory limit cannot be above it; raise both at once",
            held(MEMSW)
        ),
        (MEMSW, Errno::EINVAL) => format!(
            "the memory limit is {}, the memory+swap limit cannot be below it",
            held(LIMIT)
        ),
        _ => String::new(),
    }
}

/// Shares, idle, quota, period, burst.
pub(super) fn cpu(target: &mut Target<'_>, cpu: &LinuxCpu) -> Result<(), CgroupError> {
    if let Some(idle) = cpu.idle() {
        target.write("cpu.idle", &idle.to_string())?;
    }
    // An idle group has no shares to set (EINVAL).
    if let Some(shares) = cpu
        .shares()
        .filter(|shares| *shares != 0 && cpu.idle() != Some(1))
    {
        // The kernel clamps to the same bounds.
        target.write("cpu.shares", &shares.clamp(2, 262_144).to_string())?;
    }
    let mut values = Vec::with_capacity(3);
    // The kernel looks at all groups of the machine before it takes one, so a period that the group has is not written.
    const PERIOD: &str = "cpu.cfs_period_us";
    let is_held = |period: &String| {
        let held = target.dir.read(PERIOD);
        held.is_ok_and(|held| held.trim_end() == period)
    };
    let period = cpu.period().filter(|period| *period != 0);
    let period = period.map(|period| period.to_string());
    values.extend(
        period
            .filter(|period| !is_held(period))
            .map(|period| (PERIOD, period)),
    );
    if let Some(quota) = cpu.quota().filter(|quota| *quota != 0) {
        values.push(("cpu.cfs_quota_us", quota.max(-1).to_string()));
    }
    if let Some(burst) = cpu.burst() {
        values.push(("cpu.cfs_burst_us", burst.to_string()));
    }
    write_in_any_order(target, &values, |_, file, errno| match (file, errno) {
        (PERIOD, Errno::EINVAL) => {
            "a period is 1000 to 1000000 µs and must keep the group within its parent's bandwidth"
                .to_owned()
        }
        ("cpu.cfs_quota_us", Errno::EINVAL) => {
            "a quota is at least 1000 µs and must keep the group within its parent's bandwidth"
                .to_owned()
        }
        ("cpu.cfs_burst_us", Errno::EINVAL) => "a burst cannot be above the quota".to_owned(),
        _ => String::new(),
    })
}

/// Device rules in their order, each in one write.
pub(super) fn devices(dir: &Dir, rules: &[LinuxDeviceCgroup]) -> Result<(), CgroupError> {
    let open = |name: &str| {
        dir.open_file(name, OFlag::O_WRONLY)
            .map_err(|source| dir.error("open", name, source))
    };
    let allow = open("devices.allow")?;
    let deny = open("devices.deny")?;
    for rule in rules {
        let (file, name) = if rule.allow() {
            (&allow, "devices.allow")
        } else {
            (&deny, "devices.deny")
        };
        let value = device_rule(rule)?;
        let failed = |source| {
            let hint = match source {
                Errno::EPERM => "the parent group does not allow this device",
                Errno::EINVAL => {
                    "a rule for all devices cannot change while the group has children"
                }
                _ => "",
            };
            dir.write_error(name, &value, hint.to_owned(), source)
        };
        if write(file, value.as_bytes()).map_err(failed)? != value.len() {
            return Err(failed(Errno::EIO));
        }
    }
    Ok(())
}

/// The kernel's form of a rule: `c 1:3 rwm`, `b *:* m`, `a` for everything.
fn device_rule(rule: &LinuxDeviceCgroup) -> Result<String, CgroupError> {
    let parsed = DeviceRule::parse(rule)?;
    let kind = match parsed.kind {
        Kind::Character => 'c',
        Kind::Block => 'b',
        Kind::All if parsed.is_universal() => return Ok("a".to_owned()),
        // The kernel takes `a` as all devices with all accesses, whatever follows.
        Kind::All => {
            return Err(device_rule::invalid(
                rule,
                "a rule for all types cannot name numbers or part of the accesses",
            ));
        }
    };
    let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
    let (major, minor) = (number(parsed.major), number(parsed.minor));
    Ok(format!("{kind} {major}:{minor} {}", parsed.access))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use oci_spec::runtime::{LinuxDeviceCgroupBuilder, LinuxDeviceType};

    #[test]
    fn writes_device_rules() {
        let rule = |typ, major: i64, minor: i64, access: &str| {
            device_rule(
                &LinuxDeviceCgroupBuilder::default()
                    .allow(true)
                    .typ(typ)
                    .major(major)
                    .minor(minor)
                    .access(access)
                    .build()
                    .unwrap(),
            )
        };
        assert_eq!(rule(LinuxDeviceType::C, 1, 3, "rwm").unwrap(), "c 1:3 rwm");
        assert_eq!(rule(LinuxDeviceType::B, -1, -1, "m").unwrap(), "b *:* m");
        assert_eq!(rule(LinuxDeviceType::A, -1, -1, "rwm").unwrap(), "a");
        assert_eq!(
            rule(LinuxDeviceType::C, 136, -1, "").unwrap(),
            "c 136:* rwm"
        );
        for bad in [
            rule(LinuxDeviceType::A, 1, -1, "rwm"),
            rule(LinuxDeviceType::C, 1, 3, "rx"),
            rule(LinuxDeviceType::A, -1, -1, "r"),
        ] {
            assert!(bad.unwrap_err().is_invalid_input());
        }
    }
}
