//! Clears a slot, whatever state it was left in.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    mount::{MntFlags, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{CgroupDriver, Slot, deadline, netfilter, processes};

/// Kills the slot's processes and removes its cgroups, mounts, links, rules and files. What is not
/// there is fine.
pub(super) fn reclaim(slot: &Slot) -> Result<()> {
    kill_processes(slot)?;
    CgroupDriver::of_this_run().forget(&slot.cgroup())?;
    for cgroup in cgroups(slot) {
        // A cgroup is empty as soon as its processes are reaped. systemd may remove it meanwhile.
        match fs::remove_dir(&cgroup) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other.with_context(|| format!("removing {}", cgroup.display()))?,
        }
    }
    for mount in mounts(slot) {
        umount2(&mount, MntFlags::MNT_DETACH)
            .with_context(|| format!("unmounting {}", mount.display()))?;
    }
    netfilter::delete_table(&slot.table())?;
    netfilter::delete_link(&slot.bridge())?;
    for directory in [slot.directory(), slot.run_directory()] {
        match fs::remove_dir_all(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other.with_context(|| format!("removing {}", directory.display()))?,
        }
    }
    Ok(())
}

pub(super) fn kill_processes(slot: &Slot) -> Result<()> {
    let end = Instant::now() + deadline();
    loop {
        let left = processes::of(slot);
        if left.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < end, "processes outlive SIGKILL: {left:?}");
        for process in left {
            // Already gone is as good.
            let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// The slot's cgroup in every mounted hierarchy, with all below it; children come first.
pub(super) fn cgroups(slot: &Slot) -> Vec<PathBuf> {
    let name = slot.cgroup();
    let mut roots = vec![PathBuf::from("/sys/fs/cgroup")];
    roots.extend(subdirectories(Path::new("/sys/fs/cgroup")));
    let mut found = Vec::new();
    for root in roots {
        let cgroup = root.join(name.trim_start_matches('/'));
        if cgroup.is_dir() {
            descend(&cgroup, &mut found);
        }
    }
    // cpu and cpuacct are links to the same hierarchy on many systems.
    found.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    found
}

fn descend(directory: &Path, found: &mut Vec<PathBuf>) {
    for child in subdirectories(directory) {
        descend(&child, found);
    }
    found.push(directory.to_owned());
}

fn subdirectories(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let real = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    real.map(|entry| entry.path()).collect()
}

/// Mount points below the slot's directory in this mount namespace, innermost first.
pub(super) fn mounts(slot: &Slot) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from);
    let mut found: Vec<_> = points
        .filter(|point| {
            let own = [slot.directory(), slot.run_directory()];
            own.iter().any(|directory| point.starts_with(directory))
        })
        .collect();
    found.reverse();
    found
}
