//! What of a slot is on the machine, to compare before and after.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::Path,
};

use anyhow::{Context as _, Result};

use super::{Slot, netfilter, processes, reclaim, until};

/// Processes, mounts, links, rules, cgroups and files that belong to a slot; nothing of other tests
/// that run at the same time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    items: BTreeSet<String>,
}

impl Snapshot {
    /// What is there now.
    ///
    /// # Errors
    /// When nftables cannot be listed, which needs root.
    pub fn of(slot: &Slot) -> Result<Self> {
        let mut items = BTreeSet::new();
        let daemon = slot.path("podwright.toml").display().to_string();
        // The daemon itself may have been started anew.
        let others = processes::of(slot).into_iter();
        for process in others.filter(|process| !process.command.ends_with(&daemon)) {
            items.insert(format!("process {} ({})", process.pid, process.command));
        }
        for mount in reclaim::mounts(slot) {
            items.insert(format!("mount {}", mount.display()));
        }
        // The root, which the first pod makes, stays as the bridge does.
        let root = slot.cgroup();
        let below = reclaim::cgroups(slot).into_iter();
        for cgroup in below.filter(|path| !path.ends_with(root.trim_start_matches('/'))) {
            items.insert(format!("cgroup {}", cgroup.display()));
        }
        for (what, count) in netfilter::contents(&slot.table())? {
            // A detached link is filtered until the kernel has deleted it; the next pod's call drops the
            // element, so the last one of each stays.
            if what.ends_with(" set links") {
                continue;
            }
            // One item each, so that fewer than before is no difference.
            for number in 1..=count {
                items.insert(format!("nftables: {what}, number {number}"));
            }
        }
        let ports = format!("/sys/class/net/{}/brif", slot.bridge());
        for port in fs::read_dir(ports).into_iter().flatten().flatten() {
            items.insert(format!("link {}", port.file_name().display()));
        }
        for directory in [slot.run_directory(), &slot.path("state")] {
            add_files(directory, &mut items);
        }
        Ok(Self { items })
    }

    /// How many there are of each kind: `process`, `mount`, `cgroup`, `nftables`, `link`, `file`.
    pub fn counts(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for item in &self.items {
            let kind = item.split([' ', ':']).next().unwrap_or_default();
            *counts.entry(kind).or_default() += 1;
        }
        counts
    }

    /// Waits until the slot is as it was here: what is slow to destroy may go after a call's return.
    ///
    /// # Errors
    /// With every difference, when some are left at the deadline.
    pub async fn wait_equal(&self, slot: &Slot) -> Result<()> {
        until("the machine to be as before", || async {
            let now = Self::of(slot).map_err(|error| format!("{error:#}"))?;
            let differences = self.differences(&now);
            if differences.is_empty() {
                Ok(())
            } else {
                Err(differences)
            }
        })
        .await
    }

    /// What is there now and was not before. What is gone since was on its way out: the link of a pod that was removed
    /// before this snapshot, say.
    fn differences(&self, now: &Self) -> String {
        let mut text = String::new();
        for item in now.items.difference(&self.items) {
            let _ = write!(text, "\n  left behind: {item}");
        }
        text
    }
}

/// All paths below `directory`; what vanishes meanwhile is not there.
fn add_files(directory: &Path, items: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        items.insert(format!("file {}", entry.path().display()));
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            add_files(&entry.path(), items);
        }
    }
}

/// What the daemon itself holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Open descriptors by what they are, without inode numbers.
    pub descriptors: BTreeMap<String, usize>,
    /// Threads.
    pub threads: usize,
}

/// The kind of what is held of a command's group, and for how many groups at most: those that are empty stay for a container's next
/// commands.
const KEPT: (&str, usize) = ("a command's group", 4);

impl Usage {
    /// Kinds of descriptors of which there are more than `before`, with their numbers. What was there for a moment may have gone.
    pub fn more_than(&self, before: &Self) -> BTreeMap<&str, usize> {
        let had = |kind: &str| before.descriptors.get(kind).copied().unwrap_or_default();
        let more = self.descriptors.iter().filter(|(kind, count)| {
            let kept = if *kind == KEPT.0 { KEPT.1 } else { 0 };
            **count > had(kind).max(kept)
        });
        more.map(|(kind, count)| (kind.as_str(), *count)).collect()
    }

    /// What process `pid` holds now.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn of(pid: u32) -> Result<Self> {
        let mut descriptors = BTreeMap::new();
        let directory = format!("/proc/{pid}/fd");
        for entry in fs::read_dir(&directory).with_context(|| format!("reading {directory}"))? {
            // Closed between readdir and readlink: it is not held.
            let Ok(target) = fs::read_link(entry?.path()) else {
                continue;
            };
            let target = target.to_string_lossy().into_owned();
            let kind = match target.split_once(":[") {
                Some((kind, _)) => kind,
                None if target.contains("/exec-") => KEPT.0,
                None => &target,
            };
            *descriptors.entry(kind.to_owned()).or_default() += 1;
        }
        let threads = fs::read_dir(format!("/proc/{pid}/task"))?.count();
        Ok(Self {
            descriptors,
            threads,
        })
    }
}
