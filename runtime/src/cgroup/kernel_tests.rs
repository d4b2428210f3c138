//! Against this machine's real control groups, under names of our own. They need root.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashMap;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use oci_spec::runtime::{
    LinuxCpuBuilder, LinuxDeviceCgroupBuilder, LinuxDeviceType, LinuxHugepageLimitBuilder,
    LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder,
};

use super::*;

/// Only failures take so long, and an emulated machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// A group of this test alone; killed and removed in the end.
struct Scratch {
    hierarchy: Hierarchy,
    top: CgroupPath,
}

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "/podwright-test-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        Self {
            hierarchy: Hierarchy::detect().unwrap(),
            top: CgroupPath::new(&name).unwrap(),
        }
    }

    fn create(&self, below: &str) -> Cgroup {
        let path = below
            .split('/')
            .fold(self.top.clone(), |path, name| path.join(name).unwrap());
        self.hierarchy.create(&path).unwrap()
    }

    /// A shell in `group`, running `script` after it has joined.
    fn run(&self, group: &Cgroup, script: &str) -> Child {
        let mut child = Command::new("sh")
            .arg("-c")
            .arg(format!("read go; {script}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        for file in group.procs_files() {
            std::fs::write(&file, child.id().to_string())
                .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        }
        writeln!(child.stdin.take().unwrap(), "go").unwrap();
        child
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let group = self.hierarchy.cgroup(&self.top);
        let _ = group.kill_all(DEADLINE);
        let deadline = Instant::now() + DEADLINE;
        while group.remove().is_err_and(|error| error.is_busy()) && Instant::now() < deadline {
            std::thread::yield_now();
        }
    }
}

fn resources() -> LinuxResources {
    let rule = |allow, typ, major: i64, minor: i64| {
        LinuxDeviceCgroupBuilder::default()
            .allow(allow)
            .typ(typ)
            .major(major)
            .minor(minor)
            .access("rwm")
            .build()
            .unwrap()
    };
    LinuxResourcesBuilder::default()
        .memory(
            LinuxMemoryBuilder::default()
                .limit(64i64 << 20)
                .swap(64i64 << 20)
                .build()
                .unwrap(),
        )
        .cpu(
            LinuxCpuBuilder::default()
                .shares(512u64)
                .quota(50_000i64)
                .period(100_000u64)
                .cpus("0")
                .mems("0")
                .build()
                .unwrap(),
        )
        .pids(LinuxPidsBuilder::default().limit(32i64).build().unwrap())
        .devices(vec![
            rule(false, LinuxDeviceType::A, -1, -1),
            rule(true, LinuxDeviceType::C, 1, 3),
            rule(true, LinuxDeviceType::C, 1, 5),
        ])
        .build()
        .unwrap()
}

fn memory(limit: i64, swap: i64) -> LinuxResources {
    LinuxResourcesBuilder::default()
        .memory(
            LinuxMemoryBuilder::default()
                .limit(limit)
                .swap(swap)
                .build()
                .unwrap(),
        )
        .build()
        .unwrap()
}

#[test]
fn limits_are_held_and_change_in_both_directions() {
    let scratch = Scratch::new();
    let group = scratch.create("pod/ctr");
    group.apply(&resources()).unwrap();
    let held = group.read_resources().unwrap();
    // A weight is coarser than shares.
    let shares = match scratch.hierarchy.version() {
        Version::V1 | Version::Hybrid => 512,
        Version::V2 => weight::to_shares(weight::from_shares(512)),
    };
    assert_eq!(
        (held.cpu_shares, held.cpu_quota, held.cpu_period),
        (Some(shares), Some(50_000), Some(100_000))
    );
    assert_eq!(
        (held.cpus.as_deref(), held.mems.as_deref()),
        (Some("0"), Some("0"))
    );
    assert_eq!(
        (held.memory_limit, held.memory_swap_limit, held.pids_limit),
        (Some(64 << 20), Some(64 << 20), Some(32))
    );
    for size in [128i64 << 20, 32 << 20, 256 << 20] {
        group.apply(&memory(size, size)).unwrap();
        let held = group.read_resources().unwrap();
        assert_eq!(held.memory_limit, Some(size as u64));
        assert_eq!(held.memory_swap_limit, Some(size as u64));
    }
    group.apply(&memory(-1, 0)).unwrap();
    let held = group.read_resources().unwrap();
    assert_eq!((held.memory_limit, held.memory_swap_limit), (None, None));
    for (quota, period, burst) in [
        (1_000_000i64, 1_000_000u64, 500_000u64),
        (2_000, 10_000, 1_000),
        (-1, 100_000, 0),
    ] {
        let cpu = LinuxCpuBuilder::default()
            .quota(quota)
            .period(period)
            .burst(burst)
            .build()
            .unwrap();
        group
            .apply(&LinuxResourcesBuilder::default().cpu(cpu).build().unwrap())
            .unwrap();
        let held = group.read_resources().unwrap();
        assert_eq!(
            (held.cpu_quota, held.cpu_period),
            (Some(quota), Some(period))
        );
    }
}

#[test]
fn refusals_say_what_to_do() {
    let scratch = Scratch::new();
    let group = scratch.create("ctr");
    let cpus = LinuxCpuBuilder::default().cpus("4000").build().unwrap();
    let error = group
        .apply(&LinuxResourcesBuilder::default().cpu(cpus).build().unwrap())
        .unwrap_err();
    assert!(error.to_string().contains("available CPUs: 0"), "{error}");
    assert!(error.is_invalid_input());
    group.apply(&memory(32 << 20, 32 << 20)).unwrap();
    let limit = LinuxMemoryBuilder::default()
        .limit(64i64 << 20)
        .build()
        .unwrap();
    let raised = LinuxResourcesBuilder::default()
        .memory(limit)
        .build()
        .unwrap();
    let unified = HashMap::from([("memory.high".to_owned(), "1".to_owned())]);
    let unified = LinuxResourcesBuilder::default()
        .unified(unified)
        .build()
        .unwrap();
    let (raised, unified) = (group.apply(&raised), group.apply(&unified));
    match scratch.hierarchy.version() {
        // Swap has a limit of its own, and the key is an interface file.
        Version::V2 => {
            raised.unwrap();
            unified.unwrap();
        }
        Version::V1 | Version::Hybrid => {
            let error = raised.unwrap_err();
            assert!(error.to_string().contains("raise both at once"), "{error}");
            let error = unified.unwrap_err();
            assert!(matches!(error, CgroupError::UnifiedOnV1 { .. }), "{error}");
        }
    }
    let huge = LinuxHugepageLimitBuilder::default()
        .page_size("3MB")
        .limit(0i64)
        .build()
        .unwrap();
    let error = group
        .apply(
            &LinuxResourcesBuilder::default()
                .hugepage_limits(vec![huge])
                .build()
                .unwrap(),
        )
        .unwrap_err();
    assert!(error.is_invalid_input(), "{error}");
    let absent = scratch
        .hierarchy
        .cgroup(&scratch.top.join("absent").unwrap());
    assert!(absent.stats().unwrap_err().is_missing());
    assert!(
        absent
            .apply(&memory(1 << 20, 1 << 20))
            .unwrap_err()
            .is_missing()
    );
    absent.remove().unwrap();
    absent.kill_all(DEADLINE).unwrap();
}

#[test]
fn shrinking_below_use_is_refused() {
    let scratch = Scratch::new();
    let group = scratch.create("ctr");
    // Anonymous memory without swap cannot be reclaimed: a shell variable of 16 MiB.
    let script = "x=$(head -c 16777216 /dev/zero | tr '\\0' x); : > /proc/self/comm; sleep 1000";
    let mut child = scratch.run(&group, script);
    let deadline = Instant::now() + DEADLINE;
    while group.stats().unwrap().memory.rss < 16 << 20 {
        assert!(Instant::now() < deadline, "{:?}", group.stats());
        std::thread::yield_now();
    }
    // On v2 the kernel would rather kill: it is for the caller to ask for the check.
    let limit = LinuxMemoryBuilder::default()
        .limit(4i64 << 20)
        .swap(4i64 << 20)
        .check_before_update(true)
        .build()
        .unwrap();
    let limit = LinuxResourcesBuilder::default().memory(limit).build();
    let error = group.apply(&limit.unwrap()).unwrap_err();
    assert!(error.to_string().contains("the group uses"), "{error}");
    group.kill_all(DEADLINE).unwrap();
    child.wait().unwrap();
}

#[test]
fn kills_a_forking_tree_and_removes_it() {
    let scratch = Scratch::new();
    let group = scratch.create("pod/ctr");
    let limit = LinuxResourcesBuilder::default()
        .pids(LinuxPidsBuilder::default().limit(64i64).build().unwrap())
        .build()
        .unwrap();
    group.apply(&limit).unwrap();
    let mut child = scratch.run(
        &group,
        "f() { while :; do f & sleep 1000 & done; }; f 2>/dev/null; sleep 1000",
    );
    let deadline = Instant::now() + DEADLINE;
    while group.pids().unwrap().len() < 16 {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    assert!(matches!(group.remove(), Err(CgroupError::Busy { .. })));
    group.kill_all(DEADLINE).unwrap();
    assert!(group.pids().unwrap().is_empty());
    child.wait().unwrap();
    while let Err(error) = group.remove() {
        assert!(error.is_busy() && Instant::now() < deadline, "{error}");
        std::thread::yield_now();
    }
    assert!(!group.exists());
}

#[test]
fn kills_what_left_the_unified_mount() {
    let scratch = Scratch::new();
    let group = scratch.create("ctr");
    let mut child = scratch.run(&group, "sleep 1000 & sleep 1000");
    if let Some(mount) = scratch
        .hierarchy
        .unified()
        .filter(|_| scratch.hierarchy.version() == Version::Hybrid)
    {
        mount
            .dir
            .write("cgroup.procs", &child.id().to_string())
            .unwrap();
    }
    group.kill_all(DEADLINE).unwrap();
    assert!(!child.wait().unwrap().success());
}

#[test]
fn signals_once() {
    let scratch = Scratch::new();
    let group = scratch.create("ctr");
    let mut child = scratch.run(&group, "exec sleep 1000");
    assert_eq!(group.signal_all(Signal::SIGTERM).unwrap(), 1);
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGTERM));
}

#[test]
fn counts_oom_kills_and_use() {
    let scratch = Scratch::new();
    let group = scratch.create("ctr");
    group.apply(&memory(8 << 20, 8 << 20)).unwrap();
    assert_eq!(group.oom_kills().unwrap(), 0);
    let mut child = scratch.run(
        &group,
        "x=$(head -c 33554432 /dev/zero | tr '\\0' x); echo ${#x}",
    );
    assert!(!child.wait().unwrap().success());
    assert!(group.oom_kills().unwrap() >= 1);
    let stats = group.stats().unwrap();
    assert!(
        stats.cpu.usage_ns > 0 && stats.memory.page_faults > 0,
        "{stats:?}"
    );
    assert_eq!(stats.memory.limit, Some(8 << 20));
    assert!(stats.memory.available.is_some_and(|free| free <= 8 << 20));
    assert!(stats.memory.working_set <= stats.memory.usage);
}

#[test]
fn tells_what_a_quota_has_cost() {
    let scratch = Scratch::new();
    let group = scratch.create("ctr");
    let quota = LinuxCpuBuilder::default()
        .quota(20_000i64)
        .period(50_000u64)
        .build()
        .unwrap();
    let limits = LinuxResourcesBuilder::default()
        .cpu(quota)
        .pids(LinuxPidsBuilder::default().limit(32i64).build().unwrap())
        .build()
        .unwrap();
    group.apply(&limits).unwrap();
    let mut child = scratch.run(&group, "while :; do :; done");
    let deadline = Instant::now() + DEADLINE;
    let detail = loop {
        let detail = group.detail().unwrap();
        if detail
            .throttling
            .is_some_and(|of| of.throttled_periods > 2 && of.throttled_ns > 0)
        {
            break detail;
        }
        assert!(Instant::now() < deadline, "{detail:?}");
        std::thread::yield_now();
    };
    let throttling = detail.throttling.unwrap();
    assert!(throttling.periods >= throttling.throttled_periods);
    assert_eq!(detail.tasks_limit, Some(32));
    assert!(detail.cpu_user_ns + detail.cpu_system_ns > 0);
    assert!(group.stats().unwrap().tasks >= Some(1));
    group.kill_all(DEADLINE).unwrap();
    child.wait().unwrap();
}

#[test]
fn tells_what_a_memory_limit_has_cost() {
    let scratch = Scratch::new();
    let group = scratch.create("ctr");
    // Were both the same, v1 would count the hits as those of memory and swap.
    group.apply(&memory(8 << 20, 16 << 20)).unwrap();
    let greedy = "x=$(head -c 33554432 /dev/zero | tr '\\0' x); echo ${#x}";
    let mut child = scratch.run(&group, greedy);
    child.wait().unwrap();
    let detail = group.detail().unwrap();
    assert!(detail.memory_limit_hits > Some(0), "{detail:?}");
    assert!(detail.oom_kills > 0, "{detail:?}");
    let at_limit = 4 << 20..=8 << 20;
    let peak = detail.memory_peak;
    assert!(peak.is_none_or(|peak| at_limit.contains(&peak)));
}

#[test]
fn a_held_meter_lets_its_group_go() {
    let scratch = Scratch::new();
    let group = scratch.create("ctr");
    let meter = HeldMeter::default();
    meter.read(&group).unwrap();
    group.remove().unwrap();
    assert!(meter.read(&group).unwrap_err().is_missing());
    // A group of the same name is another one.
    scratch.create("ctr");
    meter.read(&group).unwrap();
    meter.end();
    meter.read(&group).unwrap();
}

#[test]
fn lists_children_by_prefix() {
    let scratch = Scratch::new();
    for name in ["pod1", "pod2", "other"] {
        scratch.create(name);
    }
    let found = scratch.hierarchy.children(&scratch.top, "pod").unwrap();
    assert_eq!(
        found.iter().map(CgroupPath::name).collect::<Vec<_>>(),
        ["pod1", "pod2"]
    );
    assert!(
        scratch
            .hierarchy
            .children(&scratch.top.join("none").unwrap(), "")
            .unwrap()
            .is_empty()
    );
}

/// `cargo test --release -p podwright-runtime --features measure -- --nocapture cgroup::kernel_tests::measure`
#[cfg(feature = "measure")]
#[test]
fn measure() {
    let scratch = Scratch::new();
    scratch.create("pod/warm");
    let resources = resources();
    let mut times: HashMap<&str, Vec<Duration>> = HashMap::new();
    for round in 0..200 {
        let path = scratch
            .top
            .join("pod")
            .unwrap()
            .join(&format!("ctr{round}"))
            .unwrap();
        let mut time = |name, start: Instant| times.entry(name).or_default().push(start.elapsed());
        let start = Instant::now();
        let group = scratch.hierarchy.create(&path).unwrap();
        time("create", start);
        let start = Instant::now();
        group.apply(&resources).unwrap();
        time("apply", start);
        let start = Instant::now();
        group.stats().unwrap();
        time("stats", start);
        let start = Instant::now();
        group.remove().unwrap();
        time("remove", start);
    }
    for (name, mut all) in times {
        all.sort();
        println!(
            "{name}: p50 {:?} p90 {:?}",
            all[all.len() / 2],
            all[all.len() * 9 / 10]
        );
    }
}

/// On v1 machines too, which have the unified mount beside their controllers: both have to allow.
#[test]
fn a_program_decides_on_devices_and_gives_way_to_its_successor() {
    let scratch = Scratch::new();
    let group = scratch.create("leaf");
    let mount = scratch.hierarchy.unified().unwrap();
    let dir = mount.dir.open(group.path.relative()).unwrap();
    let zero_is_read = || {
        let mut child = scratch.run(&group, "head -c 1 /dev/zero");
        child.wait().unwrap().success()
    };
    let rules = resources().devices().clone().unwrap();
    apply_devices::apply(&dir, &rules).unwrap();
    assert!(zero_is_read());
    // Without the rule for /dev/zero, the last one.
    apply_devices::apply(&dir, &rules[..2]).unwrap();
    assert!(!zero_is_read());
    assert_eq!(bpf::attached(dir.as_fd()).unwrap().len(), 1);
    apply_devices::apply(&dir, &rules).unwrap();
    assert!(zero_is_read());
}
