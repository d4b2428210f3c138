//! pause's own life: daemons that go and come back, hostile packets, and that nothing outlives it.
#![allow(missing_docs, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod client;

use client::zygote::{Process, Zygote};
use client::{Pause, container, plans, root};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::wait::WaitStatus;
use podwright_pause::birth::Birth;
use podwright_pause::protocol::*;
use podwright_pause::version::Version;
use podwright_pause::wire::Wire;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z"))
}

#[test]
fn a_pause_that_no_daemon_claims_ends() {
    let mut pause = Pause::start();
    assert!(matches!(pause.wait(), WaitStatus::Exited(_, 0)));
}

/// Pods are the daemon's children, named by their ids, and outlive their zygote, which ends with the daemon.
#[test]
fn pods_are_born_side_by_side_and_outlive_their_zygote() {
    let zygote = Zygote::start(&client::binary());
    let born: Vec<_> = (0..3)
        .map(|number| {
            let listener = client::listener(None);
            match zygote.order(format!("pod{number}").as_bytes(), &[&listener]) {
                Some(Birth::Born { pid }) => (number, Process::child(pid)),
                other => panic!("{other:?}"),
            }
        })
        .collect();
    drop(zygote);
    for (number, process) in &born {
        let arguments = || {
            let arguments = std::fs::read(format!("/proc/{}/cmdline", process.id())).unwrap();
            String::from_utf8(arguments).unwrap()
        };
        let expected = format!("podwright-pause pod{number}");
        client::until("it shows its name", || {
            arguments().trim_end_matches('\0') == expected
        });
        assert!(is_alive(process.id()));
    }
    for (_, mut process) in born {
        process.kill();
        client::until("it is reaped", || process.try_wait().is_some());
    }
}

/// What the daemon never sends ends the zygote, and nothing is born of it.
#[test]
fn an_order_without_a_socket_is_none() {
    let mut zygote = Zygote::start(&client::binary());
    assert_eq!(zygote.order(b"pod", &[]), None);
    assert!(!zygote.process.wait().unwrap().success());
}

#[test]
fn exits_are_kept_for_a_daemon_that_comes_back() {
    let (pause, mut client) = Pause::ready(plans::sandbox());
    root::make(pause.dir.path());
    let pid = client
        .launch(
            "one",
            &plans::container(pause.dir.path(), &["box", "exit", "4"], vec![]),
            &pause.log("log"),
        )
        .unwrap();
    drop(client);
    let mut client = pause.connect();
    let (answer, _) = client.ask(
        &Request::Hello {
            version: Version::NEWEST,
        },
        &[],
    );
    assert_eq!(
        answer,
        Answer::Hello {
            version: Version::NEWEST,
            pid: pause.process.id(),
            sandbox: SandboxState::Made
        }
    );
    let mut entries = Vec::new();
    client::until("the exit is listed", || {
        let Answer::Containers { containers } = client.ask(&Request::List, &[]).0 else {
            panic!("no list")
        };
        entries = containers;
        entries[0].exit.is_some()
    });
    assert_eq!(
        (
            entries[0].pid,
            entries[0].exit.as_ref().map(|exit| exit.code)
        ),
        (pid, Some(4))
    );
    let again = client
        .ask(
            &Request::Init {
                sandbox: plans::sandbox(),
            },
            &[],
        )
        .0;
    assert!(
        matches!(
            again,
            Answer::Failed {
                failure: Failure {
                    stage: Stage::Request,
                    errno: libc::EEXIST,
                    ..
                }
            }
        ),
        "{again:?}"
    );
}

#[test]
fn a_pause_without_a_sandbox_ends_with_its_daemon() {
    let mut pause = Pause::start();
    drop(pause.client());
    assert!(matches!(pause.wait(), WaitStatus::Exited(_, 0)));
}

/// CVE-2020-15257: were the way to the socket ever open to others, pause would not listen to them.
#[test]
fn other_users_are_not_served() {
    let (pause, mut client) = Pause::ready(plans::sandbox());
    let other = pause.connect_as(1000);
    assert!(other.receive().is_none(), "it was kept");
    let (answer, _) = client.ask(&Request::List, &[]);
    assert!(matches!(answer, Answer::Containers { .. }), "{answer:?}");
}

#[test]
fn containers_die_with_pause() {
    let (pause, mut client) = Pause::ready(plans::sandbox());
    root::make(pause.dir.path());
    let mut plan = plans::container(pause.dir.path(), &["box", "wait", ""], vec![]);
    plan.process.uid = 1000;
    plan.process.capabilities.permitted = 0;
    plan.process.capabilities.effective = 0;
    let pid = client.launch("one", &plan, &pause.log("log")).unwrap();
    assert!(is_alive(pid));
    pause.process.kill();
    client::until("the container has ended", || !is_alive(pid));
}

#[test]
fn shutdown_leaves_nothing() {
    let (mut pause, mut client) = Pause::ready(plans::sandbox());
    root::make(pause.dir.path());
    let pid = client
        .launch(
            "one",
            &plans::container(pause.dir.path(), &["box", "fork", "", "wait", ""], vec![]),
            &pause.log("log"),
        )
        .unwrap();
    let net = std::fs::read_link(format!("/proc/{}/ns/net", pause.process.id())).unwrap();
    client.send(&Request::Shutdown, &[]);
    while client.receive().is_some() {}
    assert!(matches!(pause.wait(), WaitStatus::Exited(_, 0)));
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    for process in std::fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
        let of_pod =
            std::fs::read_link(process.path().join("ns/net")).is_ok_and(|other| other == net);
        assert!(!of_pod, "{:?} is left", process.path());
    }
}

#[test]
fn polite_signals_do_not_end_a_pod() {
    let (pause, mut client) = Pause::ready(plans::sandbox());
    for signal in ["-TERM", "-INT", "-HUP", "-PIPE", "-USR1"] {
        std::process::Command::new("kill")
            .args([signal, &pause.process.id().to_string()])
            .status()
            .unwrap();
    }
    assert!(matches!(
        client.ask(&Request::List, &[]).0,
        Answer::Containers { .. }
    ));
}

#[test]
fn malformed_packets_are_answered_and_harm_nobody() {
    let (pause, mut client) = Pause::ready(plans::sandbox());
    root::make(pause.dir.path());
    client
        .launch(
            "one",
            &plans::container(pause.dir.path(), &["box", "wait", ""], vec![]),
            &pause.log("log"),
        )
        .unwrap();
    let hostile = pause.client();
    let launch = Request::Launch {
        container: "x".into(),
        plan: PlanBytes::Inline {
            plan: podwright_pause::wire::Bytes(vec![0xff; 40]),
        },
    };
    let packets = [
        vec![1],
        vec![0xff; 64],
        vec![0; MAX_PACKET + 1000],
        [77u64.to_le_bytes().as_slice(), &[200]].concat(),
        [
            Message {
                id: 5,
                body: Request::List,
            }
            .to_bytes(),
            vec![0],
        ]
        .concat(),
        Message {
            id: 6,
            body: launch,
        }
        .to_bytes(),
        Message {
            id: 7,
            body: Request::ReopenLog {
                container: "one".into(),
            },
        }
        .to_bytes(),
        Message {
            id: 8,
            body: Request::Resize {
                target: container("one"),
                rows: 1,
                columns: 1,
            },
        }
        .to_bytes(),
        Message {
            id: 9,
            body: Request::Signal {
                target: container("one"),
                signal: 4096,
            },
        }
        .to_bytes(),
    ];
    for packet in &packets {
        hostile.send_raw(packet, &[]);
        let (message, _) = hostile.receive().unwrap();
        assert!(
            matches!(
                message.body,
                Answer::Failed {
                    failure: Failure {
                        stage: Stage::Request,
                        ..
                    }
                }
            ),
            "{message:?}"
        );
    }
    let Answer::Containers { containers } = client.ask(&Request::List, &[]).0 else {
        panic!("no list")
    };
    assert_eq!(containers[0].exit, None);
}

#[test]
fn every_request_with_a_broken_byte_is_survived() {
    let (pause, mut client) = Pause::ready(plans::sandbox());
    let hostile = pause.client();
    let message = Message {
        id: 3,
        body: Request::Signal {
            target: container("some-container"),
            signal: 0,
        },
    }
    .to_bytes();
    for at in 0..message.len() {
        for bit in 0..8 {
            let mut packet = message.clone();
            packet[at] ^= 1 << bit;
            // Tag 11 is Shutdown, and alone in its message it would be obeyed; with bytes behind it, it is malformed.
            hostile.send_raw(&packet, &[]);
            hostile.receive().unwrap();
        }
    }
    assert!(matches!(
        client.ask(&Request::List, &[]).0,
        Answer::Containers { .. }
    ));
}

/// A network namespace that no process is in.
fn empty_network() -> File {
    let made = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
        File::open("/proc/thread-self/ns/net").unwrap()
    });
    made.join().unwrap()
}

/// The daemon makes the pod's network beside pause, which joins it.
#[test]
fn a_network_that_is_passed_is_joined() {
    let (pause, network) = (Pause::start(), empty_network());
    let sandbox = plans::sandbox();
    let (answer, made) = pause
        .client()
        .ask(&Request::Init { sandbox }, &[network.as_raw_fd()]);
    assert!(matches!(answer, Answer::Ready { .. }), "{answer:?}");
    assert!(made.is_empty(), "it made another");
    let own = std::fs::metadata(format!("/proc/{}/ns/net", pause.process.id())).unwrap();
    assert_eq!(own.ino(), network.metadata().unwrap().ino());
    // What the plan sets, it sets there.
    let port = std::thread::spawn(move || {
        setns(&network, CloneFlags::CLONE_NEWNET).unwrap();
        std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap()
    });
    assert_eq!(port.join().unwrap().trim(), "7");
}

#[test]
fn a_network_is_not_joined_where_the_pod_has_the_hosts() {
    let (pause, network) = (Pause::start(), empty_network());
    let sandbox = SandboxPlan {
        namespaces: libc::CLONE_NEWIPC as u64,
        ..plans::sandbox()
    };
    let request = Request::Init { sandbox };
    let (answer, _) = pause.client().ask(&request, &[network.as_raw_fd()]);
    let Answer::Failed { failure } = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(failure.errno, libc::EINVAL, "{failure:?}");
}
