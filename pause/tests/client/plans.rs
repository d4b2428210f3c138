//! Launch plans as the daemon makes them.

use podwright_pause::plan::*;
use podwright_pause::protocol::{Missing, PodPid, SandboxPlan, Sysctl};
use podwright_pause::wire::Bytes;
use std::path::Path;

const NOSUID_NODEV_NOEXEC: u64 = 0x2 | 0x4 | 0x8;

pub fn sandbox() -> SandboxPlan {
    SandboxPlan {
        pod: "pod".into(),
        namespaces: (libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS) as u64,
        cgroup_procs: Vec::new(),
        oom_score_adj: None,
        hostname: "tested".into(),
        sysctls: vec![Sysctl {
            path: "net/ipv4/ip_unprivileged_port_start".into(),
            value: "7".into(),
            missing: Missing::Fails,
        }],
        shm_size: 1 << 20,
        pid_namespace: PodPid::Separate,
        user_namespace: None,
        shm_label: None,
    }
}

/// All capabilities that root has here.
pub fn all_capabilities() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapBnd:"))
        .unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap()
}

pub fn process(argv: &[&str]) -> Process {
    let all = all_capabilities();
    Process {
        argv: argv.iter().map(|&argument| argument.into()).collect(),
        env: vec!["PATH=/sbin:/bin".into()],
        cwd: "/".into(),
        uid: 0,
        gid: 0,
        groups: Vec::new(),
        umask: 0o22,
        capabilities: Capabilities {
            bounding: all,
            effective: all,
            permitted: all,
            inheritable: 0,
            ambient: 0,
        },
        new_privileges: NewPrivileges::Denied,
        seccomp: None,
        rlimits: Vec::new(),
        apparmor: None,
        selinux: None,
    }
}

pub fn bind(source: &Path, target: &str) -> Step {
    Step::Bind {
        source: BindSource::Host {
            path: source.into(),
        },
        tree: Recursion::Tree,
        attributes: 0,
        attributes_tree: Recursion::This,
        propagation: libc::MS_PRIVATE,
        target: target.into(),
        create: Create::AsSource,
        owners: Owners::OfHost,
    }
}

pub fn mount(fstype: &str, target: &str, options: &[(&str, &str)]) -> Step {
    let option = |&(key, value): &(&str, &str)| FsOption {
        key: key.into(),
        value: (!value.is_empty()).then(|| Bytes::from(value)),
    };
    Step::MountFs {
        fstype: fstype.into(),
        source: fstype.into(),
        options: options.iter().map(option).collect(),
        attributes: if fstype == "devpts" {
            0x2 | 0x8
        } else {
            NOSUID_NODEV_NOEXEC
        },
        target: target.into(),
        create: Create::Directory,
    }
}

pub fn device(path: &str, major: u32, minor: u32) -> Step {
    Step::Device {
        path: path.into(),
        mode: libc::S_IFCHR | 0o666,
        major,
        minor,
        uid: 0,
        gid: 0,
    }
}

/// The tree that every container gets, before `more` and the pivot.
pub fn tree(dir: &Path, more: Vec<Step>) -> Vec<Step> {
    let options = format!(
        "lowerdir=base,upperdir={0}/upper,workdir={0}/work",
        dir.display()
    );
    let mut steps = vec![
        Step::TreePropagation {
            flags: libc::MS_SLAVE | libc::MS_REC,
        },
        Step::OverlayRoot {
            layers: dir.join("layers").as_path().into(),
            options: options.into(),
            at: dir.join("merged").as_path().into(),
        },
        mount("proc", "/proc", &[]),
        Step::MountFs {
            fstype: "tmpfs".into(),
            source: "tmpfs".into(),
            options: vec![FsOption {
                key: "mode".into(),
                value: Some("0755".into()),
            }],
            attributes: 0x2,
            target: "/dev".into(),
            create: Create::Directory,
        },
        mount(
            "devpts",
            "/dev/pts",
            &[("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620")],
        ),
        device("/dev/null", 1, 3),
        device("/dev/zero", 1, 5),
        device("/dev/tty", 5, 0),
        Step::Symlink {
            text: "/proc/self/fd".into(),
            path: "/dev/fd".into(),
        },
        Step::Bind {
            source: BindSource::PodShm,
            tree: Recursion::This,
            attributes: 0,
            attributes_tree: Recursion::This,
            propagation: libc::MS_PRIVATE,
            target: "/dev/shm".into(),
            create: Create::Directory,
            owners: Owners::OfHost,
        },
    ];
    steps.extend(more);
    steps.push(Step::Pivot);
    steps
}

/// A container with the usual tree in `dir`, which [`super::root::make`] made.
pub fn container(dir: &Path, argv: &[&str], more: Vec<Step>) -> LaunchPlan {
    LaunchPlan {
        new_namespaces: (libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWCGROUP) as u64,
        pid_namespace: PidNamespace::Host,
        cgroup_procs: Vec::new(),
        oom_score_adj: None,
        steps: tree(dir, more),
        process: process(argv),
        stdio: Stdio::Log { stdin: Stdin::Null },
    }
}
