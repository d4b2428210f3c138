//! Counts everything, when nothing moves any more.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use podwright_integration::{
    node::{Daemon, Snapshot, Usage},
    patience::patience,
    proc::{self, Processors},
};

use crate::{
    flat::is_flat,
    items::{ITEMS, Scope},
    kernel::{self, Kernel},
};

/// Threads that wait for blocking work end after ten seconds without any.
const REST: Duration = Duration::from_secs(12);
/// A daemon that has not come to rest by then is counted as it is.
const LONGEST: Duration = Duration::from_secs(180);
/// What counts at rest differ by at most.
const STILL: f64 = 0.005;
/// A machine that rests uses less of a processor.
const QUIET: f64 = 0.05;
/// A slab cache is told of when its objects take so many KiB more or less than before.
const CACHE_TOLD: f64 = 8.0;

/// Who else uses the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Company {
    /// Nobody, as it seems: what the machine has is the daemon's doing.
    Alone,
    /// Somebody: counts of the machine say nothing, and its caches are left as they are.
    Others,
}

impl Company {
    /// With somebody at any time.
    pub(crate) fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Alone, Self::Alone) => Self::Alone,
            _ => Self::Others,
        }
    }

    /// Who used the machine while this program and the daemon rested.
    pub(crate) fn of(busy: f64) -> Self {
        match busy < QUIET {
            true => Self::Alone,
            false => Self::Others,
        }
    }
}

/// Everything that is counted, at one moment.
#[derive(Debug)]
pub(crate) struct Census {
    pub(crate) daemon_pss: f64,
    pub(crate) daemon_rss: f64,
    pub(crate) usage: Usage,
    pub(crate) children: usize,
    pub(crate) children_pss: f64,
    pub(crate) files_size: f64,
    pub(crate) kernel: Kernel,
    left: Snapshot,
}

impl Census {
    /// Now.
    pub(crate) fn take(daemon: &Daemon, company: Company) -> Result<Self> {
        if company == Company::Alone {
            kernel::drop_caches()?;
        }
        let pid = daemon.pid().context("the daemon has ended")?;
        let usage = Usage::of(pid)?;
        let children = proc::children(pid);
        let slot = daemon.slot();
        let children_pss = children.iter().map(|pid| proc::pss(*pid));
        Ok(Self {
            daemon_pss: proc::pss(pid)?,
            daemon_rss: proc::rss(pid)?,
            usage,
            children: children.len(),
            children_pss: children_pss.sum::<Result<f64>>()?,
            files_size: size(slot.run_directory()) + size(&slot.path("state")),
            kernel: Kernel::now()?,
            left: Snapshot::of(slot)?,
        })
    }

    /// The same when two in a row, some seconds apart, are alike; and by how much the machine was busy between them.
    pub(crate) async fn at_rest(daemon: &Daemon, company: Company) -> Result<(Self, f64)> {
        let end = Instant::now() + patience(LONGEST);
        let mut last = Self::take(daemon, company)?;
        loop {
            let processors = Processors::now()?;
            tokio::time::sleep(REST).await;
            let busy = processors.busy()?;
            let now = Self::take(daemon, company)?;
            if now.is_like(&last, company) || Instant::now() > end {
                return Ok((now, busy));
            }
            last = now;
        }
    }

    fn is_like(&self, other: &Self, company: Company) -> bool {
        let judged = ITEMS
            .iter()
            .filter(|item| item.scope == Scope::Own || company == Company::Alone);
        let mut pairs =
            judged.filter_map(|item| Some(((item.count)(other)?, (item.count)(self)?, item)));
        pairs.all(|(before, after, item)| is_flat(before, after, STILL, item.allowance))
    }

    /// Waits until nothing is in the daemon's slot that was not there then.
    pub(crate) async fn wait_reclaimed(&self, daemon: &Daemon) -> Result<()> {
        self.left.wait_equal(daemon.slot()).await
    }

    /// Descriptors of the daemon's whose number has changed since `before`, one kind a line.
    pub(crate) fn other_descriptors(&self, before: &Self) -> String {
        let (old, new) = (&before.usage.descriptors, &self.usage.descriptors);
        let kinds: BTreeSet<_> = old.keys().chain(new.keys()).collect();
        let mut text = String::new();
        for kind in kinds {
            let [old, new] = [old, new].map(|counts| counts.get(kind).copied().unwrap_or_default());
            if old != new {
                let _ = writeln!(text, "  {kind}: {old} before, {new} after");
            }
        }
        text
    }

    /// Slab caches that hold more or less than `before`, one a line: the table has only those that a leak of ours is likely in.
    pub(crate) fn other_caches(&self, before: &Self) -> String {
        let (old, new) = (before.kernel.caches(), self.kernel.caches());
        let names: BTreeSet<_> = old.keys().chain(new.keys()).collect();
        let mut text = String::new();
        for name in names {
            let [old, new] = [&old, &new].map(|caches| caches.get(name).copied().unwrap_or(0.0));
            if (new - old).abs() >= CACHE_TOLD {
                let _ = writeln!(text, "  {name}: {old:.0} before, {new:.0} after");
            }
        }
        text
    }

    /// What of a kind is in the daemon's slot.
    pub(crate) fn left(&self, kind: &str) -> Option<f64> {
        let count = self.left.counts().get(kind).copied();
        Some(count.unwrap_or_default() as f64)
    }
}

/// KiB on the disk, of a directory with all that is in it. What vanishes meanwhile has none.
fn size(path: &Path) -> f64 {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return 0.0;
    };
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let below: f64 = match metadata.is_dir() {
        true => entries.map(|entry| size(&entry.path())).sum(),
        false => 0.0,
    };
    // st_blocks is in units of 512 bytes, and is shared by the names of a file, which layers have many of.
    below + metadata.blocks() as f64 / 2.0 / metadata.nlink().max(1) as f64
}
