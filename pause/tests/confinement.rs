//! What a container must not have, see or reach.
#![allow(missing_docs, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod client;

use client::{Pause, container, plans, root};
use podwright_pause::plan::*;
use podwright_pause::protocol::{Failure, Stage};
use podwright_pause::wire::Bytes;

const CHOWN_AND_KILL: u64 = 1 << 0 | 1 << 5;

/// A filter that allows everything: its presence is what is tested.
fn allow_all() -> Option<Bytes> {
    Some(Bytes(vec![0x06, 0, 0, 0, 0, 0, 0xff, 0x7f]))
}

#[test]
fn the_process_is_who_the_plan_says() {
    let (pause, mut client) = Pause::ready(plans::sandbox());
    for (name, new_privileges, bit) in [
        ("allowed", NewPrivileges::Allowed, '0'),
        ("denied", NewPrivileges::Denied, '1'),
    ] {
        root::make(&pause.path(name).join(""));
        let mut plan = plans::container(
            &pause.path(name),
            &[
                "box",
                "cat",
                "/proc/self/status",
                "cat",
                "/proc/self/limits",
                "write",
                "/dev/stdout",
            ],
            vec![],
        );
        plan.process.uid = 1234;
        plan.process.gid = 5678;
        plan.process.groups = vec![9, 10];
        plan.process.umask = 0o027;
        plan.process.new_privileges = new_privileges;
        plan.process.seccomp = allow_all();
        plan.process.rlimits = vec![Rlimit {
            resource: libc::RLIMIT_NOFILE,
            soft: 77,
            hard: 88,
        }];
        plan.process.capabilities = Capabilities {
            bounding: CHOWN_AND_KILL,
            effective: 1,
            permitted: CHOWN_AND_KILL,
            inheritable: 1,
            ambient: 1,
        };
        plan.steps.insert(
            plan.steps.len() - 1,
            Step::Symlink {
                text: "/proc/self/fd/1".into(),
                path: "/dev/stdout".into(),
            },
        );
        let (exit, log) = client.run(&pause, &format!("log-{name}"), &plan);
        assert_eq!(exit.code, 0, "{log}");
        let log = log.replace(' ', "\t");
        for line in [
            "Uid:\t1234\t1234\t1234\t1234",
            "Gid:\t5678\t5678\t5678\t5678",
            "Groups:\t9\t10",
            "Umask:\t0027",
            "CapBnd:\t0000000000000021",
            "CapInh:\t0000000000000001",
            // After execve of an ordinary file a user has the ambient capabilities only.
            "CapPrm:\t0000000000000001",
            "CapEff:\t0000000000000001",
            "CapAmb:\t0000000000000001",
            &format!("NoNewPrivs:\t{bit}"),
            "Seccomp:\t2",
            "Seccomp_filters:\t1",
            "SigBlk:\t0000000000000000",
            "SigIgn:\t0000000000000000",
            "write\t/dev/stdout:\tok",
        ] {
            assert!(log.contains(line), "{line} in {log}");
        }
        let limit: Vec<&str> = log
            .lines()
            .find(|line| line.starts_with("Max\topen"))
            .unwrap()
            .split('\t')
            .filter(|part| !part.is_empty())
            .collect();
        assert_eq!(limit[3..5], ["77", "88"]);
    }
}

#[test]
fn only_the_standard_streams_are_open() {
    let (pause, mut client) = Pause::ready(plans::sandbox());
    root::make(pause.dir.path());
    let (_, log) = client.run(
        &pause,
        "log",
        &plans::container(pause.dir.path(), &["box", "fds", ""], vec![]),
    );
    assert_eq!(log, "fd 0\nfd 1\nfd 2\n");
}

#[test]
fn masked_and_read_only_paths() {
    let (pause, mut client) = Pause::ready(plans::sandbox());
    root::make(pause.dir.path());
    std::fs::write(pause.path("layers/base/tmp/seen"), "").unwrap();
    std::fs::create_dir(pause.path("layers/base/masked")).unwrap();
    std::fs::write(pause.path("layers/base/masked/unseen"), "").unwrap();
    let more = [
        "/etc/secret",
        "/tmp",
        "/masked",
        "/missing/path",
        "/etc/secret/x",
    ]
    .map(|path| Step::Mask { path: path.into() });
    let mut more = more.to_vec();
    more.push(Step::ReadOnly {
        path: "/proc/sys".into(),
    });
    more.push(Step::ReadOnly {
        path: "/not/there".into(),
    });
    let argv = [
        "box",
        "cat",
        "/etc/secret",
        "ls",
        "/tmp",
        "ls",
        "/masked",
        "write",
        "/tmp/x",
        "write",
        "/proc/sys/kernel/hostname",
        "write",
        "/x",
        "ls",
        "/dev/shm",
        "write",
        "/dev/shm/y",
    ];
    let mut plan = plans::container(pause.dir.path(), &argv, more);
    plan.steps.push(Step::RootReadOnly);
    plan.steps.push(Step::RootPropagation {
        flags: libc::MS_PRIVATE,
    });
    let (exit, log) = client.run(&pause, "log", &plan);
    assert_eq!(exit.code, 0, "{log}");
    let read_only = ": Read-only file system\n";
    assert_eq!(
        log,
        format!(
            "write /tmp/x{read_only}write /proc/sys/kernel/hostname{read_only}write /x{read_only}write /dev/shm/y: ok\n"
        )
    );
    let argv = ["box", "ls", "/dev/shm"];
    std::fs::create_dir(pause.path("two")).unwrap();
    root::make(&pause.path("two"));
    let (_, log) = client.run(
        &pause,
        "log2",
        &plans::container(&pause.path("two"), &argv, vec![]),
    );
    assert_eq!(
        log, "ls /dev/shm: y\n",
        "the pod's containers share /dev/shm"
    );
}

#[test]
fn a_null_device_that_is_a_link_masks_nothing_but_itself() {
    let (pause, mut client) = Pause::ready(plans::sandbox());
    root::make(pause.dir.path());
    std::fs::write(pause.path("layers/base/etc/bait"), "bait\n").unwrap();
    let mut plan = plans::container(
        pause.dir.path(),
        &["box", "cat", "/etc/secret", "say", "end"],
        vec![Step::Mask {
            path: "/etc/secret".into(),
        }],
    );
    plan.steps
        .retain(|step| !matches!(step, Step::Device { .. }));
    plan.steps.insert(
        4,
        Step::Symlink {
            text: "/etc/bait".into(),
            path: "/dev/null".into(),
        },
    );
    let (exit, log) = client.run(&pause, "log", &plan);
    assert_eq!((exit.code, log.as_str()), (0, "end\n"));
}

#[test]
fn targets_that_lead_elsewhere_stay_inside() {
    let (pause, mut client) = Pause::ready(plans::sandbox());
    let base = root::make(pause.dir.path());
    let outside = pause.path("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::create_dir_all(
        pause
            .path("layers/base")
            .join(outside.strip_prefix("/").unwrap()),
    )
    .unwrap();
    std::os::unix::fs::symlink(&outside, base.join("absolute")).unwrap();
    std::os::unix::fs::symlink("../../../../../../../..", base.join("up")).unwrap();
    std::os::unix::fs::symlink("/nowhere/at/all", base.join("dangling")).unwrap();
    let source = pause.path("source");
    std::fs::write(&source, "bound\n").unwrap();
    let bound = |target: &str| plans::bind(&source, target);
    let more = vec![
        bound("/absolute/a/b"),
        bound("/up/c"),
        bound("/absolute/../../../../../d"),
        Step::Mkdir {
            path: "/up/e/f".into(),
            mode: 0o700,
            uid: 5,
            gid: 6,
        },
    ];
    let inside = format!("{}/a/b", outside.display());
    let argv = ["box", "cat", &inside, "cat", "/c", "stat", "/e/f"];
    let (exit, log) = client.run(
        &pause,
        "log",
        &plans::container(pause.dir.path(), &argv, more),
    );
    assert_eq!(
        (exit.code, log.as_str()),
        (0, "bound\nbound\nstat /e/f: 40700 5:6\n")
    );
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    for path in ["/c", "/d", "/e"] {
        assert!(!std::path::Path::new(path).exists());
    }
    let dangling = plans::container(pause.dir.path(), &["box"], vec![bound("/dangling/x")]);
    let failure = client
        .launch("dangling", &dangling, &pause.log("log"))
        .unwrap_err();
    assert_eq!(
        (failure.call, failure.errno),
        ("mkdirat".into(), libc::EEXIST)
    );
    assert!(!std::path::Path::new("/nowhere").exists());
}

#[test]
fn proc_and_console_must_not_be_links() {
    let (pause, mut client) = Pause::ready(plans::sandbox());
    let base = root::make(pause.dir.path());
    std::fs::remove_dir(base.join("proc")).unwrap();
    std::os::unix::fs::symlink("/tmp", base.join("proc")).unwrap();
    let failure = client
        .launch(
            "one",
            &plans::container(pause.dir.path(), &["box"], vec![]),
            &pause.log("log"),
        )
        .unwrap_err();
    assert_eq!(
        failure,
        Failure {
            stage: Stage::Step { index: 2 },
            call: "openat2".into(),
            subject: "/proc".into(),
            errno: libc::ELOOP
        }
    );

    std::fs::remove_file(base.join("proc")).unwrap();
    std::fs::create_dir(base.join("proc")).unwrap();
    let link = Step::Symlink {
        text: "/etc/secret".into(),
        path: "/dev/console".into(),
    };
    let mut plan = plans::container(
        pause.dir.path(),
        &["box"],
        vec![
            link,
            Step::Terminal {
                rows: 0,
                columns: 0,
            },
        ],
    );
    plan.stdio = Stdio::Terminal;
    let failure = client.launch("one", &plan, &pause.log("log")).unwrap_err();
    assert_eq!(
        (failure.call, failure.errno),
        ("verify console".into(), libc::ELOOP)
    );
}

#[test]
fn no_descriptor_leads_out_by_the_working_directory() {
    let (pause, mut client) = Pause::ready(plans::sandbox());
    root::make(pause.dir.path());
    let mut refused = 0;
    for fd in 0..16 {
        let mut plan = plans::container(pause.dir.path(), &["box", "cwd", "", "ls", "."], vec![]);
        plan.process.cwd = format!("/proc/self/fd/{fd}").into();
        let id = format!("log-{fd}");
        match client.launch(&id, &plan, &pause.log(&id)) {
            Err(failure) => {
                assert_eq!(failure.stage, Stage::WorkingDirectory);
                refused += 1;
            }
            Ok(_) => {
                client.exit_of(&container(&id));
                let log = pause.log_text(&id);
                assert!(log.contains("F cwd /"), "{log}");
                assert!(!log.contains("F ls .: layers"), "{log}");
            }
        }
    }
    assert!(refused > 0);
}
