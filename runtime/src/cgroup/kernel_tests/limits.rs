//! What is set is held, or refused with a reason.

use super::*;

#[test]
fn limits_are_held_and_change_in_both_directions() {
    let scratch = Scratch::new();
    let group = scratch.create("pod/ctr");
    group.apply(&resources()).unwrap();
    let held = group.read_resources().unwrap();
    let shares = held.cpu_shares.map(|held| held.like(512));
    assert_eq!(
        (shares, held.cpu_quota, held.cpu_period),
        (Some(512), Some(50_000), Some(100_000))
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
    assert!(error.to_string().contains("available CPUs: "), "{error}");
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
fn a_change_that_is_refused_in_part_changes_nothing() {
    let scratch = Scratch::new();
    let group = scratch.create("ctr");
    group.apply(&resources()).unwrap();
    let before = group.read_resources().unwrap();
    let wider = |cpus: &str| {
        let mut wider = memory(128 << 20, 256 << 20);
        let cpu = LinuxCpuBuilder::default()
            .quota(90_000i64)
            .shares(4096u64)
            .cpus(cpus)
            .build();
        wider.set_cpu(Some(cpu.unwrap()));
        wider
    };
    let error = group.update(&wider("4000")).unwrap_err();
    assert!(error.is_invalid_input(), "{error}");
    assert_eq!(group.read_resources().unwrap(), before);
    let undo = group.update(&wider("0")).unwrap();
    let held = group.read_resources().unwrap();
    assert_eq!(
        (held.memory_limit, held.memory_swap_limit, held.cpu_quota),
        (Some(128 << 20), Some(256 << 20), Some(90_000))
    );
    undo.restore();
    assert_eq!(group.read_resources().unwrap(), before);
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
    // A machine with swap must not make room there.
    let mut limit = memory(4 << 20, 4 << 20);
    if scratch.hierarchy.version() == Version::V2 {
        group.update(&memory(1 << 30, 1 << 30)).map(drop).unwrap();
        limit.set_memory(LinuxMemoryBuilder::default().limit(4i64 << 20).build().ok());
    }
    let before = group.read_resources().unwrap();
    let error = group.update(&limit).unwrap_err();
    assert!(error.to_string().contains("the group uses"), "{error}");
    assert!(error.is_in_use() && child.try_wait().unwrap().is_none());
    assert_eq!(group.read_resources().unwrap(), before);
    group.kill_all(DEADLINE).unwrap();
    child.wait().unwrap();
}

#[test]
fn shrinking_takes_page_cache_away_first() {
    let scratch = Scratch::new();
    let group = scratch.create("ctr");
    // On a disk: a tmpfs' pages have no place to go.
    let places = ["/var/tmp", "/tmp"].map(std::path::Path::new);
    let place = places.into_iter().find(|place| place.is_dir()).unwrap();
    let file = tempfile::NamedTempFile::new_in(place).unwrap();
    let script = format!(
        "head -c 33554432 /dev/zero > {0}; sync {0}; cat {0}",
        file.path().display()
    );
    assert!(scratch.run(&group, &script).wait().unwrap().success());
    assert!(group.stats().unwrap().memory.usage > 24 << 20);
    let undo = group.update(&memory(8 << 20, 8 << 20)).unwrap();
    assert!(group.stats().unwrap().memory.usage <= 8 << 20);
    undo.restore();
    assert_eq!(group.read_resources().unwrap().memory_limit, None);
}

/// `unified` as a request has it.
fn unified(entries: &[(&str, &str)]) -> LinuxResources {
    let entries = entries
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    LinuxResourcesBuilder::default()
        .unified(entries.collect::<HashMap<_, _>>())
        .build()
        .unwrap()
}

#[test]
fn every_controllers_files_can_be_set() {
    let scratch = Scratch::new();
    if scratch.hierarchy.version() != Version::V2 {
        // Refused: see `refusals_say_what_to_do`.
        return;
    }
    let group = scratch.create("pod/ctr");
    let wanted = [
        ("cpu.max", "20000 50000"),
        ("cpu.max.burst", "10000"),
        ("cpu.weight", "200"),
        ("cpuset.cpus", "0"),
        ("memory.high", "41943040"),
        ("memory.low", "8388608"),
        ("memory.max", "67108864"),
        ("memory.min", "4194304"),
        ("memory.oom.group", "1"),
        ("memory.swap.max", "0"),
        ("pids.max", "20"),
    ];
    group.update(&unified(&wanted)).map(drop).unwrap();
    let keys: Vec<String> = wanted.iter().map(|(key, _)| (*key).to_owned()).collect();
    let held = group.read_unified(keys.iter()).unwrap();
    for (key, value) in wanted {
        assert_eq!(held[key], value, "{key}");
    }
    // Lowered together: a burst above the quota is refused, so the order matters.
    let lower = unified(&[("cpu.max", "5000 50000"), ("cpu.max.burst", "1000")]);
    group.update(&lower).map(drop).unwrap();
    // Controllers that nobody else asks for; neither has a resource on this machine.
    let misc = group
        .update(&unified(&[("misc.max", "sev 1")]))
        .unwrap_err();
    let rdma = unified(&[("rdma.max", "mlx5_0 hca_handle=2")]);
    let rdma = group.update(&rdma).unwrap_err();
    for (error, file) in [(misc, "misc.max"), (rdma, "rdma.max")] {
        assert!(error.is_invalid_input(), "{error}");
        let dir = scratch.hierarchy.unified().unwrap().dir.path();
        let path = dir.join(group.path.relative()).join(file);
        assert!(path.exists(), "{} after {error}", path.display());
    }
    for (key, value, reason) in [
        ("memory.nonsense", "1", "no file that this kernel has"),
        ("flux.max", "1", "does not offer"),
        ("io.max", "240:77 rbps=1048576", "no such device"),
        ("cpuset.cpus.partition", "root", "cpuset.cpus.partition"),
    ] {
        let error = group.update(&unified(&[("memory.low", "0"), (key, value)]));
        let error = error.unwrap_err();
        assert!(error.to_string().contains(reason), "{key}: {error}");
        assert!(error.is_invalid_input(), "{key}: {error}");
        let held = group.read_unified(keys.iter()).unwrap();
        assert_eq!(held["memory.low"], "8388608", "{key}");
    }
}

/// A partition takes its CPUs from all others, so there is one level of them, and only where there is more than one CPU.
#[test]
fn a_partition_is_one_or_refused() {
    let scratch = Scratch::new();
    if scratch.hierarchy.version() != Version::V2 {
        return;
    }
    let group = scratch.create("isolated");
    let offered = group.read_unified(["cpuset.cpus.effective".to_owned()].iter());
    let offered = offered.unwrap();
    let several = offered["cpuset.cpus.effective"] != "0";
    let wanted = unified(&[("cpuset.cpus", "0"), ("cpuset.cpus.partition", "root")]);
    // Its parent is the scratch group, which is none.
    let error = group.update(&wanted).unwrap_err();
    assert!(error.to_string().contains("partition"), "{error}");
    let top = scratch.hierarchy.cgroup(&scratch.top);
    let made = top.update(&wanted);
    assert_eq!(made.is_ok(), several, "{made:?}");
    if let Ok(undo) = made {
        undo.restore();
    }
    let held = top.read_unified(["cpuset.cpus.partition".to_owned()].iter());
    assert_eq!(held.unwrap()["cpuset.cpus.partition"], "member");
    // All CPUs are everybody's again.
    let now = group.read_unified(["cpuset.cpus.effective".to_owned()].iter());
    assert_eq!(now.unwrap(), offered);
}

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
