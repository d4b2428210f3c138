//! Logs: record sizes, reopening, losses, streams that outlive their container.
#![allow(missing_docs, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod client;

use client::{Pause, container, plans, root};
use podwright_pause::plan::{Stdin, Stdio};
use podwright_pause::protocol::{Answer, LogState, Request};
use podwright_pause::wire::Bytes;
use std::os::fd::AsRawFd;

#[test]
fn long_lines_are_split_at_16_kib_and_nothing_is_lost() {
    let (pause, mut client) = Pause::ready(plans::sandbox());
    root::make(pause.dir.path());
    let plan = plans::container(
        pause.dir.path(),
        &["box", "long", "40000", "long", "16384", "flood", "12800000"],
        vec![],
    );
    client.launch("one", &plan, &pause.log("log")).unwrap();
    client.exit_of(&container("one"));
    let log = pause.log_text("log");
    let records: Vec<(&str, usize)> = log
        .lines()
        .map(|line| (&line[38..39], line.len() - 40))
        .collect();
    assert_eq!(
        records[..4],
        [
            ("P", 16384),
            ("P", 16384),
            ("F", 40000 - 2 * 16384),
            ("F", 16384)
        ]
    );
    assert_eq!(records[4..].len(), 128_000);
    assert!(records[4..].iter().all(|&record| record == ("F", 99)));
}

#[test]
fn reopening_splits_the_log_between_records() {
    let (pause, mut client) = Pause::ready(plans::sandbox());
    root::make(pause.dir.path());
    let plan = plans::container(pause.dir.path(), &["box", "flood", "64000000"], vec![]);
    client.launch("one", &plan, &pause.log("old")).unwrap();
    client::until("the log grows", || {
        pause.log("old").metadata().unwrap().len() > 1_000_000
    });
    let reopen = Request::ReopenLog {
        container: "one".into(),
    };
    assert_eq!(
        client.ask(&reopen, &[pause.log("new").as_raw_fd()]).0,
        Answer::Done
    );
    let old = pause.log_text("old");
    client.exit_of(&container("one"));
    assert_eq!(pause.log_text("old"), old, "the old file grows no more");
    let new = pause.log_text("new");
    for log in [&old, &new] {
        assert!(log.ends_with('\n') && log.lines().all(|line| line.len() == 139));
    }
    assert_eq!(old.lines().count() + new.lines().count(), 640_000);
}

#[test]
fn a_full_disk_costs_only_the_records_that_did_not_fit() {
    let (pause, mut client) = Pause::ready(plans::sandbox());
    root::make(pause.dir.path());
    let plan = plans::container(
        pause.dir.path(),
        &["box", "say", "lost", "flood", "64000000"],
        vec![],
    );
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let pid = client.launch("one", &plan, &full).unwrap();
    client::until("more is written than a pipe holds", || {
        let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
        let written = io
            .lines()
            .find_map(|line| line.strip_prefix("wchar: "))
            .unwrap();
        written.parse::<u64>().unwrap() > 2 << 20
    });
    let id: Bytes = "one".into();
    let failing = LogState::Failing {
        errno: libc::ENOSPC,
    };
    let Answer::Containers { containers } = client.ask(&Request::List, &[]).0 else {
        panic!("no list")
    };
    assert_eq!(containers[0].log, Some(failing.clone()));
    let reopen = Request::ReopenLog {
        container: "one".into(),
    };
    assert_eq!(
        client.ask(&reopen, &[pause.log("good").as_raw_fd()]).0,
        Answer::Done
    );
    assert_eq!(
        client.exit_of(&container("one")).code,
        0,
        "the container does not notice"
    );
    let log = pause.log_text("good");
    let first = log.lines().next().unwrap();
    let (_, lost) = first
        .split_once(" stderr F podwright: the log could not be written, bytes lost: ")
        .expect(first);
    let states = client.told_logs();
    let lost_bytes = lost.parse().unwrap();
    assert_eq!(
        states,
        [
            (id.clone(), failing),
            (id, LogState::Resumed { lost: lost_bytes })
        ]
    );
    let kept = log.len() - first.len() - 1;
    let all = "2026-01-01T00:00:00.000000000Z stdout F lost\n".len() + 640_000 * 140;
    assert_eq!(lost.parse::<usize>().unwrap() + kept, all);
}

#[test]
fn streams_that_outlive_the_container_are_logged_to_their_end() {
    let (pause, mut client) = Pause::ready(plans::sandbox());
    root::make(pause.dir.path());
    let mut plan = plans::container(
        pause.dir.path(),
        &["box", "print", "start ", "fork", "", "exit", "0"],
        vec![],
    );
    // Without a PID namespace of its own the orphan lives on, and pause adopts it.
    plan.new_namespaces &= !(libc::CLONE_NEWPID as u64);
    plan.stdio = Stdio::Log { stdin: Stdin::Open };
    client.launch("one", &plan, &pause.log("log")).unwrap();
    assert_eq!(client.exit_of(&container("one")).code, 0);
    assert!(
        pause.log_text("log").contains("stdout P start \n"),
        "what is there at the exit is written before the exit is told"
    );
    // The exit has closed stdin's writing end, which lets the orphan end.
    client::until("the orphan has spoken", || {
        pause.log_text("log").ends_with("stdout F orphan ends\n")
    });
}
