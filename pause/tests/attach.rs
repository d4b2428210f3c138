//! Clients attached to containers.
#![allow(missing_docs, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod client;

use client::{Client, DEADLINE, Pause, container, plans, root, texts, until};
use podwright_pause::plan::{LaunchPlan, Stdin, Stdio, Step};
use podwright_pause::protocol::StreamChoice::{Absent, Asked};
use podwright_pause::protocol::{Answer, Failure, Request, StreamChoice};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

/// One attached client's ends.
struct Attached {
    stdin: Option<File>,
    stdout: Option<UnixStream>,
    stderr: Option<UnixStream>,
}

impl Attached {
    /// All that stdout says until its end.
    fn read_stdout(&mut self) -> String {
        let mut text = String::new();
        let stdout = self.stdout.as_mut().unwrap();
        stdout.read_to_string(&mut text).unwrap();
        text
    }

    /// Reads stdout until it has said `wanted`.
    fn await_stdout(&mut self, wanted: &str) {
        let (mut seen, mut byte) = (String::new(), [0]);
        while !seen.ends_with(wanted) {
            let got = self.stdout.as_mut().unwrap().read(&mut byte);
            assert_eq!(got.expect("in time"), 1, "the end came after {seen:?}");
            seen.push(byte[0] as char);
        }
    }

    fn say(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().expect("stdin was asked for");
        stdin.write_all(text.as_bytes()).unwrap();
    }
}

fn attach(
    client: &mut Client,
    number: u64,
    [stdin, stdout, stderr]: [StreamChoice; 3],
) -> Result<Attached, Failure> {
    let pair = |choice: &StreamChoice| (*choice == Asked).then(|| UnixStream::pair().unwrap());
    let (out, err) = (pair(&stdout), pair(&stderr));
    let passed: Vec<_> = [&out, &err]
        .into_iter()
        .flatten()
        .map(|(_, theirs)| theirs.as_raw_fd())
        .collect();
    let request = Request::Attach {
        container: "one".into(),
        client: number,
        stdin,
        stdout,
        stderr,
    };
    let ours = |pair: Option<(UnixStream, UnixStream)>| {
        let (ours, _) = pair?;
        ours.set_read_timeout(Some(DEADLINE)).unwrap();
        Some(ours)
    };
    match client.ask(&request, &passed) {
        (Answer::Done, fds) => Ok(Attached {
            stdin: fds.into_iter().next().map(File::from),
            stdout: ours(out),
            stderr: ours(err),
        }),
        (Answer::Failed { failure }, _) => Err(failure),
        (other, _) => panic!("{other:?}"),
    }
}

fn plan(pause: &Pause, argv: &[&str], stdin: Stdin) -> LaunchPlan {
    let mut plan = plans::container(pause.dir.path(), argv, vec![]);
    plan.stdio = Stdio::Log { stdin };
    plan
}

/// A pod with the container `one` that runs `argv`.
fn running(argv: &[&str], stdin: Stdin) -> (Pause, Client) {
    let (pause, mut client) = Pause::ready(plans::sandbox());
    root::make(pause.dir.path());
    let plan = plan(&pause, argv, stdin);
    client.launch("one", &plan, &pause.log("log")).unwrap();
    (pause, client)
}

fn descriptors(pause: &Pause) -> usize {
    let path = format!("/proc/{}/fd", pause.process.id());
    std::fs::read_dir(path).unwrap().count()
}

#[test]
fn output_goes_to_the_log_and_to_every_client_of_its_stream() {
    let (pause, mut client) = running(
        &[
            "box", "say", "early", "read", "", "say", "out", "err", "err", "print", "tail",
        ],
        Stdin::Open,
    );
    until("it speaks", || pause.log_text("log").contains("early"));
    let mut both = attach(&mut client, 1, [Asked, Asked, Asked]).unwrap();
    let mut out = attach(&mut client, 2, [Absent, Asked, Absent]).unwrap();
    assert!(out.stdin.is_none() && out.stderr.is_none());
    both.say("\n");
    assert_eq!(both.read_stdout(), "out\ntail");
    let mut err = String::new();
    both.stderr.unwrap().read_to_string(&mut err).unwrap();
    assert_eq!(err, "err\n");
    assert_eq!(out.read_stdout(), "out\ntail");
    client.exit_of(&container("one"));
    let log = texts(&pause.log_text("log"));
    for line in ["early\n", "out\n", "err\n", "tail\n"] {
        assert!(log.contains(line), "{log}");
    }
    let late = attach(&mut client, 3, [Absent, Asked, Absent])
        .err()
        .unwrap();
    assert_eq!(late.errno, libc::ESRCH, "it is not running any more");
}

/// How a client goes; gives the connection if it stays.
type Way = fn(Client, Attached) -> Option<Client>;

#[test]
fn stdin_that_is_open_once_ends_with_its_first_client_however_that_goes() {
    let ways: [(&str, Way); 3] = [
        ("its stdin ends", |mut client, attached| {
            client.ask(&Request::EndStdin { client: 1 }, &[]);
            drop(attached.stdin);
            Some(client)
        }),
        ("it detaches", |mut client, attached| {
            drop(attached);
            client.ask(&Request::Detach { client: 1 }, &[]);
            Some(client)
        }),
        ("the daemon dies", |client, attached| {
            drop((client, attached));
            None
        }),
    ];
    for (how, go) in ways {
        let (pause, mut watcher) = running(&["box", "copy", "", "say", "end"], Stdin::Once);
        let mut client = pause.client();
        let mut attached = attach(&mut client, 1, [Asked, Asked, Absent]).unwrap();
        attached.say("said\n");
        attached.await_stdout("said\n");
        let second = attach(&mut client, 2, [Asked, Asked, Absent]).unwrap();
        assert!(second.stdin.is_none(), "it is the first client's");
        let _client = go(client, attached);
        assert_eq!(watcher.exit_of(&container("one")).code, 0, "{how}");
        assert_eq!(texts(&pause.log_text("log")), "said\nend\n", "{how}");
    }
}

#[test]
fn stdin_that_stays_open_outlives_its_clients() {
    let (pause, mut client) = running(&["box", "copy", ""], Stdin::Open);
    for number in 0..3 {
        let mut attached = attach(&mut client, number, [Asked, Asked, Absent]).unwrap();
        attached.say("line\n");
        attached.await_stdout("line\n");
        match number {
            0 => drop(client.ask(&Request::EndStdin { client: 0 }, &[])),
            1 => drop(client.ask(&Request::Detach { client: 1 }, &[])),
            _ => {}
        }
    }
    // What a daemon that dies leaves, the next one finds.
    drop(client);
    let mut next = pause.client();
    let mut attached = attach(&mut next, 0, [Asked, Asked, Absent]).unwrap();
    attached.say("again\n");
    attached.await_stdout("again\n");
}

#[test]
fn two_clients_may_write_and_a_container_without_stdin_gives_none() {
    let (_pause, mut client) = running(&["box", "copy", ""], Stdin::Open);
    let mut one = attach(&mut client, 1, [Asked, Asked, Absent]).unwrap();
    let mut two = attach(&mut client, 2, [Asked, Asked, Absent]).unwrap();
    one.say("one\n");
    two.await_stdout("one\n");
    two.say("two\n");
    one.await_stdout("two\n");

    let (_pause, mut client) = running(&["box", "wait", ""], Stdin::Null);
    let attached = attach(&mut client, 1, [Asked, Asked, Asked]).unwrap();
    assert!(attached.stdin.is_none());
}

/// More than a socket and the stream's pipe hold.
const FLOOD: usize = 6_400_000;

#[test]
fn a_client_that_reads_nothing_is_dropped_and_costs_no_one_else_anything() {
    let (pause, mut client) = running(
        &["box", "read", "", "flood", &FLOOD.to_string()],
        Stdin::Open,
    );
    let mut reader = attach(&mut client, 1, [Asked, Asked, Absent]).unwrap();
    let mut sleeper = attach(&mut client, 2, [Absent, Asked, Asked]).unwrap();
    reader.say("\n");
    let started = Instant::now();
    let reading = std::thread::spawn(move || reader.read_stdout());

    // Another container of the pod is not held back meanwhile.
    let other = plan(&pause, &["box", "flood", &FLOOD.to_string()], Stdin::Null);
    let mut watcher = pause.client();
    watcher.launch("two", &other, &pause.log("two")).unwrap();
    watcher.exit_of(&container("two"));
    assert_eq!(pause.log_text("two").lines().count(), FLOOD / 100);
    let passed = started.elapsed();
    assert!(
        passed.as_secs() < 4,
        "the other container waited: {passed:?}"
    );

    let dropped = loop {
        let (message, _) = client.receive().unwrap();
        match message.body {
            Answer::Dropped { client } => break client,
            Answer::Exited { .. } => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(dropped, 2);
    assert!(
        started.elapsed().as_secs() >= 5,
        "before that the container waits for it"
    );
    let got = sleeper.read_stdout();
    assert!(got.len() < FLOOD, "what it was given before is its own");
    let mut err = String::new();
    sleeper.stderr.unwrap().read_to_string(&mut err).unwrap();
    assert_eq!(reading.join().unwrap().len(), FLOOD, "the other client");
    watcher.exit_of(&container("one"));
    assert_eq!(
        pause.log_text("log").lines().count(),
        FLOOD / 100,
        "the log"
    );
}

#[test]
fn a_slow_client_gets_all_of_it_and_the_exit_does_not_wait_for_it() {
    let (pause, mut client) = running(
        &["box", "read", "", "flood", "1472000", "say", "tail"],
        Stdin::Open,
    );
    let mut slow = attach(&mut client, 1, [Asked, Asked, Absent]).unwrap();
    slow.say("\n");
    // It reads so much that the rest fits the pipe, and then nothing until the container has ended.
    let mut start = vec![0; 800_000];
    slow.stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut start)
        .unwrap();
    client.exit_of(&container("one"));
    assert_eq!(pause.log_text("log").lines().count(), 14_721);
    let forget = Request::Forget {
        container: "one".into(),
    };
    assert_eq!(client.ask(&forget, &[]).0, Answer::Done);
    let rest = slow.read_stdout();
    assert_eq!(start.len() + rest.len(), 1_472_000 + "tail\n".len());
    assert!(rest.ends_with("x\ntail\n"));
}

#[test]
fn clients_that_vanish_leave_nothing() {
    let (pause, mut client) = running(&["box", "read", "", "flood", "64000"], Stdin::Open);
    // An answer to another request: what the launch took is closed by then.
    client.ask(&Request::Detach { client: 0 }, &[]);
    let before = descriptors(&pause);
    for number in 0..100 {
        let attached = attach(&mut client, number, [Asked, Asked, Asked]).unwrap();
        drop(attached);
        match number % 3 {
            0 => drop(client.ask(&Request::Detach { client: number }, &[])),
            1 => {
                let mut other = pause.client();
                drop(attach(&mut other, 1, [Asked, Asked, Asked]).unwrap());
            }
            _ => {}
        }
        client.ask(&Request::Detach { client: number }, &[]);
    }
    until("pause has closed their sockets", || {
        descriptors(&pause) == before
    });
    // A client that vanishes while the container waits for it is as good as dropped, at once.
    let mut gone = attach(&mut client, 200, [Asked, Asked, Absent]).unwrap();
    gone.say("\n");
    drop(gone);
    client.exit_of(&container("one"));
    assert_eq!(pause.log_text("log").lines().count(), 640);
}

#[test]
fn the_number_of_clients_is_bounded() {
    let (_pause, mut client) = running(&["box", "wait", ""], Stdin::Null);
    let mut attached = Vec::new();
    let refused = loop {
        match attach(&mut client, attached.len() as u64, [Absent, Asked, Absent]) {
            Ok(more) => attached.push(more),
            Err(failure) => break failure,
        }
    };
    assert_eq!((refused.errno, attached.len()), (libc::EUSERS, 16));
    client.ask(&Request::Detach { client: 3 }, &[]);
    let again = attach(&mut client, 4, [Absent, Asked, Absent]).err();
    assert_eq!(again.unwrap().errno, libc::EEXIST, "its number is in use");
    attach(&mut client, 3, [Absent, Asked, Absent]).unwrap();
}

#[test]
fn a_terminal_is_shared_by_its_clients() {
    let (pause, mut client) = Pause::ready(plans::sandbox());
    root::make(pause.dir.path());
    let terminal = Step::Terminal {
        rows: 3,
        columns: 4,
    };
    let mut plan = plans::container(
        pause.dir.path(),
        &["box", "read", "", "size", "", "read", "", "say", "end"],
        vec![terminal],
    );
    plan.stdio = Stdio::Terminal;
    client.launch("one", &plan, &pause.log("log")).unwrap();
    let refused = attach(&mut client, 9, [Asked, Asked, Asked]).err().unwrap();
    assert_eq!(refused.errno, libc::EINVAL, "a terminal has no stderr");
    let mut one = attach(&mut client, 1, [Asked, Asked, Absent]).unwrap();
    let mut two = attach(&mut client, 2, [Asked, Asked, Absent]).unwrap();
    let resize = Request::Resize {
        target: container("one"),
        rows: 50,
        columns: 60,
    };
    assert_eq!(client.ask(&resize, &[]).0, Answer::Done);
    one.say("\n");
    two.await_stdout("size 50 60\r\n");
    two.say("\n");
    assert!(one.read_stdout().ends_with("end\r\n"));
    client.exit_of(&container("one"));
    assert!(pause.log_text("log").ends_with(" end\r\n"));
}
