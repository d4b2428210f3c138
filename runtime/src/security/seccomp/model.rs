//! Random profiles: programs run by an interpreter against a naive reading of the profile.
#![allow(clippy::unwrap_used)]

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompBuilder, LinuxSeccompOperator as Op, LinuxSyscall, LinuxSyscallBuilder,
};
use proptest::prelude::*;

use super::numbers::{ARM_PRIVATE, Abi, X32_BIT};
use super::*;
use crate::security::capabilities::CapabilitySet;

const ENOSYS: u32 = 0x0005_0000 | libc::ENOSYS as u32;

/// What the kernel does with a program (kernel/seccomp.c, net/core/filter.c).
pub(super) fn run(program: &[u8], arch: u32, number: u32, args: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend(number.to_le_bytes());
    data.extend(arch.to_le_bytes());
    data.extend(0u64.to_le_bytes());
    args.iter().for_each(|arg| data.extend(arg.to_le_bytes()));
    let word = |bytes: &[u8]| u32::from_le_bytes(bytes[..4].try_into().unwrap());
    let (mut at, mut a) = (0usize, 0u32);
    loop {
        let code = &program[at * 8..at * 8 + 8];
        let (k, jt, jf) = (word(&code[4..]), usize::from(code[2]), usize::from(code[3]));
        let jump = |taken: bool| if taken { jt } else { jf };
        at += 1 + match u16::from_le_bytes([code[0], code[1]]) {
            0x20 => {
                a = word(&data[k as usize..]);
                0
            }
            0x54 => {
                a &= k;
                0
            }
            0x05 => k as usize,
            0x15 => jump(a == k),
            0x25 => jump(a > k),
            0x35 => jump(a >= k),
            0x06 => return k,
            other => panic!("instruction {other:#x}"),
        };
    }
}

fn matches(arg: &LinuxSeccompArg, abi: Abi, args: [u64; 6]) -> bool {
    let (have, value) = (args[arg.index()], arg.value());
    let short = abi.has_short_arguments();
    let equal = if short && value >> 32 == 0xffff_ffff {
        value & 0xffff_ffff
    } else {
        value
    };
    match arg.op() {
        Op::ScmpCmpNe => have != equal,
        Op::ScmpCmpEq => have == equal,
        Op::ScmpCmpLt => have < value,
        Op::ScmpCmpLe => have <= value,
        Op::ScmpCmpGe => have >= value,
        Op::ScmpCmpGt => have > value,
        Op::ScmpCmpMaskedEq => {
            let mask = if short { value & 0xffff_ffff } else { value };
            have & mask == arg.value_two().unwrap_or(0) & mask
        }
    }
}

/// The documented precedence, read off the profile directly.
fn expected(profile: &LinuxSeccomp, abi: Abi, number: u32, args: [u64; 6]) -> u32 {
    let default = profile.default_action().as_u32(profile.default_errno_ret());
    let rules: Vec<&LinuxSyscall> = profile.syscalls().iter().flatten().collect();
    let names = |rule: &LinuxSyscall| {
        rule.names()
            .iter()
            .filter_map(|name| abi.number(name))
            .collect::<Vec<_>>()
    };
    let of_call = || rules.iter().filter(|rule| names(rule).contains(&number));
    let has_args = |rule: &LinuxSyscall| rule.args().as_ref().is_some_and(|args| !args.is_empty());
    let value = |rule: &LinuxSyscall| rule.action().as_u32(rule.errno_ret());
    let conditional = of_call().find(|rule| {
        has_args(rule)
            && rule
                .args()
                .iter()
                .flatten()
                .all(|arg| matches(arg, abi, args))
    });
    if let Some(rule) = conditional.or_else(|| of_call().find(|rule| !has_args(rule))) {
        return value(rule);
    }
    if of_call().next().is_some() {
        return default;
    }
    let known = rules
        .iter()
        .flat_map(|rule| names(rule))
        .filter(|number| abi != Abi::Arm || *number < ARM_PRIVATE);
    let newer = known.max().is_some_and(|highest| number > highest)
        && (abi != Abi::Arm || number < ARM_PRIVATE);
    let denies = !matches!(
        profile.default_action(),
        Action::ScmpActAllow | Action::ScmpActLog | Action::ScmpActTrace
    );
    if newer && denies { ENOSYS } else { default }
}

fn action() -> impl Strategy<Value = (Action, Option<u32>)> {
    prop_oneof![
        Just((Action::ScmpActAllow, None)),
        Just((Action::ScmpActKillProcess, None)),
        Just((Action::ScmpActKillThread, None)),
        Just((Action::ScmpActTrap, None)),
        Just((Action::ScmpActLog, None)),
        (0u32..4096).prop_map(|errno| (Action::ScmpActErrno, Some(errno))),
        Just((Action::ScmpActErrno, None)),
        (0u32..0x1_0000).prop_map(|data| (Action::ScmpActTrace, Some(data))),
    ]
}

/// Values around the halves' borders, where 64-bit comparisons go wrong.
fn value() -> impl Strategy<Value = u64> {
    let part = || {
        prop_oneof![
            Just(0u32),
            Just(1),
            Just(2),
            Just(0x7fff_ffff),
            Just(0x8000_0000),
            Just(u32::MAX),
            any::<u32>()
        ]
    };
    (part(), part()).prop_map(|(high, low)| u64::from(high) << 32 | u64::from(low))
}

fn arg(index: usize) -> impl Strategy<Value = LinuxSeccompArg> {
    let op = prop::sample::select(vec![
        Op::ScmpCmpNe,
        Op::ScmpCmpLt,
        Op::ScmpCmpLe,
        Op::ScmpCmpEq,
        Op::ScmpCmpGe,
        Op::ScmpCmpGt,
        Op::ScmpCmpMaskedEq,
    ]);
    (op, value(), value()).prop_map(move |(op, value, two)| {
        LinuxSeccompArgBuilder::default()
            .index(index)
            .op(op)
            .value(value)
            .value_two(two)
            .build()
            .unwrap()
    })
}

const NAMES: [&str; 12] = [
    "read", "write", "open", "openat", "clone", "mmap", "ioctl", "execve", "recvmsg", "futex",
    "set_tls", "statx",
];

fn syscall() -> impl Strategy<Value = LinuxSyscall> {
    let args = prop_oneof![
        Just(vec![]).boxed(),
        arg(0).prop_map(|one| vec![one]).boxed(),
        (arg(1), arg(5))
            .prop_map(|(one, two)| vec![one, two])
            .boxed(),
    ];
    (
        prop::sample::subsequence(NAMES.to_vec(), 1..4),
        action(),
        args,
    )
        .prop_map(|(names, (action, errno), args)| {
            let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
            let mut rule = LinuxSyscallBuilder::default()
                .names(names)
                .action(action)
                .args(args)
                .build()
                .unwrap();
            rule.set_errno_ret(errno);
            rule
        })
}

pub(super) fn all_arches() -> Vec<Arch> {
    vec![
        Arch::ScmpArchX86_64,
        Arch::ScmpArchX86,
        Arch::ScmpArchX32,
        Arch::ScmpArchAarch64,
        Arch::ScmpArchArm,
    ]
}

fn profile() -> impl Strategy<Value = LinuxSeccomp> {
    (action(), prop::collection::vec(syscall(), 0..12)).prop_map(|((action, errno), syscalls)| {
        let mut profile = LinuxSeccompBuilder::default()
            .default_action(action)
            .architectures(all_arches())
            .syscalls(syscalls)
            .build()
            .unwrap();
        profile.set_default_errno_ret(errno);
        profile
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn does_what_the_profile_says(profile in profile(), calls in prop::collection::vec((prop::sample::select(NAMES.to_vec()), value(), value(), value(), any::<u16>()), 30)) {
        let program = match compile(&profile) {
            Ok(program) => program,
            Err(SeccompError::Contradiction { .. }) => return Ok(()),
            Err(error) => panic!("{error}"),
        };
        prop_assert!(program.unknown.is_empty());
        let constants: Vec<u64> = profile.syscalls().iter().flatten().flat_map(|rule| rule.args().iter().flatten().map(|arg| arg.value())).collect();
        for (at, (name, first, second, last, odd)) in calls.into_iter().enumerate() {
            for abi in Abi::ALL {
                let base = if abi == Abi::X32 { X32_BIT } else { 0 };
                let number = abi.number(name).filter(|_| odd % 8 != 0).unwrap_or(base + u32::from(odd));
                if abi == Abi::X86 && ["socketcall", "ipc"].iter().any(|name| abi.number(name) == Some(number)) {
                    continue; // Has a test of its own.
                }
                // Often exactly what a rule compares with, or its neighbour.
                let near = |value: u64, shift: usize| match constants.get((at + shift) % constants.len().max(1)) {
                    Some(constant) if odd % 3 != 0 => constant.wrapping_add(u64::from(odd % 3)).wrapping_sub(1),
                    _ => value,
                };
                let cut = |value: u64| if abi.has_short_arguments() { value & 0xffff_ffff } else { value };
                let args = [cut(near(first, 0)), cut(near(second, 1)), 3, 4, 5, cut(near(last, 2))];
                let given = run(&program.bytes, abi.audit_arch(), number, args);
                prop_assert_eq!(given, expected(&profile, abi, number, args), "{:?} {} {:x?}", abi, number, args);
            }
        }
    }

    #[test]
    fn profiles_never_panic(json in "[\\[\\]{}:,\"a-zA-Z_0-9 ]{0,200}") {
        let _ = parse_profile(json.as_bytes(), &ProfileHost::new(CapabilitySet::EMPTY));
    }
}
