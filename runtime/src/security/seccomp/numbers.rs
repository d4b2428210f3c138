//! Which number a call has in which binary interface.

use std::collections::HashMap;
use std::sync::LazyLock;

use oci_spec::runtime::Arch;

/// A system call interface of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Abi {
    X86_64,
    X86,
    /// 32-bit pointers on x86_64: the same architecture value, numbers with bit 30 set.
    X32,
    Aarch64,
    Arm,
}

/// Set in the numbers of x32 (`__X32_SYSCALL_BIT`).
pub(super) const X32_BIT: u32 = 0x4000_0000;
/// 32-bit ARM's private calls start here (`__ARM_NR_BASE`).
pub(super) const ARM_PRIVATE: u32 = 0x000f_0000;

impl Abi {
    pub(super) const ALL: [Self; 5] =
        [Self::X86_64, Self::X86, Self::X32, Self::Aarch64, Self::Arm];

    /// The interface this program itself uses.
    #[cfg(target_arch = "x86_64")]
    pub(super) const NATIVE: Self = Self::X86_64;
    /// The interface this program itself uses.
    #[cfg(target_arch = "aarch64")]
    pub(super) const NATIVE: Self = Self::Aarch64;

    /// The interface that a profile's architecture names, if this program knows it.
    pub(super) fn from_oci(arch: Arch) -> Option<Self> {
        match arch {
            Arch::ScmpArchNative => Some(Self::NATIVE),
            Arch::ScmpArchX86_64 => Some(Self::X86_64),
            Arch::ScmpArchX86 => Some(Self::X86),
            Arch::ScmpArchX32 => Some(Self::X32),
            Arch::ScmpArchAarch64 => Some(Self::Aarch64),
            Arch::ScmpArchArm => Some(Self::Arm),
            _ => None,
        }
    }

    /// What the kernel puts into `seccomp_data.arch` (`AUDIT_ARCH_*`).
    pub(super) fn audit_arch(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// Whether arguments have 32 bits; the kernel then fills the upper half with zeros. x32 passes whole registers.
    pub(super) fn has_short_arguments(self) -> bool {
        matches!(self, Self::X86 | Self::Arm)
    }

    /// The number of `name`.
    pub(super) fn number(self, name: &str) -> Option<u32> {
        TABLES[self as usize].get(name).copied()
    }

    /// 32-bit x86 can also reach some calls through one of two multiplexers: its number, and the sub-call in the first
    /// argument.
    pub(super) fn multiplexed(self, name: &str) -> Option<Multiplexed> {
        if self != Self::X86 {
            return None;
        }
        let find = |list: &[(&str, u64)]| {
            list.iter()
                .find(|(known, _)| *known == name)
                .map(|(_, call)| *call)
        };
        let socketcall = find(&SOCKETCALL).map(|call| ("socketcall", call, u64::MAX));
        // The upper half of ipc's first argument is a version.
        let (multiplexer, call, mask) =
            socketcall.or_else(|| find(&IPC).map(|call| ("ipc", call, 0xffff)))?;
        Some(Multiplexed {
            number: self.number(multiplexer)?,
            call,
            mask,
        })
    }
}

/// A call reached through `socketcall` or `ipc`.
pub(super) struct Multiplexed {
    pub(super) number: u32,
    pub(super) call: u64,
    pub(super) mask: u64,
}

/// Whether any interface knows `name`.
pub(super) fn is_known(name: &str) -> bool {
    Abi::ALL
        .iter()
        .any(|abi| abi.number(name).is_some() || abi.multiplexed(name).is_some())
}

type Table = HashMap<&'static str, u32>;

static TABLES: LazyLock<[Table; 5]> = LazyLock::new(|| Abi::ALL.map(table));

macro_rules! names {
    ($arch:ident) => {{
        let last = syscalls::$arch::Sysno::last();
        // iter() leaves the last one out.
        syscalls::$arch::Sysno::iter()
            .chain([last])
            .map(|call| (bare(call.name()), call.id().unsigned_abs()))
            .collect()
    }};
}

fn table(abi: Abi) -> Table {
    match abi {
        Abi::X86_64 => names!(x86_64),
        Abi::X86 => names!(x86),
        Abi::X32 => x32(),
        Abi::Aarch64 => names!(aarch64),
        Abi::Arm => {
            let mut table: Table = names!(arm);
            table.extend(ARM_PRIVATE_CALLS.map(|(name, offset)| (name, ARM_PRIVATE + offset)));
            // One call, two names (arch/arm/include/uapi/asm/unistd.h).
            table.insert("sync_file_range2", 341);
            table
        }
    }
}

/// The table has `break` as the Rust identifier `r#break`.
fn bare(name: &'static str) -> &'static str {
    name.strip_prefix("r#").unwrap_or(name)
}

/// x32 has the numbers of x86_64 but for calls whose structures differ (arch/x86/entry/syscalls/syscall_64.tbl, 512 on);
/// the table of x86_64 has none of those.
fn x32() -> Table {
    let mut table: Table = names!(x86_64);
    for call in [
        "create_module",
        "get_kernel_syms",
        "query_module",
        "uselib",
        "_sysctl",
        "nfsservctl",
        "epoll_ctl_old",
        "epoll_wait_old",
        "vserver",
        "set_thread_area",
        "get_thread_area",
    ] {
        table.remove(call);
    }
    for number in table.values_mut() {
        *number |= X32_BIT;
    }
    for (call, number) in X32_OWN.iter().zip(512..) {
        table.insert(call, number | X32_BIT);
    }
    table
}

const X32_OWN: [&str; 36] = [
    "rt_sigaction",
    "rt_sigreturn",
    "ioctl",
    "readv",
    "writev",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "execve",
    "ptrace",
    "rt_sigpending",
    "rt_sigtimedwait",
    "rt_sigqueueinfo",
    "sigaltstack",
    "timer_create",
    "mq_notify",
    "kexec_load",
    "waitid",
    "set_robust_list",
    "get_robust_list",
    "vmsplice",
    "move_pages",
    "preadv",
    "pwritev",
    "rt_tgsigqueueinfo",
    "recvmmsg",
    "sendmmsg",
    "process_vm_readv",
    "process_vm_writev",
    "setsockopt",
    "getsockopt",
    "io_setup",
    "io_submit",
    "execveat",
    "preadv2",
    "pwritev2",
];

const ARM_PRIVATE_CALLS: [(&str, u32); 5] = [
    ("breakpoint", 1),
    ("cacheflush", 2),
    ("usr26", 3),
    ("usr32", 4),
    ("set_tls", 5),
];

/// `include/uapi/linux/net.h`.
const SOCKETCALL: [(&str, u64); 20] = [
    ("socket", 1),
    ("bind", 2),
    ("connect", 3),
    ("listen", 4),
    ("accept", 5),
    ("getsockname", 6),
    ("getpeername", 7),
    ("socketpair", 8),
    ("send", 9),
    ("recv", 10),
    ("sendto", 11),
    ("recvfrom", 12),
    ("shutdown", 13),
    ("setsockopt", 14),
    ("getsockopt", 15),
    ("sendmsg", 16),
    ("recvmsg", 17),
    ("accept4", 18),
    ("recvmmsg", 19),
    ("sendmmsg", 20),
];

/// `include/uapi/linux/ipc.h`.
const IPC: [(&str, u64); 12] = [
    ("semop", 1),
    ("semget", 2),
    ("semctl", 3),
    ("semtimedop", 4),
    ("msgsnd", 11),
    ("msgrcv", 12),
    ("msgget", 13),
    ("msgctl", 14),
    ("shmat", 21),
    ("shmdt", 22),
    ("shmget", 23),
    ("shmctl", 24),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_kernels() {
        for (abi, name, number) in [
            (Abi::X86_64, "read", 0),
            (Abi::X86_64, "clone3", 435),
            (Abi::X86_64, "file_setattr", 469),
            (Abi::X86, "read", 3),
            (Abi::X86, "break", 17),
            (Abi::X86, "socketcall", 102),
            (Abi::X32, "read", X32_BIT),
            (Abi::X32, "execve", X32_BIT | 520),
            (Abi::X32, "pwritev2", X32_BIT | 547),
            (Abi::Aarch64, "openat", 56),
            (Abi::Aarch64, "clone", 220),
            (Abi::Arm, "openat", 322),
            (Abi::Arm, "set_tls", 0xf0005),
        ] {
            assert_eq!(abi.number(name), Some(number), "{abi:?} {name}");
        }
        assert_eq!(Abi::X86_64.number("read"), Some(libc::SYS_read as u32));
        assert_eq!(Abi::Aarch64.number("open"), None);
        assert!(
            is_known("recv")
                && is_known("cacheflush")
                && !is_known("no_such_call")
                && !is_known("r#break")
        );
    }
}
