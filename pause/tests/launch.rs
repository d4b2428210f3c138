//! Launching containers: what they see, how they end, and that nothing is left of those that fail.
#![allow(missing_docs, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod client;

use client::{Client, Pause, container, plans, root};
use nix::sys::wait::WaitStatus;
use podwright_pause::plan::*;
use podwright_pause::protocol::*;
use podwright_pause::wire::{Bytes, Wire};
use std::os::fd::AsRawFd;

fn namespace(pid: u32, kind: &str) -> String {
    std::fs::read_link(format!("/proc/{pid}/ns/{kind}"))
        .unwrap()
        .display()
        .to_string()
}

fn list(client: &mut Client) -> Vec<ContainerEntry> {
    match client.ask(&Request::List, &[]).0 {
        Answer::Containers { containers } => containers,
        other => panic!("{other:?}"),
    }
}

#[test]
fn exit_code_and_output_are_told() {
    let (pause, mut client) = Pause::ready(plans::sandbox());
    root::make(pause.dir.path());
    let argv = [
        "box",
        "say",
        "hello",
        "err",
        "trouble",
        "print",
        "no newline",
        "exit",
        "7",
    ];
    client
        .launch(
            "one",
            &plans::container(pause.dir.path(), &argv, vec![]),
            &pause.log("log"),
        )
        .unwrap();
    let exit = client.exit_of(&container("one"));
    assert_eq!((exit.code, exit.signal), (7, 0));
    let log = pause.log_text("log");
    for record in [
        " stdout F hello\n",
        " stderr F trouble\n",
        " stdout P no newline\n",
    ] {
        assert!(log.contains(record), "{log}");
    }
    let entries = list(&mut client);
    assert_eq!(entries[0].exit.as_ref(), Some(&exit));
    let forget = Request::Forget {
        container: "one".into(),
    };
    assert_eq!(client.ask(&forget, &[]).0, Answer::Done);
    assert!(list(&mut client).is_empty());
}

#[test]
fn a_signal_ends_a_container_and_is_told() {
    let (pause, mut client) = Pause::ready(plans::sandbox());
    root::make(pause.dir.path());
    client
        .launch(
            "one",
            &plans::container(pause.dir.path(), &["box", "wait", ""], vec![]),
            &pause.log("log"),
        )
        .unwrap();
    let busy = client
        .ask(
            &Request::Forget {
                container: "one".into(),
            },
            &[],
        )
        .0;
    assert!(
        matches!(
            busy,
            Answer::Failed {
                failure: Failure {
                    errno: libc::EBUSY,
                    ..
                }
            }
        ),
        "{busy:?}"
    );
    let kill = Request::Signal {
        target: container("one"),
        signal: libc::SIGKILL,
    };
    assert_eq!(client.ask(&kill, &[]).0, Answer::Done);
    let exit = client.exit_of(&container("one"));
    assert_eq!((exit.code, exit.signal), (137, 9));
    let gone = client.ask(&kill, &[]).0;
    assert!(
        matches!(
            gone,
            Answer::Failed {
                failure: Failure {
                    errno: libc::ESRCH,
                    ..
                }
            }
        ),
        "{gone:?}"
    );
}

#[test]
fn namespaces_are_the_pods_or_the_containers_own() {
    let (pause, mut client) = Pause::ready(plans::sandbox());
    root::make(pause.dir.path());
    let argv = [
        "box",
        "cat",
        "/proc/sys/kernel/hostname",
        "cat",
        "/proc/sys/net/ipv4/ip_unprivileged_port_start",
        "wait",
        "",
    ];
    let pid = client
        .launch(
            "one",
            &plans::container(pause.dir.path(), &argv, vec![]),
            &pause.log("log"),
        )
        .unwrap();
    let own = std::process::id();
    for kind in ["net", "ipc", "uts"] {
        assert_eq!(namespace(pid, kind), namespace(pause.process.id(), kind));
        assert_ne!(namespace(pid, kind), namespace(own, kind));
    }
    for kind in ["mnt", "pid", "cgroup"] {
        assert_ne!(namespace(pid, kind), namespace(pause.process.id(), kind));
        assert_eq!(
            namespace(own, kind),
            namespace(pause.process.id(), kind),
            "pause itself stays on the host"
        );
    }
    client::until("the container has spoken", || {
        pause.log_text("log").contains("F 7\n")
    });
    assert!(pause.log_text("log").contains("F tested\n"));
}

#[test]
fn a_shared_pid_namespace_has_an_init_with_nothing() {
    let pause = Pause::start();
    let mut client = pause.client();
    let sandbox = SandboxPlan {
        pid_namespace: PodPid::Shared,
        ..plans::sandbox()
    };
    let Answer::Ready { pid_init } = client.ask(&Request::Init { sandbox }, &[]).0 else {
        panic!("not ready")
    };
    client::until("init is confined", || {
        std::fs::read_to_string(format!("/proc/{pid_init}/status"))
            .unwrap()
            .contains("Seccomp:\t2")
    });
    let status = std::fs::read_to_string(format!("/proc/{pid_init}/status")).unwrap();
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert!(
            status.contains(&format!("{set}:\t0000000000000000")),
            "{status}"
        );
    }
    assert_eq!(
        std::fs::read_dir(format!("/proc/{pid_init}/root/"))
            .unwrap()
            .count(),
        0
    );
    assert_eq!(
        std::fs::read_to_string(format!("/proc/{pid_init}/mountinfo"))
            .unwrap()
            .lines()
            .count(),
        1
    );
    let mut pids = Vec::new();
    for (name, pid_namespace) in [
        ("a", PidNamespace::Pod),
        ("b", PidNamespace::Container { id: "a".into() }),
    ] {
        root::make(&pause.path(name));
        let mut plan =
            plans::container(&pause.path(name), &["box", "fork", "", "wait", ""], vec![]);
        plan.new_namespaces &= !(libc::CLONE_NEWPID as u64);
        plan.pid_namespace = pid_namespace;
        pids.push(
            client
                .launch(name, &plan, &pause.log(&format!("log-{name}")))
                .unwrap(),
        );
    }
    assert_eq!(namespace(pids[0], "pid"), namespace(pid_init, "pid"));
    assert_eq!(namespace(pids[1], "pid"), namespace(pid_init, "pid"));
    assert_ne!(
        namespace(pids[0], "pid"),
        namespace(pause.process.id(), "pid")
    );
    client.send(&Request::Shutdown, &[]);
    let mut pause = pause;
    assert!(matches!(pause.wait(), WaitStatus::Exited(_, 0)));
    assert!(!std::path::Path::new(&format!("/proc/{pid_init}")).exists());
}

#[test]
fn a_failing_start_names_stage_and_errno_and_leaves_nothing() {
    let (pause, mut client) = Pause::ready(plans::sandbox());
    root::make(pause.dir.path());
    let dir = pause.dir.path();
    let ok = ["box", "exit", "0"];
    let missing_source = plans::container(
        dir,
        &ok,
        vec![plans::bind("/nonexistent/source".as_ref(), "/x")],
    );
    let step = (missing_source.steps.len() - 2) as u32;
    let mut no_cwd = plans::container(dir, &ok, vec![]);
    no_cwd.process.cwd = "/nowhere".into();
    let mut no_cgroup = plans::container(dir, &ok, vec![]);
    no_cgroup.cgroup_procs = vec!["/sys/fs/cgroup/nonexistent/cgroup.procs".into()];
    let mut bad_filter = plans::container(dir, &ok, vec![]);
    bad_filter.process.seccomp = Some(Bytes(vec![0; 7]));
    let cases = [
        (
            missing_source,
            Stage::Step { index: step },
            "openat2",
            "/nonexistent/source",
            libc::ENOENT,
        ),
        (
            plans::container(dir, &["nothing"], vec![]),
            Stage::Program,
            "execve",
            "nothing",
            libc::ENOENT,
        ),
        (
            plans::container(dir, &["/etc/secret"], vec![]),
            Stage::Program,
            "execve",
            "/etc/secret",
            libc::EACCES,
        ),
        (
            no_cwd,
            Stage::WorkingDirectory,
            "chdir",
            "/nowhere",
            libc::ENOENT,
        ),
        (
            no_cgroup,
            Stage::Birth,
            "openat2",
            "/sys/fs/cgroup/nonexistent/cgroup.procs",
            libc::ENOENT,
        ),
        (bad_filter, Stage::Identity, "seccomp", "", libc::EINVAL),
    ];
    let descriptors = || {
        std::fs::read_dir(format!("/proc/{}/fd", pause.process.id()))
            .unwrap()
            .count()
    };
    let before = descriptors();
    for (plan, stage, call, subject, errno) in cases {
        let failure = client.launch("one", &plan, &pause.log("log")).unwrap_err();
        assert_eq!(
            failure,
            Failure {
                stage,
                call: call.into(),
                subject: subject.into(),
                errno
            }
        );
        let children = format!("/proc/{0}/task/{0}/children", pause.process.id());
        assert_eq!(std::fs::read_to_string(children).unwrap(), "");
        assert_eq!(descriptors(), before);
    }
    assert!(list(&mut client).is_empty());
    let (exit, _) = client.run(&pause, "one", &plans::container(dir, &ok, vec![]));
    assert_eq!(exit.code, 0, "the id is free again");
    let failure = client
        .launch(
            "one",
            &plans::container(dir, &ok, vec![]),
            &pause.log("log"),
        )
        .unwrap_err();
    assert_eq!(
        (failure.stage, failure.errno),
        (Stage::Request, libc::EEXIST)
    );
}

#[test]
fn a_plan_by_memfd_must_be_sealed() {
    use nix::fcntl::{FcntlArg, SealFlag, fcntl};
    let (pause, mut client) = Pause::ready(plans::sandbox());
    root::make(pause.dir.path());
    let mut plan = plans::container(pause.dir.path(), &["box", "exit", "3"], vec![]);
    plan.process.env.push(Bytes(vec![b'x'; 100_000]));
    let bytes = plan.to_bytes();
    let memfd = nix::sys::memfd::memfd_create("plan", nix::sys::memfd::MFdFlags::MFD_ALLOW_SEALING)
        .unwrap();
    nix::unistd::write(&memfd, &bytes).unwrap();
    let request = Request::Launch {
        container: "one".into(),
        plan: PlanBytes::Memfd {
            length: bytes.len() as u32,
        },
    };
    let log = pause.log("log");
    let fds = [memfd.as_raw_fd(), log.as_raw_fd()];
    let failure = client::launched(client.ask(&request, &fds).0).unwrap_err();
    assert_eq!(
        (failure.stage, failure.errno),
        (Stage::Request, libc::EPERM)
    );
    fcntl(
        &memfd,
        FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK),
    )
    .unwrap();
    client::launched(client.ask(&request, &fds).0).unwrap();
    assert_eq!(client.exit_of(&container("one")).code, 3);
}

#[test]
fn a_container_with_a_terminal() {
    let (pause, mut client) = Pause::ready(plans::sandbox());
    root::make(pause.dir.path());
    let argv = [
        "box",
        "size",
        "",
        "tty",
        "",
        "stat",
        "/dev/console",
        "wait",
        "",
    ];
    let mut plan = plans::container(
        pause.dir.path(),
        &argv,
        vec![Step::Terminal {
            rows: 24,
            columns: 80,
        }],
    );
    plan.stdio = Stdio::Terminal;
    client.launch("one", &plan, &pause.log("log")).unwrap();
    client::until("the terminal has spoken", || {
        pause.log_text("log").contains("console: 20620")
    });
    let log = pause.log_text("log");
    assert!(
        log.contains("stdout F size 24 80\r\n") && log.contains("F tty ok\r\n"),
        "{log}"
    );
    let resize = Request::Resize {
        target: container("one"),
        rows: 5,
        columns: 6,
    };
    assert_eq!(client.ask(&resize, &[]).0, Answer::Done);
    client.ask(
        &Request::Signal {
            target: container("one"),
            signal: 9,
        },
        &[],
    );
    assert_eq!(client.exit_of(&container("one")).signal, 9);
}
