//! Capabilities (capabilities(7)): names, sets, and what a container gets.

use std::fmt;

use super::Privilege;

/// The capabilities by number, without their prefix (`include/uapi/linux/capability.h`, Linux 5.9 and later).
macro_rules! capabilities {
    ($($variant:ident = $name:literal,)*) => {
        /// A Linux capability; its value is the kernel's number.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        #[allow(missing_docs)] // The names are the kernel's own.
        pub enum Capability { $($variant,)* }

        impl Capability {
            const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The kernel's name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => concat!("CAP_", $name),)* }
            }
        }
    };
}

capabilities! {
    Chown = "CHOWN",
    DacOverride = "DAC_OVERRIDE",
    DacReadSearch = "DAC_READ_SEARCH",
    Fowner = "FOWNER",
    Fsetid = "FSETID",
    Kill = "KILL",
    Setgid = "SETGID",
    Setuid = "SETUID",
    Setpcap = "SETPCAP",
    LinuxImmutable = "LINUX_IMMUTABLE",
    NetBindService = "NET_BIND_SERVICE",
    NetBroadcast = "NET_BROADCAST",
    NetAdmin = "NET_ADMIN",
    NetRaw = "NET_RAW",
    IpcLock = "IPC_LOCK",
    IpcOwner = "IPC_OWNER",
    SysModule = "SYS_MODULE",
    SysRawio = "SYS_RAWIO",
    SysChroot = "SYS_CHROOT",
    SysPtrace = "SYS_PTRACE",
    SysPacct = "SYS_PACCT",
    SysAdmin = "SYS_ADMIN",
    SysBoot = "SYS_BOOT",
    SysNice = "SYS_NICE",
    SysResource = "SYS_RESOURCE",
    SysTime = "SYS_TIME",
    SysTtyConfig = "SYS_TTY_CONFIG",
    Mknod = "MKNOD",
    Lease = "LEASE",
    AuditWrite = "AUDIT_WRITE",
    AuditControl = "AUDIT_CONTROL",
    Setfcap = "SETFCAP",
    MacOverride = "MAC_OVERRIDE",
    MacAdmin = "MAC_ADMIN",
    Syslog = "SYSLOG",
    WakeAlarm = "WAKE_ALARM",
    BlockSuspend = "BLOCK_SUSPEND",
    AuditRead = "AUDIT_READ",
    Perfmon = "PERFMON",
    Bpf = "BPF",
    CheckpointRestore = "CHECKPOINT_RESTORE",
}

impl Capability {
    /// A name with or without `CAP_`, in any case.
    ///
    /// # Errors
    /// [`CapabilityError::Unknown`].
    pub fn parse(name: &str) -> Result<Self, CapabilityError> {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let found = Self::ALL.iter().find(|known| &known.name()[4..] == bare);
        found.copied().ok_or_else(|| CapabilityError::Unknown {
            name: name.chars().take(64).collect(),
        })
    }
}

/// Capabilities cannot be resolved.
#[derive(Debug, thiserror::Error)]
pub enum CapabilityError {
    /// No such capability.
    #[error(
        "unknown capability {name:?}; use a name of capabilities(7), with or without CAP_, or ALL"
    )]
    Unknown {
        /// As requested.
        name: String,
    },
    /// The daemon's own sets cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: &'static str,
        /// What the system answered.
        #[source]
        source: std::io::Error,
    },
    /// The daemon's own sets are not where proc(5) says.
    #[error("{path} has no {field}")]
    Parse {
        /// The file.
        path: &'static str,
        /// What was looked for.
        field: &'static str,
    },
}

/// A set of capabilities as the kernel's bit mask.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct CapabilitySet(u64);

impl CapabilitySet {
    /// None.
    pub const EMPTY: Self = Self(0);

    /// The fourteen that a container gets unless it asks otherwise, as with the peers.
    pub const CONTAINER_DEFAULT: Self = Self::of(&[
        Capability::Chown,
        Capability::DacOverride,
        Capability::Fsetid,
        Capability::Fowner,
        Capability::Mknod,
        Capability::NetRaw,
        Capability::Setgid,
        Capability::Setuid,
        Capability::Setfcap,
        Capability::Setpcap,
        Capability::NetBindService,
        Capability::SysChroot,
        Capability::Kill,
        Capability::AuditWrite,
    ]);

    const fn of(list: &[Capability]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < list.len() {
            bits |= 1 << list[at] as u8;
            at += 1;
        }
        Self(bits)
    }

    /// From the kernel's mask.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The kernel's mask.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether `capability` is in it.
    pub const fn contains(self, capability: Capability) -> bool {
        self.0 & (1 << capability as u8) != 0
    }

    /// With `capability`.
    #[must_use]
    pub const fn with(self, capability: Capability) -> Self {
        Self(self.0 | 1 << capability as u8)
    }

    /// Without `capability`.
    #[must_use]
    pub const fn without(self, capability: Capability) -> Self {
        Self(self.0 & !(1 << capability as u8))
    }

    /// In either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// In both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// In this one alone.
    #[must_use]
    pub const fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The names of those this program knows, by number.
    pub fn names(self) -> Vec<&'static str> {
        Capability::ALL
            .iter()
            .filter(|known| self.contains(**known))
            .map(|known| known.name())
            .collect()
    }
}

impl fmt::Debug for CapabilitySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x} {:?}", self.0, self.names())
    }
}

/// The five sets of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// What execve(2) can give at most.
    pub bounding: CapabilitySet,
    /// What is checked.
    pub effective: CapabilitySet,
    /// What may be made effective.
    pub permitted: CapabilitySet,
    /// Kept over execve(2) when the file has it too; only what ambient needs (CVE-2022-27652).
    pub inheritable: CapabilitySet,
    /// Kept over execve(2) by a user who is not root.
    pub ambient: CapabilitySet,
    /// Asked for, but this kernel or this daemon does not have it.
    pub withheld: CapabilitySet,
}

/// What a container asks for: names as CRI has them, `ALL` included.
#[derive(Clone, Copy, Debug, Default)]
pub struct CapabilityRequest<'a> {
    /// Beside the default ones.
    pub add: &'a [String],
    /// Not these.
    pub drop: &'a [String],
    /// Kept by users who are not root; in all five sets.
    pub add_ambient: &'a [String],
}

/// What a container gets. `ALL` in either list counts first (add, then drop), then single names are added, then
/// dropped: `add ALL, drop CHOWN` is all but one, `drop ALL, add CHOWN` is one.
///
/// # Errors
/// [`CapabilityError::Unknown`], for a privileged container too.
pub fn resolve(
    privilege: Privilege,
    request: &CapabilityRequest<'_>,
    available: CapabilitySet,
) -> Result<Capabilities, CapabilityError> {
    let add = Names::parse(request.add)?;
    let drop = Names::parse(request.drop)?;
    let ambient = Names::parse(request.add_ambient)?.within(available);
    let (wanted, ambient) = match privilege {
        Privilege::Privileged => (available.union(ambient), ambient),
        Privilege::Confined => {
            let start = if drop.all {
                CapabilitySet::EMPTY
            } else if add.all {
                available
            } else {
                CapabilitySet::CONTAINER_DEFAULT
            };
            let wanted = start.union(add.single).difference(drop.single);
            let ambient = ambient.difference(drop.single);
            (wanted.union(ambient), ambient)
        }
    };
    let given = wanted.intersection(available);
    let ambient = ambient.intersection(available);
    Ok(Capabilities {
        bounding: given,
        effective: given,
        permitted: given,
        inheritable: ambient,
        ambient,
        withheld: wanted.difference(available),
    })
}

/// A list of names, taken apart.
struct Names {
    all: bool,
    single: CapabilitySet,
}

impl Names {
    fn parse(names: &[String]) -> Result<Self, CapabilityError> {
        let mut parsed = Self {
            all: false,
            single: CapabilitySet::EMPTY,
        };
        for name in names {
            if name.eq_ignore_ascii_case("ALL") {
                parsed.all = true;
            } else {
                parsed.single = parsed.single.with(Capability::parse(name)?);
            }
        }
        Ok(parsed)
    }

    fn within(self, available: CapabilitySet) -> CapabilitySet {
        if self.all { available } else { self.single }
    }
}

/// What this kernel knows and this process may give: `cap_last_cap` and the bounding set.
///
/// # Errors
/// When /proc cannot be read.
pub fn available() -> Result<CapabilitySet, CapabilityError> {
    const LAST: &str = "/proc/sys/kernel/cap_last_cap";
    let text = std::fs::read_to_string(LAST)
        .map_err(|source| CapabilityError::Read { path: LAST, source })?;
    let last: u32 = text.trim().parse().map_err(|_| CapabilityError::Parse {
        path: LAST,
        field: "number",
    })?;
    let known = u64::MAX >> (63 - last.min(63));
    Ok(own_set("CapBnd:")?.intersection(CapabilitySet(known)))
}

/// What this process itself may do.
pub(super) fn effective() -> Result<CapabilitySet, CapabilityError> {
    own_set("CapEff:")
}

fn own_set(field: &'static str) -> Result<CapabilitySet, CapabilityError> {
    const STATUS: &str = "/proc/self/status";
    let text = std::fs::read_to_string(STATUS).map_err(|source| CapabilityError::Read {
        path: STATUS,
        source,
    })?;
    let value = text.lines().find_map(|line| line.strip_prefix(field));
    let bits = value.and_then(|value| u64::from_str_radix(value.trim(), 16).ok());
    bits.map(CapabilitySet).ok_or(CapabilityError::Parse {
        path: STATUS,
        field,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const MACHINE: CapabilitySet =
        CapabilitySet::from_bits(0x1ff_ffff_ffff).without(Capability::SysResource);

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    fn confined(add: &[&str], drop: &[&str], ambient: &[&str]) -> Capabilities {
        let (add, drop, ambient) = (names(add), names(drop), names(ambient));
        resolve(
            Privilege::Confined,
            &CapabilityRequest {
                add: &add,
                drop: &drop,
                add_ambient: &ambient,
            },
            MACHINE,
        )
        .unwrap()
    }

    #[test]
    fn numbers_are_the_kernels() {
        for (capability, number) in [
            (Capability::Chown, 0),
            (Capability::SysAdmin, 21),
            (Capability::SysResource, 24),
            (Capability::AuditRead, 37),
            (Capability::CheckpointRestore, 40),
        ] {
            assert_eq!(capability as u8, number, "{capability:?}");
        }
        for known in Capability::ALL {
            let theirs: caps::Capability = known.name().parse().unwrap();
            assert_eq!(theirs.index(), *known as u8, "{known:?}");
        }
        assert_eq!(CapabilitySet::CONTAINER_DEFAULT.bits(), 0xa804_25fb);
    }

    #[test]
    fn adds_and_drops() {
        let only = |capability| CapabilitySet::EMPTY.with(capability);
        let default = CapabilitySet::CONTAINER_DEFAULT;
        for (add, drop, expected) in [
            (&[][..], &[][..], default),
            (&["NET_ADMIN"], &[], default.with(Capability::NetAdmin)),
            (
                &["CAP_NET_ADMIN"],
                &["cap_chown"],
                default
                    .with(Capability::NetAdmin)
                    .without(Capability::Chown),
            ),
            (&["ALL"], &["CHOWN"], MACHINE.without(Capability::Chown)),
            (&["CHOWN"], &["ALL"], only(Capability::Chown)),
            (&["all"], &["ALL"], CapabilitySet::EMPTY),
            (&["CHOWN"], &["CHOWN"], default.without(Capability::Chown)),
            (&[], &["all"], CapabilitySet::EMPTY),
        ] {
            let sets = confined(add, drop, &[]);
            assert_eq!(
                (sets.bounding, sets.effective, sets.permitted),
                (expected, expected, expected),
                "+{add:?} -{drop:?}"
            );
            assert!(sets.inheritable.is_empty() && sets.ambient.is_empty());
        }
    }

    #[test]
    fn ambient_is_in_all_sets_unless_dropped() {
        let sets = confined(&[], &["ALL"], &["NET_BIND_SERVICE"]);
        let one = CapabilitySet::EMPTY.with(Capability::NetBindService);
        assert_eq!(
            (
                sets.bounding,
                sets.effective,
                sets.permitted,
                sets.inheritable,
                sets.ambient
            ),
            (one, one, one, one, one)
        );
        assert!(confined(&[], &["NET_RAW"], &["NET_RAW"]).ambient.is_empty());
    }

    #[test]
    fn gives_only_what_is_there() {
        let sets = confined(&["SYS_RESOURCE"], &[], &[]);
        assert_eq!(sets.bounding, CapabilitySet::CONTAINER_DEFAULT);
        assert_eq!(sets.withheld.names(), ["CAP_SYS_RESOURCE"]);
        let sets = resolve(
            Privilege::Privileged,
            &CapabilityRequest::default(),
            MACHINE,
        )
        .unwrap();
        assert_eq!(sets.bounding, MACHINE);
        assert!(sets.withheld.is_empty());
    }

    #[test]
    fn refuses_unknown_names() {
        for bad in [
            "",
            "CAP_",
            "NET ADMIN",
            "CAP_CAP_CHOWN",
            "ALLL",
            "SYS_ADMIN\n",
        ] {
            let add = names(&[bad]);
            let request = CapabilityRequest {
                add: &add,
                ..Default::default()
            };
            for privilege in [Privilege::Confined, Privilege::Privileged] {
                let error = resolve(privilege, &request, MACHINE).unwrap_err();
                assert!(
                    error.to_string().contains("unknown capability"),
                    "{bad:?}: {error}"
                );
            }
        }
    }

    #[test]
    fn reads_this_process() {
        let available = available().unwrap();
        assert_eq!(available.bits() >> 41, 0);
        assert!(effective().unwrap().difference(available).is_empty());
    }
}
