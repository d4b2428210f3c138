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

#[test]
fn signals_once() {
    let scratch = Scratch::new();
    let group = scratch.create("ctr");
    let mut child = scratch.run(&group, "exec sleep 1000");
    assert_eq!(group.signal_all(Signal::SIGTERM).unwrap(), 1);
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGTERM));
}
