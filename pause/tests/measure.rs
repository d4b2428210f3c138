//! Measurements, for a release binary named by PAUSE_BINARY:
//! `cargo test -p podwright-pause --features measure --test measure -- --nocapture --test-threads 1`.
#![cfg(feature = "measure")]
#![allow(missing_docs, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking
#![allow(clippy::print_stdout)] // numbers are what it is for

mod client;

use client::{Client, Pause, container, launched, plans, root};
use podwright_pause::plan::*;
use podwright_pause::protocol::*;
use podwright_pause::wire::{Bytes, Wire};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// Private, proportional and private dirty KiB.
fn memory(pid: u32) -> (u64, u64, u64) {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let sum = |wanted: &str| -> u64 {
        rollup
            .lines()
            .filter(|line| line.starts_with(wanted))
            .map(|line| {
                line.split_whitespace()
                    .nth(1)
                    .unwrap()
                    .parse::<u64>()
                    .unwrap()
            })
            .sum()
    };
    (sum("Private_"), sum("Pss:"), sum("Private_Dirty"))
}

fn start_waiting(pause: &Pause, client: &mut Client, name: &str) {
    root::make(&pause.path(name));
    let mut plan = plans::container(
        &pause.path(name),
        &["box", "say", "hello", "wait", ""],
        vec![],
    );
    plan.process.seccomp = Some(Bytes([0x06, 0, 0, 0, 0, 0, 0xff, 0x7f].repeat(600)));
    plan.process.env.push(Bytes(vec![b'x'; 4000]));
    client
        .launch(name, &plan, &pause.log(&format!("log-{name}")))
        .unwrap();
    client::until("it speaks", || {
        pause.log_text(&format!("log-{name}")).contains("hello")
    });
}

#[test]
fn memory_of_fifty_pods() {
    let mut pods: Vec<_> = (0..50).map(|_| Pause::ready(plans::sandbox())).collect();
    for (pause, client) in &mut pods {
        start_waiting(pause, client, "a");
    }
    let report = |what: &str, pods: &[(Pause, Client)]| {
        let all: Vec<_> = pods
            .iter()
            .map(|(pause, _)| memory(pause.process.id()))
            .collect();
        let (private, pss) = (all.iter().map(|m| m.0), all.iter().map(|m| m.1));
        println!(
            "{what}: private max {} KiB, mean {} KiB; pss mean {} KiB",
            private.clone().max().unwrap(),
            private.sum::<u64>() / 50,
            pss.sum::<u64>() / 50
        );
    };
    report("1 container", &pods);
    for (pause, client) in &mut pods {
        for name in ["b", "c", "d", "e"] {
            start_waiting(pause, client, name);
        }
    }
    report("5 containers", &pods);
}

fn median(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort();
    (times[times.len() / 2], times[times.len() * 9 / 10])
}

#[test]
fn launch_and_exec_latency() {
    let (pause, mut client) = Pause::ready(plans::sandbox());
    root::make(pause.dir.path());
    let plan = plans::container(pause.dir.path(), &["box", "exit", "0"], vec![]);
    let mut times = Vec::new();
    for round in 0..200 {
        let log = pause.log("log");
        let id = format!("c{round}");
        let start = Instant::now();
        client.launch(&id, &plan, &log).unwrap();
        times.push(start.elapsed());
        client.exit_of(&container(&id));
        client.ask(
            &Request::Forget {
                container: id.as_str().into(),
            },
            &[],
        );
    }
    println!(
        "launch to Launched: p50 {:?}, p90 {:?}",
        median(times.clone()).0,
        median(times).1
    );

    start_waiting(&pause, &mut client, "one");
    let null = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .unwrap();
    let fd = null.as_raw_fd();
    let (mut began, mut ended) = (Vec::new(), Vec::new());
    for exec in 0..300 {
        let plan = LaunchPlan {
            new_namespaces: 0,
            pid_namespace: PidNamespace::Host,
            cgroup_procs: Vec::new(),
            oom_score_adj: None,
            steps: Vec::new(),
            process: plans::process(&["box", "exit", "0"]),
            stdio: Stdio::Passed,
        };
        let request = Request::Exec {
            exec,
            container: "one".into(),
            plan: PlanBytes::Inline {
                plan: Bytes(plan.to_bytes()),
            },
        };
        let start = Instant::now();
        launched(client.ask(&request, &[fd, fd, fd]).0).unwrap();
        began.push(start.elapsed());
        client.exit_of(&Target::Exec { exec });
        ended.push(start.elapsed());
    }
    println!(
        "exec to Launched: p50 {:?}, p90 {:?}",
        median(began.clone()).0,
        median(began).1
    );
    println!(
        "exec to Exited: p50 {:?}, p90 {:?}",
        median(ended.clone()).0,
        median(ended).1
    );
}

/// User and system time of a process, in seconds.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let ticks: u64 = stat
        .rsplit(") ")
        .next()
        .unwrap()
        .split(' ')
        .skip(11)
        .take(2)
        .map(|ticks| ticks.parse::<u64>().unwrap())
        .sum();
    ticks as f64 / 100.0
}

#[test]
fn log_throughput() {
    const BYTES: usize = 512 << 20;
    let (pause, mut client) = Pause::ready(plans::sandbox());
    root::make(pause.dir.path());
    for round in 0..3 {
        let plan = plans::container(
            pause.dir.path(),
            &["box", "flood", &BYTES.to_string()],
            vec![],
        );
        let id = format!("c{round}");
        let log = pause.log("log");
        log.set_len(0).unwrap();
        let before = cpu_seconds(pause.process.id());
        let start = Instant::now();
        client.launch(&id, &plan, &log).unwrap();
        client.exit_of(&container(&id));
        let seconds = start.elapsed().as_secs_f64();
        let cpu = cpu_seconds(pause.process.id()) - before;
        println!(
            "log: {:.0} MiB/s, {:.2} CPU s per 256 MiB",
            BYTES as f64 / 1048576.0 / seconds,
            cpu / 2.0
        );
    }
    std::thread::sleep(Duration::from_millis(2200)); // pause gives its buffers back after a second of rest, and tells nobody
    println!(
        "after the burst: private dirty {} KiB",
        memory(pause.process.id()).2
    );
}
