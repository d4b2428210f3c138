//! The device nodes every container has, and the device rules of its cgroup.

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::Privilege;

/// A character device node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceNode {
    /// In the container.
    pub path: &'static str,
    /// Driver number.
    pub major: u32,
    /// Number within the driver.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
}

const fn node(path: &'static str, major: u32, minor: u32) -> DeviceNode {
    DeviceNode {
        path,
        major,
        minor,
        mode: 0o666,
    }
}

/// The nodes that the OCI runtime specification demands (config-linux.md, default devices), without the terminal's.
pub const DEFAULT: [DeviceNode; 6] = [
    node("/dev/null", 1, 3),
    node("/dev/zero", 1, 5),
    node("/dev/full", 1, 7),
    node("/dev/random", 1, 8),
    node("/dev/urandom", 1, 9),
    node("/dev/tty", 5, 0),
];

/// The rules of the v1 devices controller, in their order. Confined: nothing but making nodes, the default nodes and
/// terminals. Devices of the request are rules of their own, after these.
pub fn rules(privilege: Privilege) -> Vec<LinuxDeviceCgroup> {
    if privilege == Privilege::Privileged {
        return vec![rule(Access::Allow, LinuxDeviceType::A, None, None, "rwm")];
    }
    let allow = |kind, major, minor, access| rule(Access::Allow, kind, major, minor, access);
    let mut rules = vec![
        rule(Access::Deny, LinuxDeviceType::A, None, None, "rwm"),
        // A node that may be made may still not be opened.
        allow(LinuxDeviceType::C, None, None, "m"),
        allow(LinuxDeviceType::B, None, None, "m"),
    ];
    for DeviceNode { major, minor, .. } in DEFAULT {
        rules.push(allow(LinuxDeviceType::C, Some(major), Some(minor), "rwm"));
    }
    rules.push(allow(LinuxDeviceType::C, Some(136), None, "rwm")); // /dev/pts/*
    rules.push(allow(LinuxDeviceType::C, Some(5), Some(2), "rwm")); // /dev/ptmx
    rules.push(allow(LinuxDeviceType::C, Some(5), Some(1), "rwm")); // /dev/console
    rules
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Allow,
    Deny,
}

fn rule(
    effect: Access,
    kind: LinuxDeviceType,
    major: Option<u32>,
    minor: Option<u32>,
    access: &str,
) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(effect == Access::Allow)
        .set_typ(Some(kind))
        .set_major(major.map(i64::from))
        .set_minor(minor.map(i64::from))
        .set_access(Some(access.to_owned()));
    rule
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confined_denies_first() {
        let rules: Vec<String> = rules(Privilege::Confined)
            .iter()
            .map(|rule| format!("{} {rule}", if rule.allow() { "allow" } else { "deny" }))
            .collect();
        let expected = [
            "deny a *:* rwm",
            "allow c *:* m",
            "allow b *:* m",
            "allow c 1:3 rwm",
            "allow c 1:5 rwm",
            "allow c 1:7 rwm",
            "allow c 1:8 rwm",
            "allow c 1:9 rwm",
            "allow c 5:0 rwm",
            "allow c 136:* rwm",
            "allow c 5:2 rwm",
            "allow c 5:1 rwm",
        ];
        assert_eq!(rules, expected);
    }

    #[test]
    fn privileged_allows_all() {
        let rules = rules(Privilege::Privileged);
        assert!(rules.len() == 1 && rules[0].allow() && rules[0].to_string() == "a *:* rwm");
    }
}
