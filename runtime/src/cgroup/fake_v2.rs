//! The v2 interface against a directory tree that stands for a cgroup2 mount.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::path::PathBuf;

use oci_spec::runtime::{
    LinuxCpuBuilder, LinuxDeviceCgroup, LinuxHugepageLimitBuilder, LinuxMemoryBuilder,
    LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder,
};
use tempfile::TempDir;

use super::mountinfo::{CgroupMount, Kind};
use super::*;

const FILES: [(&str, &str); 27] = [
    ("cgroup.controllers", "cpuset cpu io memory hugetlb pids"),
    ("cgroup.procs", "12\n0\n34\n"),
    ("cpu.weight", "100\n"),
    ("cpu.max", "max 100000\n"),
    ("cpu.max.burst", "0\n"),
    ("cpu.idle", "0\n"),
    (
        "cpu.stat",
        "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 8\nnr_throttled 3\nthrottled_usec 5\n",
    ),
    (
        "cpu.pressure",
        "some avg10=0.50 avg60=0.00 avg300=0.00 total=5\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1\n",
    ),
    ("cpuset.cpus", ""),
    ("cpuset.mems", ""),
    ("memory.max", "max\n"),
    ("memory.low", "0\n"),
    ("memory.high", "max\n"),
    ("memory.current", "10000\n"),
    ("memory.swap.max", "max\n"),
    ("memory.swap.current", "70\n"),
    (
        "memory.stat",
        "anon 4000\nfile 5000\nkernel 600\nfile_mapped 700\ninactive_file 1500\nactive_file 3500\npgfault 9\npgmajfault 2\n",
    ),
    ("memory.events", "low 0\nhigh 0\nmax 3\noom 2\noom_kill 1\n"),
    ("memory.peak", "12000\n"),
    ("hugetlb.2MB.events", "max 4\n"),
    (
        "io.stat",
        "8:0 rbytes=4096 wbytes=10 rios=2 wios=1 dbytes=0 dios=0\n",
    ),
    ("pids.max", "max\n"),
    ("pids.current", "3\n"),
    ("hugetlb.2MB.max", "max\n"),
    ("hugetlb.2MB.current", "2097152\n"),
    ("io.pressure", ""),
    ("cgroup.kill", ""),
];

struct Fake {
    root: TempDir,
    group: Cgroup,
}

impl Fake {
    fn new() -> Self {
        let root = TempDir::new().unwrap();
        std::fs::write(
            root.path().join("cgroup.controllers"),
            "cpuset cpu io memory hugetlb pids misc\n",
        )
        .unwrap();
        let mount = CgroupMount {
            path: root.path().to_owned(),
            kind: Kind::Unified,
        };
        let hierarchy = Hierarchy::from_mounts(vec![mount], vec!["2MB".into()]).unwrap();
        let group = hierarchy.cgroup(&CgroupPath::new("/pod/ctr").unwrap());
        let leaf = root.path().join("pod/ctr");
        std::fs::create_dir_all(&leaf).unwrap();
        for (name, text) in FILES {
            std::fs::write(leaf.join(name), text).unwrap();
        }
        Self { root, group }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.root.path().join("pod/ctr").join(name)
    }

    /// Empties `name`, so that what a write leaves is the value alone.
    fn clear(&self, names: &[&str]) {
        for name in names {
            std::fs::write(self.file(name), "").unwrap();
        }
    }

    fn holds(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).unwrap()
    }
}

fn with_memory(limit: i64, swap: i64) -> LinuxResources {
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
fn detects_v2() {
    let fake = Fake::new();
    let hierarchy = &fake.group.hierarchy;
    assert_eq!(hierarchy.version(), Version::V2);
    assert!(hierarchy.supports(Controller::Memory) && !hierarchy.supports(Controller::Freezer));
    assert_eq!(fake.group.join_files(), [fake.file("cgroup.procs")]);
    assert!(fake.group.dir().is_ok());
    assert!(matches!(
        Hierarchy::from_mounts(vec![], vec![]),
        Err(CgroupError::NoHierarchy { .. })
    ));
}

#[test]
fn enables_controllers_in_every_ancestor() {
    let fake = Fake::new();
    let tree = fake.root.path();
    for dir in ["", "pod"] {
        std::fs::write(tree.join(dir).join("cgroup.subtree_control"), "").unwrap();
    }
    std::fs::write(fake.file("cgroup.controllers"), "memory\n").unwrap();
    fake.group.hierarchy.create(fake.group.path()).unwrap();
    for dir in ["", "pod"] {
        let written =
            std::fs::read_to_string(tree.join(dir).join("cgroup.subtree_control")).unwrap();
        assert_eq!(written, "+cpu +cpuset +pids +hugetlb +io", "in {dir:?}");
    }
}

#[test]
fn writes_limits() {
    let fake = Fake::new();
    fake.clear(&[
        "cpu.weight",
        "cpu.max",
        "cpu.max.burst",
        "memory.max",
        "memory.swap.max",
        "memory.low",
        "memory.high",
        "pids.max",
        "hugetlb.2MB.max",
    ]);
    let memory = LinuxMemoryBuilder::default()
        .limit(1000i64)
        .swap(1500i64)
        .reservation(600i64)
        .build()
        .unwrap();
    let cpu = LinuxCpuBuilder::default()
        .shares(1024u64)
        .quota(20_000i64)
        .period(50_000u64)
        .burst(10u64)
        .cpus("0-1")
        .mems("0")
        .build()
        .unwrap();
    let huge = LinuxHugepageLimitBuilder::default()
        .page_size("2MB")
        .limit(4_194_304i64)
        .build()
        .unwrap();
    let resources = LinuxResourcesBuilder::default()
        .memory(memory)
        .cpu(cpu)
        .pids(LinuxPidsBuilder::default().limit(7i64).build().unwrap())
        .hugepage_limits(vec![huge])
        .unified(HashMap::from([(
            "memory.high".to_owned(),
            "900".to_owned(),
        )]))
        .build()
        .unwrap();
    fake.group.apply(&resources).unwrap();
    let expected = [
        ("cpu.weight", "100"),
        ("cpu.max", "20000 50000"),
        ("cpu.max.burst", "10"),
        ("cpuset.cpus", "0-1"),
        ("cpuset.mems", "0"),
        ("memory.max", "1000"),
        ("memory.swap.max", "500"),
        ("memory.low", "600"),
        ("memory.high", "900"),
        ("pids.max", "7"),
        ("hugetlb.2MB.max", "4194304"),
    ];
    for (name, value) in expected {
        assert_eq!(fake.holds(name), value, "{name}");
    }
    let held = fake.group.read_resources().unwrap();
    assert_eq!(
        (held.cpu_shares, held.cpu_quota, held.cpu_period),
        (Some(CpuShares::Weight(100)), Some(20_000), Some(50_000))
    );
    assert_eq!(
        (held.memory_limit, held.memory_swap_limit),
        (Some(1000), Some(1500))
    );
    assert_eq!(
        (held.pids_limit, held.cpus.as_deref()),
        (Some(7), Some("0-1"))
    );
    assert_eq!(held.hugepages, [("2MB".to_owned(), 4_194_304)]);
}

#[test]
fn a_period_alone_keeps_the_quota() {
    let fake = Fake::new();
    std::fs::write(fake.file("cpu.max"), "max 100000").unwrap();
    let cpu = LinuxCpuBuilder::default()
        .period(200_000u64)
        .build()
        .unwrap();
    fake.group
        .apply(&LinuxResourcesBuilder::default().cpu(cpu).build().unwrap())
        .unwrap();
    assert_eq!(fake.holds("cpu.max"), "max 200000");
}

#[test]
fn swap_is_what_exceeds_memory() {
    for (limit, swap, max) in [
        (1000, 1000, "0"),
        (1000, -1, "max"),
        (-1, 0, "max"),
        (-1, -1, "max"),
    ] {
        let fake = Fake::new();
        fake.clear(&["memory.max", "memory.swap.max"]);
        fake.group.apply(&with_memory(limit, swap)).unwrap();
        assert_eq!(fake.holds("memory.swap.max"), max, "{limit} {swap}");
    }
    for (limit, swap) in [(1000, 500), (-1, 500), (0, 500)] {
        let fake = Fake::new();
        let error = fake.group.apply(&with_memory(limit, swap)).unwrap_err();
        assert!(
            matches!(error, CgroupError::InvalidValue { .. }),
            "{limit} {swap}: {error}"
        );
    }
}

#[test]
fn refuses_what_v2_cannot_do() {
    let fake = Fake::new();
    let devices = LinuxResourcesBuilder::default()
        .devices(vec![LinuxDeviceCgroup::default()])
        .build()
        .unwrap();
    assert!(matches!(
        fake.group.apply(&devices),
        Err(CgroupError::DeviceProgram { .. })
    ));
    for key in [
        "../memory.max",
        "cgroup.procs",
        "cgroup.kill",
        ".hidden",
        "plain",
        "a/b.c",
        "",
    ] {
        let unified = HashMap::from([(key.to_owned(), "1".to_owned())]);
        let error = fake
            .group
            .apply(
                &LinuxResourcesBuilder::default()
                    .unified(unified)
                    .build()
                    .unwrap(),
            )
            .unwrap_err();
        assert!(
            matches!(error, CgroupError::InvalidValue { .. }),
            "{key}: {error}"
        );
    }
    let error = fake.group.update(&with_memory(9999, 9999)).unwrap_err();
    assert!(error.to_string().contains("uses 10000 bytes"), "{error}");
}

#[test]
fn reads_stats() {
    let fake = Fake::new();
    std::fs::write(fake.file("memory.max"), "20000\n").unwrap();
    let stats = fake.group.stats().unwrap();
    assert_eq!(stats.cpu.usage_ns, 30_000);
    assert_eq!(stats.cpu.pressure.unwrap().some.total_us, 5);
    assert_eq!(stats.io_pressure, None);
    let memory = stats.memory;
    assert_eq!(
        (memory.usage, memory.working_set, memory.rss),
        (10_000, 8_500, 4_000)
    );
    assert_eq!(
        (memory.cache, memory.active_file, memory.mapped_file),
        (5_000, 3_500, 700)
    );
    assert_eq!(
        (memory.limit, memory.available),
        (Some(20_000), Some(11_500))
    );
    assert_eq!((memory.page_faults, memory.major_page_faults), (9, 2));
    let swap = SwapStats {
        usage: 70,
        available: None,
    };
    assert_eq!((stats.swap, stats.tasks), (Some(swap), Some(3)));
}

#[test]
fn reads_detail() {
    let fake = Fake::new();
    std::fs::create_dir(fake.file("exec-1-1")).unwrap();
    std::fs::write(fake.file("exec-1-1/cgroup.procs"), "56\n").unwrap();
    let detail = fake.group.detail().unwrap();
    assert_eq!((detail.cpu_user_ns, detail.cpu_system_ns), (20_000, 10_000));
    let throttling = Throttling {
        periods: 8,
        throttled_periods: 3,
        throttled_ns: 5_000,
    };
    assert_eq!(detail.throttling, Some(throttling));
    assert_eq!(
        (detail.memory_peak, detail.memory_limit_hits),
        (Some(12_000), Some(3))
    );
    assert_eq!((detail.memory_kernel, detail.oom_kills), (Some(600), 1));
    assert_eq!(
        (detail.tasks_limit, detail.memory_reservation),
        (None, Some(0))
    );
    assert_eq!(
        (detail.limits.cpu_quota, detail.limits.cpu_period),
        (Some(-1), Some(100_000))
    );
    let huge = &detail.hugetlb[0];
    assert_eq!(
        (huge.usage, huge.max_usage, huge.limit_hits),
        (2_097_152, None, 4)
    );
    assert_eq!((detail.io[0].bytes, detail.io[1].requests), (4096, 1));
    assert_eq!(fake.group.oom_kills().unwrap(), 1);
    assert_eq!(fake.group.pids().unwrap().len(), 3, "execs below too");
}

#[test]
fn a_kernel_without_the_newer_files_tells_the_rest() {
    let fake = Fake::new();
    for name in [
        "memory.peak",
        "memory.swap.current",
        "memory.swap.max",
        "cpu.pressure",
        "io.stat",
        "hugetlb.2MB.events",
    ] {
        std::fs::remove_file(fake.file(name)).unwrap();
    }
    std::fs::write(
        fake.file("memory.stat"),
        "anon 4000\nkernel_stack 30\nslab 20\npagetables 4\npercpu 2\nsock 1\n",
    )
    .unwrap();
    let (stats, detail) = (fake.group.stats().unwrap(), fake.group.detail().unwrap());
    assert_eq!((stats.swap, stats.cpu.pressure), (None, None));
    assert_eq!(stats.memory.usage, 10_000);
    assert_eq!((detail.memory_peak, detail.memory_kernel), (None, Some(57)));
    assert!(detail.io.is_empty() && detail.hugetlb[0].limit_hits == 0);
}

#[test]
fn a_held_meter_reads_what_is_there_now_until_it_is_ended() {
    let fake = Fake::new();
    let meter = HeldMeter::default();
    assert_eq!(meter.read(&fake.group).unwrap().memory.usage, 10_000);
    // In place, as the kernel does it: the descriptor is the same.
    std::fs::write(fake.file("memory.current"), "20000\n").unwrap();
    assert_eq!(meter.read(&fake.group).unwrap().memory.usage, 20_000);
    std::fs::remove_file(fake.file("memory.current")).unwrap();
    assert_eq!(
        meter.read(&fake.group).unwrap().memory.usage,
        20_000,
        "the file is held"
    );
    meter.end();
    assert!(meter.read(&fake.group).unwrap_err().is_missing());
}

#[test]
fn odd_files_are_errors_with_their_path() {
    let fake = Fake::new();
    std::fs::write(fake.file("memory.current"), "a lot\n").unwrap();
    let error = fake.group.stats().unwrap_err();
    assert!(
        error.to_string().contains("memory.current reads \"a lot"),
        "{error}"
    );
}
