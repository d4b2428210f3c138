//! What programs do, by table and by the kernel.
#![allow(unsafe_code)] // Loading a filter and calling by number has no safe form.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::model::{all_arches, run};
use super::numbers::{Abi, X32_BIT};
use super::*;
use crate::security::capabilities::{Capability, CapabilitySet};
use nix::errno::Errno;
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompBuilder, LinuxSeccompOperator as Op, LinuxSyscall, LinuxSyscallBuilder,
};
use podwright_instructions::counted;

const ALLOW: u32 = 0x7fff_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
const ERRNO: u32 = 0x0005_0000;
const EPERM: u32 = ERRNO | libc::EPERM as u32;
const ENOSYS: u32 = ERRNO | libc::ENOSYS as u32;

fn rule(names: &[&str], action: Action, args: Vec<LinuxSeccompArg>) -> LinuxSyscall {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    LinuxSyscallBuilder::default()
        .names(names)
        .action(action)
        .args(args)
        .build()
        .unwrap()
}

fn equals(index: usize, value: u64) -> LinuxSeccompArg {
    LinuxSeccompArgBuilder::default()
        .index(index)
        .value(value)
        .op(Op::ScmpCmpEq)
        .build()
        .unwrap()
}

fn allowing(syscalls: Vec<LinuxSyscall>) -> LinuxSeccomp {
    LinuxSeccompBuilder::default()
        .default_action(Action::ScmpActAllow)
        .architectures(all_arches())
        .syscalls(syscalls)
        .build()
        .unwrap()
}

#[test]
fn instructions_of_the_default_profile() {
    let program = counted(|| compile(&default_profile(CapabilitySet::EMPTY)));
    assert!(!program.unwrap().bytes.is_empty());
}

#[test]
fn unknown_architectures_end_the_process() {
    let profile = LinuxSeccompBuilder::default()
        .default_action(Action::ScmpActAllow)
        .architectures(vec![Arch::ScmpArchX86_64])
        .build()
        .unwrap();
    let program = compile(&profile).unwrap();
    let x86_64 = Abi::X86_64.audit_arch();
    for (arch, number, expected) in [
        (x86_64, 0, ALLOW),
        (x86_64, 5000, ALLOW),
        (x86_64, X32_BIT, KILL_PROCESS),
        (x86_64, X32_BIT | 520, KILL_PROCESS),
        (x86_64, u32::MAX, ALLOW),
        (Abi::X86.audit_arch(), 3, KILL_PROCESS),
        (Abi::Aarch64.audit_arch(), 0, KILL_PROCESS),
        (0, 0, KILL_PROCESS),
    ] {
        assert_eq!(
            run(&program.bytes, arch, number, [0; 6]),
            expected,
            "{arch:#x} {number:#x}"
        );
    }
    let none = LinuxSeccompBuilder::default()
        .architectures(vec![Arch::ScmpArchS390x])
        .build()
        .unwrap();
    assert!(matches!(
        compile(&none),
        Err(SeccompError::Architecture { .. })
    ));
}

#[test]
fn long_chains_jump_far() {
    let many: Vec<LinuxSyscall> = (0..300)
        .map(|value| {
            rule(
                &["read"],
                Action::ScmpActTrap,
                vec![equals(1, value * 0x1_0000_0001)],
            )
        })
        .collect();
    let mut profile = allowing(many);
    profile.set_architectures(Some(vec![Arch::ScmpArchX86_64]));
    let program = compile(&profile).unwrap();
    for value in [0, 1, 150, 299] {
        assert_eq!(
            run(
                &program.bytes,
                Abi::X86_64.audit_arch(),
                0,
                [9, value * 0x1_0000_0001, 0, 0, 0, 0]
            ),
            0x0003_0000
        );
        assert_eq!(
            run(
                &program.bytes,
                Abi::X86_64.audit_arch(),
                0,
                [9, value * 0x1_0000_0001 + 1, 0, 0, 0, 0]
            ),
            ALLOW
        );
    }
    assert_eq!(
        run(&program.bytes, Abi::X86_64.audit_arch(), 1, [0; 6]),
        ALLOW
    );
    let too_many: Vec<LinuxSyscall> = (0..2000)
        .map(|value| rule(&["read"], Action::ScmpActTrap, vec![equals(1, value)]))
        .collect();
    assert!(matches!(
        compile(&allowing(too_many)),
        Err(SeccompError::TooComplex { .. })
    ));
}

#[test]
fn tells_contradictions_overlaps_and_unknown_names() {
    let twice = |a, b| {
        allowing(vec![
            rule(&["read"], Action::ScmpActTrap, a),
            rule(&["read"], Action::ScmpActErrno, b),
        ])
    };
    for args in [vec![], vec![equals(0, 1)], vec![equals(0, 1), equals(2, 3)]] {
        let reversed = args.iter().rev().copied().collect();
        let error = compile(&twice(args, reversed)).unwrap_err();
        assert!(
            error.to_string().contains("two rules for read")
                && error.to_string().contains("SCMP_ACT_TRAP"),
            "{error}"
        );
    }
    assert!(
        compile(&twice(vec![equals(0, 1)], vec![equals(0, 2)]))
            .unwrap()
            .overlaps
            .is_empty()
    );
    let program = compile(&twice(vec![equals(0, 1)], vec![equals(1, 2)])).unwrap();
    let expected = Overlap {
        syscall: "read".into(),
        first: "SCMP_ACT_TRAP".into(),
        second: "SCMP_ACT_ERRNO 1".into(),
    };
    assert_eq!(program.overlaps, [expected]);
    assert_eq!(
        run(
            &program.bytes,
            Abi::X86_64.audit_arch(),
            0,
            [1, 2, 0, 0, 0, 0]
        ),
        0x0003_0000,
        "the first listed counts"
    );
    let program = compile(&allowing(vec![rule(
        &["no_such", "read", "other"],
        Action::ScmpActTrap,
        vec![],
    )]))
    .unwrap();
    assert_eq!(program.unknown, ["no_such", "other"]);
    let notify = allowing(vec![rule(&["read"], Action::ScmpActNotify, vec![])]);
    assert!(matches!(compile(&notify), Err(SeccompError::Notify)));
    let index = allowing(vec![rule(
        &["read"],
        Action::ScmpActTrap,
        vec![equals(6, 0)],
    )]);
    assert!(matches!(compile(&index), Err(SeccompError::Field { .. })));
}

#[test]
fn one_argument_twice_means_either() {
    let program = compile(&allowing(vec![rule(
        &["read"],
        Action::ScmpActTrap,
        vec![equals(0, 1), equals(0, 2)],
    )]))
    .unwrap();
    let given = |value| {
        run(
            &program.bytes,
            Abi::X86_64.audit_arch(),
            0,
            [value, 0, 0, 0, 0, 0],
        )
    };
    assert_eq!(
        [given(1), given(2), given(3)],
        [0x0003_0000, 0x0003_0000, ALLOW]
    );
}

#[test]
fn multiplexed_calls_are_covered() {
    let program = compile(&allowing(vec![rule(
        &["socket", "msgget"],
        Action::ScmpActTrap,
        vec![],
    )]))
    .unwrap();
    let given = |name, first| {
        run(
            &program.bytes,
            Abi::X86.audit_arch(),
            Abi::X86.number(name).unwrap(),
            [first, 0, 0, 0, 0, 0],
        )
    };
    let trap = 0x0003_0000;
    assert_eq!(
        [
            given("socket", 0),
            given("socketcall", 1),
            given("socketcall", 2)
        ],
        [trap, trap, ALLOW]
    );
    assert_eq!(
        [
            given("ipc", 13),
            given("ipc", 1 << 16 | 13),
            given("ipc", 14)
        ],
        [trap, trap, ALLOW]
    );
}

#[test]
fn the_built_in_profile() {
    let native = |program: &Program, name, first| {
        run(
            &program.bytes,
            Abi::X86_64.audit_arch(),
            Abi::X86_64.number(name).unwrap(),
            [first, 0, 0, 0, 0, 0],
        )
    };
    let none = compile(&default_profile(CapabilitySet::EMPTY)).unwrap();
    let admin = compile(&default_profile(
        CapabilitySet::EMPTY.with(Capability::SysAdmin),
    ))
    .unwrap();
    assert!(
        none.unknown.is_empty() && admin.unknown.is_empty(),
        "{:?}",
        none.unknown
    );
    assert!(none.overlaps.is_empty() && admin.overlaps.is_empty());
    let new_user = libc::CLONE_NEWUSER as u64;
    for (name, first, plain, with_admin) in [
        ("read", 0, ALLOW, ALLOW),
        ("mount", 0, EPERM, ALLOW),
        ("bpf", 0, EPERM, ALLOW),
        ("unshare", 0, EPERM, ALLOW),
        ("clone", 0x11, ALLOW, ALLOW),
        ("clone", new_user | 0x11, EPERM, ALLOW),
        ("clone3", 0, ENOSYS, ALLOW),
        ("socket", 1, ALLOW, ALLOW),
        ("socket", 40, EPERM, EPERM),
        ("personality", 8, ALLOW, ALLOW),
        ("personality", 0x0040_0000, EPERM, EPERM),
        ("io_uring_setup", 0, EPERM, EPERM),
        ("keyctl", 0, EPERM, EPERM),
        ("ptrace", 0, ALLOW, ALLOW),
        ("chroot", 0, EPERM, EPERM),
        ("userfaultfd", 0, EPERM, EPERM),
    ] {
        assert_eq!(native(&none, name, first), plain, "{name} {first}");
        assert_eq!(
            native(&admin, name, first),
            with_admin,
            "{name} {first} with CAP_SYS_ADMIN"
        );
    }
    assert_eq!(
        run(&none.bytes, Abi::X86_64.audit_arch(), 5000, [0; 6]),
        ENOSYS
    );
    assert_eq!(
        run(
            &none.bytes,
            Abi::X86.audit_arch(),
            Abi::X86.number("read").unwrap(),
            [0; 6]
        ),
        ALLOW
    );
    assert_eq!(
        run(&none.bytes, Abi::X86_64.audit_arch(), X32_BIT, [0; 6]),
        ALLOW
    );
    assert!(
        none.bytes.len() / 8 < 1000,
        "{} instructions",
        none.bytes.len() / 8
    );
}

#[test]
fn reads_dockers_form() {
    let json = br#"{
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
        "archMap": [
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": null}
        ],
        "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
            {"name": "write", "action": "SCMP_ACT_ALLOW", "args": [], "comment": "x", "includes": {}, "excludes": {}},
            {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"], "arches": ["s390"]}},
            {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
            {"names": ["open"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "99.1"}},
            {"names": ["brk"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["s390x"]}}
        ]
    }"#;
    let host = ProfileHost {
        caps: CapabilitySet::EMPTY,
        kernel: KernelVersion(5, 15),
    };
    let names = |host: &ProfileHost| -> Vec<String> {
        parse_profile(json, host)
            .unwrap()
            .syscalls()
            .iter()
            .flatten()
            .flat_map(|rule| rule.names().clone())
            .collect()
    };
    assert_eq!(names(&host), ["read", "write", "clone", "ptrace"]);
    let admin = ProfileHost {
        caps: CapabilitySet::EMPTY.with(Capability::SysAdmin),
        kernel: KernelVersion(4, 7),
    };
    assert_eq!(names(&admin), ["read", "write", "mount"]);
    compile(&parse_profile(json, &host).unwrap()).unwrap();
    for (bad, says) in [
        (&b"{"[..], "not valid JSON"),
        (b"{\"defaultAction\": \"NO\"}", "not valid JSON"),
        (br#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/x"}"#, "not supported"),
        (br#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","names":["b"],"action":"SCMP_ACT_ALLOW"}]}"#, "use one of them"),
        (br#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["b"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["NO"]}}]}"#, "no capability"),
        (br#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["b"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"x"}}]}"#, "form 4.8"),
    ] {
        let error = parse_profile(bad, &host).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
    assert!(matches!(
        parse_profile(&vec![b' '; 2 << 20], &host),
        Err(SeccompError::TooLarge { .. })
    ));
}

/// Runs `work` in a thread under `program`; the filter ends with the thread.
fn under(program: &Program, work: fn() -> Vec<Result<i64, Errno>>) -> Vec<Result<i64, Errno>> {
    let bytes = std::sync::Arc::clone(&program.bytes);
    let thread = std::thread::spawn(move || {
        let filter: Vec<libc::sock_filter> = bytes
            .chunks(8)
            .map(|c| libc::sock_filter {
                code: u16::from_ne_bytes([c[0], c[1]]),
                jt: c[2],
                jf: c[3],
                k: u32::from_ne_bytes([c[4], c[5], c[6], c[7]]),
            })
            .collect();
        let program = libc::sock_fprog {
            len: filter.len() as u16,
            filter: filter.as_ptr().cast_mut(),
        };
        nix::sys::prctl::set_no_new_privs().unwrap();
        // SAFETY: `program` and the `filter` it points to live until the call returns; the kernel copies both.
        let loaded = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                0,
                &raw const program,
            )
        };
        Errno::result(loaded).unwrap();
        work()
    });
    thread.join().unwrap()
}

fn call(number: i64, first: i64) -> Result<i64, Errno> {
    // SAFETY: only calls are made here that take integers, or fail on a null pointer before they read any memory.
    Errno::result(unsafe { libc::syscall(number, first, 0, 0, 0, 0, 0) })
}

#[test]
fn the_kernel_takes_the_built_in_profile() {
    let program = compile(&default_profile(CapabilitySet::CONTAINER_DEFAULT)).unwrap();
    let results = under(&program, || {
        assert!(
            std::thread::spawn(|| true).join().unwrap(),
            "threads fall back from clone3 to clone"
        );
        assert!(std::fs::read_to_string("/proc/self/comm").is_ok());
        vec![
            call(libc::SYS_getpid, 0),
            call(libc::SYS_mount, 0),
            call(libc::SYS_clone3, 0),
            call(libc::SYS_unshare, libc::CLONE_NEWUSER.into()),
            call(libc::SYS_socket, libc::AF_VSOCK.into()),
            call(libc::SYS_personality, 0xffff_ffff),
            call(libc::SYS_io_uring_setup, 0),
            call(5000, 0),
            call(libc::SYS_socket, libc::AF_ALG.into()),
        ]
    });
    assert_eq!(results[0], Ok(std::process::id().into()));
    assert!(results[5].is_ok());
    let refused: Vec<_> = [1, 2, 3, 4, 6, 7, 8]
        .map(|at: usize| results[at].unwrap_err())
        .into();
    assert_eq!(
        refused,
        [
            Errno::EPERM,
            Errno::ENOSYS,
            Errno::EPERM,
            Errno::EPERM,
            Errno::EPERM,
            Errno::ENOSYS,
            Errno::EPERM
        ]
    );
}

#[test]
fn the_kernel_gives_the_errno_of_the_rule() {
    let mut denied = rule(&["getppid"], Action::ScmpActErrno, vec![]);
    denied.set_errno_ret(Some(libc::EXDEV as u32));
    let masked = LinuxSeccompArgBuilder::default()
        .index(0usize)
        .op(Op::ScmpCmpMaskedEq)
        .value(0xff_0000_0000u64)
        .value_two(0x12_0000_0000u64)
        .build()
        .unwrap();
    let program = compile(&allowing(vec![
        denied,
        rule(&["umask"], Action::ScmpActErrno, vec![masked]),
    ]))
    .unwrap();
    let results = under(&program, || {
        vec![
            call(libc::SYS_getppid, 0),
            call(libc::SYS_getpid, 0),
            call(libc::SYS_umask, 0x0012_0000_0012),
            call(libc::SYS_umask, 0o022),
        ]
    });
    assert_eq!(results[0], Err(Errno::EXDEV));
    assert_eq!(results[2], Err(Errno::EPERM));
    assert!(results[1].is_ok() && results[3].is_ok());
}

/// `cargo test --release -p podwright-runtime --features measure -- --nocapture seccomp::tests::measure`
#[cfg(feature = "measure")]
#[test]
fn measure() {
    let start = std::time::Instant::now();
    for _ in 0..50 {
        compile(&default_profile(CapabilitySet::CONTAINER_DEFAULT)).unwrap();
    }
    println!("compile the built-in profile: {:?}", start.elapsed() / 50);
    let cache = ProgramCache::new(4);
    let program = cache
        .runtime_default(CapabilitySet::CONTAINER_DEFAULT)
        .unwrap();
    let start = std::time::Instant::now();
    cache
        .runtime_default(CapabilitySet::CONTAINER_DEFAULT)
        .unwrap();
    println!(
        "from the cache: {:?}; {} instructions",
        start.elapsed(),
        program.bytes.len() / 8
    );
    let start = std::time::Instant::now();
    under(&program, Vec::new);
    println!("a thread that loads it: {:?}", start.elapsed());
}
