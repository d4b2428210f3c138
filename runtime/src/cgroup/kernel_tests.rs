//! Against this machine's real control groups, under names of our own. They need root.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashMap;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use oci_spec::runtime::{
    LinuxCpuBuilder, LinuxDeviceCgroupBuilder, LinuxDeviceType, LinuxHugepageLimitBuilder,
    LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder,
};

use super::*;

mod exec;
mod kill;
mod leaves;
mod limits;
mod usage;

/// Only failures take so long, and an emulated machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// A group of this test alone; killed and removed in the end.
struct Scratch {
    hierarchy: Hierarchy,
    top: CgroupPath,
}

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "/podwright-test-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        Self {
            hierarchy: Hierarchy::detect().unwrap(),
            top: CgroupPath::new(&name).unwrap(),
        }
    }

    fn create(&self, below: &str) -> Cgroup {
        let path = below
            .split('/')
            .fold(self.top.clone(), |path, name| path.join(name).unwrap());
        self.hierarchy.create(&path).unwrap()
    }

    /// A shell in `group`, running `script` after it has joined.
    fn run(&self, group: &Cgroup, script: &str) -> Child {
        self.run_in(&group.join_files(), script)
    }

    /// The same with the files to be joined by.
    fn run_in(&self, files: &[std::path::PathBuf], script: &str) -> Child {
        let mut child = Command::new("sh")
            .arg("-c")
            .arg(format!("read go; {script}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        for file in files {
            std::fs::write(file, child.id().to_string())
                .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        }
        writeln!(child.stdin.take().unwrap(), "go").unwrap();
        child
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let group = self.hierarchy.cgroup(&self.top);
        let _ = group.kill_all(DEADLINE);
        let deadline = Instant::now() + DEADLINE;
        while group.remove().is_err_and(|error| error.is_busy()) && Instant::now() < deadline {
            std::thread::yield_now();
        }
    }
}

fn resources() -> LinuxResources {
    let rule = |allow, typ, major: i64, minor: i64| {
        LinuxDeviceCgroupBuilder::default()
            .allow(allow)
            .typ(typ)
            .major(major)
            .minor(minor)
            .access("rwm")
            .build()
            .unwrap()
    };
    LinuxResourcesBuilder::default()
        .memory(
            LinuxMemoryBuilder::default()
                .limit(64i64 << 20)
                .swap(64i64 << 20)
                .build()
                .unwrap(),
        )
        .cpu(
            LinuxCpuBuilder::default()
                .shares(512u64)
                .quota(50_000i64)
                .period(100_000u64)
                .cpus("0")
                .mems("0")
                .build()
                .unwrap(),
        )
        .pids(LinuxPidsBuilder::default().limit(32i64).build().unwrap())
        .devices(vec![
            rule(false, LinuxDeviceType::A, -1, -1),
            rule(true, LinuxDeviceType::C, 1, 3),
            rule(true, LinuxDeviceType::C, 1, 5),
        ])
        .build()
        .unwrap()
}

fn memory(limit: i64, swap: i64) -> LinuxResources {
    LinuxResourcesBuilder::default()
        .memory(
            LinuxMemoryBuilder::default()
                .limit(limit)
                .swap(swap)
                .build()
                .unwrap(),
        )
        .build()
        .unwrap()
}
