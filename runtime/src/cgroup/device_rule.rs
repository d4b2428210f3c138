//! A device rule of an OCI specification, checked (config-linux.md, "Allowed Device list").

use std::fmt;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::CgroupError;

/// What a rule does with what it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Allow,
    Deny,
}

/// Which devices a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    All,
    Character,
    Block,
}

/// A set of accesses, in the bits of the kernel's `BPF_DEVCG_ACC_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Access(u8);

impl Access {
    /// Making a node, reading, writing.
    pub(super) const ALL: Self = Self(7);
    const LETTERS: [(u8, char); 3] = [(2, 'r'), (4, 'w'), (1, 'm')];

    /// Nothing for a letter that stands for no access. No letters are all.
    fn parse(letters: &str) -> Option<Self> {
        if letters.is_empty() {
            return Some(Self::ALL);
        }
        let bit = |letter| {
            let mut known = Self::LETTERS.iter();
            known
                .find(|(_, known)| *known == letter)
                .map(|(bit, _)| *bit)
        };
        letters
            .chars()
            .try_fold(0, |bits, letter| Some(bits | bit(letter)?))
            .map(Self)
    }

    pub(super) const fn bits(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters = Self::LETTERS.iter().filter(|(bit, _)| self.0 & bit != 0);
        letters
            .map(|(_, letter)| *letter)
            .collect::<String>()
            .fmt(f)
    }
}

/// A rule. An absent number stands for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DeviceRule {
    pub(super) effect: Effect,
    pub(super) kind: Kind,
    pub(super) major: Option<u32>,
    pub(super) minor: Option<u32>,
    pub(super) access: Access,
}

impl DeviceRule {
    /// # Errors
    /// [`CgroupError::InvalidValue`] for letters that are no access, numbers that no device has, and FIFOs.
    pub(super) fn parse(rule: &LinuxDeviceCgroup) -> Result<Self, CgroupError> {
        let letters = rule.access().as_deref().unwrap_or_default();
        let access = Access::parse(letters)
            .ok_or_else(|| invalid(rule, "access is not made of r, w and m"))?;
        let kind = match rule.typ().unwrap_or_default() {
            LinuxDeviceType::A => Kind::All,
            LinuxDeviceType::B => Kind::Block,
            LinuxDeviceType::C | LinuxDeviceType::U => Kind::Character,
            LinuxDeviceType::P => return Err(invalid(rule, "a FIFO is not a device")),
        };
        // Negative numbers stand for all, as in runc.
        let number = |number: Option<i64>| {
            let number = number.filter(|number| *number >= 0).map(u32::try_from);
            number
                .transpose()
                .map_err(|_| invalid(rule, "a device number has 32 bits"))
        };
        let effect = if rule.allow() {
            Effect::Allow
        } else {
            Effect::Deny
        };
        Ok(Self {
            effect,
            kind,
            major: number(rule.major())?,
            minor: number(rule.minor())?,
            access,
        })
    }

    /// Whether every access to every device is meant.
    pub(super) fn is_universal(&self) -> bool {
        let Self {
            kind,
            major,
            minor,
            access,
            ..
        } = self;
        *kind == Kind::All && major.is_none() && minor.is_none() && *access == Access::ALL
    }
}

pub(super) fn invalid(rule: &LinuxDeviceCgroup, reason: &'static str) -> CgroupError {
    CgroupError::InvalidValue {
        field: "devices",
        value: rule.to_string(),
        reason,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use oci_spec::runtime::LinuxDeviceCgroupBuilder;

    use super::*;

    #[test]
    fn rules_are_checked() {
        let rule = |kind, major: i64, access: &str| {
            let rule = LinuxDeviceCgroupBuilder::default()
                .allow(true)
                .typ(kind)
                .major(major)
                .minor(-1)
                .access(access)
                .build()
                .unwrap();
            DeviceRule::parse(&rule).ok()
        };
        let expected = |kind, major, bits| {
            Some(DeviceRule {
                effect: Effect::Allow,
                kind,
                major,
                minor: None,
                access: Access(bits),
            })
        };
        for (found, expected) in [
            (
                rule(LinuxDeviceType::C, 1, "rm"),
                expected(Kind::Character, Some(1), 3),
            ),
            (
                rule(LinuxDeviceType::U, 1, "w"),
                expected(Kind::Character, Some(1), 4),
            ),
            (
                rule(LinuxDeviceType::B, -1, ""),
                expected(Kind::Block, None, 7),
            ),
            (
                rule(LinuxDeviceType::A, -1, "rwm"),
                expected(Kind::All, None, 7),
            ),
            (rule(LinuxDeviceType::P, 1, "r"), None),
            (rule(LinuxDeviceType::C, 1, "rx"), None),
            (rule(LinuxDeviceType::C, 1 << 32, "r"), None),
        ] {
            assert_eq!(found, expected);
        }
        assert_eq!(Access(6).to_string(), "rw");
    }
}
