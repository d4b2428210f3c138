//! Signals to all of a group, and its end.

use super::*;

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

/// `cgroup.kill` does not reach it; v1's freezer keeps it from forking away. Throttled, it is slow to freeze.
#[test]
fn kills_a_forking_tree_that_left_the_unified_mount() {
    let scratch = Scratch::new();
    if scratch.hierarchy.version() != Version::Hybrid {
        return;
    }
    let group = scratch.create("ctr");
    let quota = LinuxCpuBuilder::default()
        .quota(5_000i64)
        .period(20_000u64)
        .build();
    let limits = LinuxResourcesBuilder::default()
        .pids(LinuxPidsBuilder::default().limit(64i64).build().unwrap())
        .cpu(quota.unwrap())
        .build();
    group.apply(&limits.unwrap()).unwrap();
    let unified = scratch.hierarchy.unified().unwrap().dir.path();
    let files = group.join_files().into_iter();
    let elsewhere: Vec<_> = files.filter(|file| !file.starts_with(unified)).collect();
    let bomb = "f() { while :; do f & done; }; (f) 2>/dev/null & exec sleep 1000";
    let mut child = scratch.run_in(&elsewhere, bomb);
    let deadline = Instant::now() + DEADLINE;
    while group.pids().unwrap().len() < 48 {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    group.kill_all(DEADLINE).unwrap();
    assert!(group.pids().unwrap().is_empty());
    child.wait().unwrap();
}

/// Whoever froze it does not come back: it is thawed, and no time is lost before.
#[test]
fn kills_what_the_freezer_of_v1_has_stopped() {
    let scratch = Scratch::new();
    let group = scratch.create("pod/ctr");
    let Some((freezer, _)) = group.controller(Controller::Freezer).unwrap() else {
        return;
    };
    let mut child = scratch.run(&group, "exec sleep 1000");
    freezer.write("freezer.state", "FROZEN").unwrap();
    let begun = Instant::now();
    while freezer.read("freezer.state").unwrap().trim() != "FROZEN" {
        assert!(begun.elapsed() < DEADLINE);
        std::thread::yield_now();
    }
    group.kill_all(DEADLINE).unwrap();
    assert!(begun.elapsed() < DEADLINE / 2);
    assert!(group.pids().unwrap().is_empty());
    child.wait().unwrap();
}

/// Its processes stand in the file of the group above, and its own cannot be read.
#[test]
fn kills_the_processes_of_a_threaded_group() {
    let scratch = Scratch::new();
    let group = scratch.create("ctr");
    let Some(unified) = scratch.hierarchy.unified() else {
        return;
    };
    let dir = unified.dir.open(group.path().relative()).unwrap();
    let mut child = scratch.run(&group, "exec sleep 1000");
    let below = dir.path().join("threads");
    std::fs::create_dir(&below).unwrap();
    std::fs::write(below.join("cgroup.type"), "threaded").unwrap();
    std::fs::write(below.join("cgroup.threads"), child.id().to_string()).unwrap();
    group.kill_all(DEADLINE).unwrap();
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
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
