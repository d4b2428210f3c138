//! Execs in running containers.
#![allow(missing_docs, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod client;

use client::{Client, DEADLINE, Pause, container, launched, plans, root};
use podwright_pause::plan::*;
use podwright_pause::protocol::*;
use podwright_pause::wire::{Bytes, Wire};
use std::io::{PipeReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

fn exec_plan(argv: &[&str], stdio: Stdio) -> LaunchPlan {
    LaunchPlan {
        new_namespaces: 0,
        pid_namespace: PidNamespace::Host,
        cgroup_procs: Vec::new(),
        oom_score_adj: None,
        steps: Vec::new(),
        process: plans::process(argv),
        stdio,
    }
}

fn request(exec: u64, plan: &LaunchPlan) -> Request {
    Request::Exec {
        exec,
        container: "one".into(),
        plan: PlanBytes::Inline {
            plan: Bytes(plan.to_bytes()),
        },
    }
}

/// Asks for an exec with streams of the test's; gives its stdin and output.
fn start(
    client: &mut Client,
    exec: u64,
    argv: &[&str],
) -> Result<(u32, std::io::PipeWriter, PipeReader), Failure> {
    let (child_in, own_in) = std::io::pipe().unwrap();
    let (own_out, child_out) = std::io::pipe().unwrap();
    let fds = [
        child_in.as_raw_fd(),
        child_out.as_raw_fd(),
        child_out.as_raw_fd(),
    ];
    let (answer, _) = client.ask(&request(exec, &exec_plan(argv, Stdio::Passed)), &fds);
    Ok((launched(answer)?, own_in, own_out))
}

fn with_container() -> (Pause, Client, u32) {
    let (pause, mut client) = Pause::ready(plans::sandbox());
    root::make(pause.dir.path());
    let plan = plans::container(pause.dir.path(), &["box", "wait", ""], vec![]);
    let pid = client.launch("one", &plan, &pause.log("log")).unwrap();
    (pause, client, pid)
}

#[test]
fn an_exec_is_in_its_container_and_uses_the_passed_streams() {
    let (_pause, mut client, pid) = with_container();
    let (exec_pid, mut stdin, mut stdout) = start(
        &mut client,
        5,
        &[
            "box",
            "read",
            "",
            "cat",
            "/etc/secret",
            "fds",
            "",
            "exit",
            "9",
        ],
    )
    .unwrap();
    for kind in ["mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let of = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        assert_eq!(of(exec_pid), of(pid), "{kind}");
    }
    stdin.write_all(b"\n").unwrap();
    let mut output = String::new();
    stdout.read_to_string(&mut output).unwrap();
    assert_eq!(output, "secret\nfd 0\nfd 1\nfd 2\n");
    assert_eq!(client.exit_of(&Target::Exec { exec: 5 }).code, 9);
}

#[test]
fn an_exec_that_cannot_start_says_why() {
    let (_pause, mut client, _) = with_container();
    let failure = start(&mut client, 1, &["nothing"]).unwrap_err();
    assert_eq!(
        failure,
        Failure {
            stage: Stage::Program,
            call: "execve".into(),
            subject: "nothing".into(),
            errno: libc::ENOENT
        }
    );
    let log = exec_plan(&["box"], Stdio::Log { stdin: Stdin::Null });
    let failure = launched(client.ask(&request(2, &log), &[]).0).unwrap_err();
    assert_eq!(
        (failure.stage, failure.errno),
        (Stage::Request, libc::EINVAL)
    );
    client.ask(
        &Request::Signal {
            target: container("one"),
            signal: libc::SIGKILL,
        },
        &[],
    );
    client.exit_of(&container("one"));
    let failure = start(&mut client, 3, &["box"]).unwrap_err();
    assert_eq!(
        (failure.stage, failure.errno),
        (Stage::Request, libc::ESRCH)
    );
}

#[test]
fn an_exec_ends_with_the_connection_that_asked() {
    let (pause, mut client, _) = with_container();
    let mut other = pause.client();
    let (_, _stdin, mut stdout) = start(&mut other, 5, &["box", "fork", "", "wait", ""]).unwrap();
    drop(other);
    assert_eq!(
        client.exit_of(&Target::Exec { exec: 5 }).signal,
        libc::SIGKILL
    );
    // Its whole process group ends: nobody keeps the pipe open.
    stdout.read_to_string(&mut String::new()).unwrap();
}

fn read_until(master: &OwnedFd, wanted: &str) {
    let mut seen = String::new();
    let mut buffer = [0; 1024];
    while !seen.contains(wanted) {
        let mut poll = [nix::poll::PollFd::new(
            master.as_fd(),
            nix::poll::PollFlags::POLLIN,
        )];
        assert!(
            nix::poll::poll(&mut poll, DEADLINE.as_millis() as u16).unwrap() > 0,
            "{seen}"
        );
        let length = nix::unistd::read(master, &mut buffer).unwrap();
        seen.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
}

#[test]
fn an_exec_with_a_terminal_hands_over_its_master() {
    let (_pause, mut client, _) = with_container();
    let mut plan = exec_plan(
        &[
            "box", "size", "", "read", "", "size", "", "tty", "", "wait", "",
        ],
        Stdio::Terminal,
    );
    plan.steps = vec![Step::Terminal {
        rows: 3,
        columns: 4,
    }];
    let (answer, fds) = client.ask(&request(8, &plan), &[]);
    launched(answer).unwrap();
    read_until(&fds[0], "size 3 4\r\n");
    let target = Target::Exec { exec: 8 };
    assert_eq!(
        client
            .ask(
                &Request::Resize {
                    target: target.clone(),
                    rows: 50,
                    columns: 60
                },
                &[]
            )
            .0,
        Answer::Done
    );
    nix::unistd::write(&fds[0], b"\n").unwrap();
    read_until(&fds[0], "size 50 60\r\ntty ok\r\n");
    client.ask(
        &Request::Signal {
            target: target.clone(),
            signal: libc::SIGKILL,
        },
        &[],
    );
    assert_eq!(client.exit_of(&target).signal, libc::SIGKILL);
}
