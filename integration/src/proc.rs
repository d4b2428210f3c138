//! What processes use, from /proc (see proc(5)).

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::{time::ClockId, unistd::Pid};

/// All process ids.
pub fn all() -> BTreeSet<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// What the processes are called that runtimes keep for their pods: ours, containerd's, CRI-O's.
const MONITORS: &[&str] = &[
    "pause",
    "pod-init",
    "podwright-pause",
    "containerd-shim",
    "conmon",
];

/// A runtime's processes for its pods that came since `before`.
pub fn monitors(before: &BTreeSet<u32>) -> Vec<u32> {
    let is_monitor = |pid: &u32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        MONITORS.iter().any(|monitor| name.starts_with(monitor))
    };
    all()
        .difference(before)
        .copied()
        .filter(is_monitor)
        .collect()
}

/// The processes whose parent is `parent`.
pub fn children(parent: u32) -> Vec<u32> {
    let has_parent = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let mut lines = status.lines();
        let line = lines.find_map(|line| line.strip_prefix("PPid:"));
        line.and_then(|pid| pid.trim().parse().ok()) == Some(parent)
    };
    all().into_iter().filter(has_parent).collect()
}

/// The proportional set size in KiB.
///
/// # Errors
/// When there is no such process, or it is somebody else's.
pub fn pss(pid: u32) -> Result<f64> {
    rollup(pid, &["Pss"])
}

/// The anonymous memory in KiB: what a process has of its own, and not of its program.
///
/// # Errors
/// As for [`pss`].
pub fn anonymous(pid: u32) -> Result<f64> {
    rollup(pid, &["Anonymous"])
}

/// The private memory in KiB.
///
/// # Errors
/// As for [`pss`].
pub fn private(pid: u32) -> Result<f64> {
    rollup(pid, &["Private_Clean", "Private_Dirty"])
}

/// The resident set size in KiB.
///
/// # Errors
/// As for [`pss`].
pub fn rss(pid: u32) -> Result<f64> {
    rollup(pid, &["Rss"])
}

/// The sum of these lines of a process' smaps_rollup.
fn rollup(pid: u32, names: &[&str]) -> Result<f64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let values = lines
        .filter(|(name, _)| names.contains(name))
        .filter_map(|(_, value)| value.trim().trim_end_matches(" kB").parse::<f64>().ok());
    Ok(values.sum())
}

/// CPU time that `pids` have used, in all their threads: also in those that have ended. A process that is gone counts nothing.
pub fn cpu(pids: &[u32]) -> Duration {
    let of = |pid: &u32| {
        let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(i32::try_from(*pid).ok()?)).ok()?;
        clock.now().ok().map(Duration::from)
    };
    pids.iter().filter_map(of).sum()
}

/// The whole machine's processors at a moment.
///
/// What they did not use is counted, and not what they used: the kernel samples the latter at its ticks, and misses work
/// that begins at one tick and ends before the next, as what a timer starts does.
#[derive(Clone, Copy, Debug)]
pub struct Processors {
    at: Instant,
    /// The sum over all of them since the machine's start, of a hundredth second's resolution.
    unused: Duration,
    count: u32,
}

impl Processors {
    /// Now.
    ///
    /// # Errors
    /// When /proc/stat cannot be read or understood.
    pub fn now() -> Result<Self> {
        let text = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
        let at = Instant::now();
        let (unused, count) = unused(&text).context("/proc/stat is not as proc(5) says")?;
        Ok(Self { at, unused, count })
    }

    /// CPU time that the machine has used since then.
    ///
    /// # Errors
    /// As for [`now`](Self::now).
    pub fn used(&self) -> Result<Duration> {
        let now = Self::now()?;
        let there_was = (now.at - self.at) * self.count;
        Ok(there_was.saturating_sub(now.unused.saturating_sub(self.unused)))
    }

    /// The same as a share of one processor.
    ///
    /// # Errors
    /// As for [`now`](Self::now).
    pub fn busy(&self) -> Result<f64> {
        Ok(self.used()?.as_secs_f64() / self.at.elapsed().as_secs_f64())
    }
}

/// Idle time, with waiting for disks and what a hypervisor gave to others, and the number of processors.
fn unused(stat: &str) -> Option<(Duration, u32)> {
    // user, nice, system, idle, iowait, irq, softirq, steal
    let all: Vec<u64> = stat
        .lines()
        .next()?
        .split_whitespace()
        .skip(1)
        .map_while(|ticks| ticks.parse().ok())
        .collect();
    let ticks = all.get(3)? + all.get(4)? + all.get(7)?;
    let processors = stat.lines().skip(1);
    let count = processors
        .take_while(|line| line.starts_with("cpu"))
        .count();
    // USER_HZ is 100 on all architectures that we run on.
    Some((
        Duration::from_millis(ticks * 10),
        u32::try_from(count).ok()?,
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_used_is_idle_or_waiting_or_stolen() {
        let stat = "cpu  1 2 3 40 5 6 7 8 9 10\ncpu0 0 1 1 20 2 3 3 4 4 5\ncpu1 1 1 2 20 3 3 4 4 5 5\nintr 1\n";
        let (time, count) = unused(stat).unwrap();
        assert_eq!((time, count), (Duration::from_millis(530), 2));
        assert_eq!(unused("cpu  1 2 3\n"), None);
    }

    #[test]
    fn a_thread_s_time_remains_when_it_has_ended() {
        let own = [std::process::id()];
        let before = cpu(&own);
        let work = || {
            let end = Instant::now() + Duration::from_millis(100);
            while Instant::now() < end {
                std::hint::spin_loop();
            }
        };
        std::thread::spawn(work).join().unwrap();
        let used = cpu(&own) - before;
        assert!(used >= Duration::from_millis(20), "{used:?}");
        assert_eq!(cpu(&[u32::MAX]), Duration::ZERO);
    }

    #[test]
    fn children_are_those_of_their_parent() {
        let parent = std::process::id();
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        assert!(children(parent).contains(&child.id()));
        assert!(!children(child.id()).contains(&parent));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn work_of_one_processor_is_seen() {
        let before = Processors::now().unwrap();
        let own = cpu(&[std::process::id()]);
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(500) {
            std::hint::spin_loop();
        }
        let own = cpu(&[std::process::id()]).saturating_sub(own);
        let used = before.used().unwrap();
        // Two ticks of each processor are what may be missing.
        let missing = Duration::from_millis(20) * before.count;
        assert!(
            used + missing >= own,
            "{used:?} of the machine, {own:?} of this process"
        );
    }
}
