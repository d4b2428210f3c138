//! What the counters tell.

use super::*;

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
    // Little: on a busy machine the loop would not get more anyway.
    let quota = LinuxCpuBuilder::default()
        .quota(2_000i64)
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
