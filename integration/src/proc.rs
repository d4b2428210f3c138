//! What processes use, from /proc (see proc(5)).

use std::{
    collections::BTreeSet,
    fs,
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    time::ClockId,
    unistd::Pid,
};
use rustix::process::{PidfdFlags, pidfd_open};

use crate::patience::patience;

/// All process ids.
pub fn all() -> BTreeSet<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// Waits a minute at most, and longer on a slow machine, for the end of a process that need not be ours: its descriptor is readable then, pidfd_open(2).
///
/// # Errors
/// When there is no such process, or it does not end.
pub async fn ended(pid: u32) -> Result<()> {
    let raw = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    let process = raw
        .ok_or(rustix::io::Errno::SRCH)
        .and_then(|raw| pidfd_open(raw, PidfdFlags::empty()))
        .with_context(|| format!("opening process {pid}"))?;
    let wait = move || {
        let mut waited = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
        let limit = patience(Duration::from_secs(60));
        poll(
            &mut waited,
            PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX),
        )
    };
    let ended = tokio::task::spawn_blocking(wait).await??;
    ensure!(ended == 1, "process {pid} does not end");
    Ok(())
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
    ticks: Ticks,
}

/// Sums over all processors since the machine's start, of a hundredth second's resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticks {
    /// Idle time, with waiting for disks and what is stolen.
    unused: Duration,
    /// What a hypervisor gave to others while there was work here.
    stolen: Duration,
    processors: u32,
}

impl Processors {
    /// Now.
    ///
    /// # Errors
    /// When /proc/stat cannot be read or understood.
    pub fn now() -> Result<Self> {
        let text = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
        let at = Instant::now();
        let ticks = Ticks::of(&text).context("/proc/stat is not as proc(5) says")?;
        Ok(Self { at, ticks })
    }

    /// CPU time that the machine has used since then.
    ///
    /// # Errors
    /// As for [`now`](Self::now).
    pub fn used(&self) -> Result<Duration> {
        Ok(self.used_until(&Self::now()?))
    }

    fn used_until(&self, now: &Self) -> Duration {
        let there_was = (now.at - self.at) * self.ticks.processors;
        there_was.saturating_sub(now.ticks.unused.saturating_sub(self.ticks.unused))
    }

    /// How much a hypervisor has given to others since then, of what the machine would have used: 0 to 1.
    ///
    /// # Errors
    /// As for [`now`](Self::now).
    pub fn stolen(&self) -> Result<f64> {
        let now = Self::now()?;
        let stolen = now.ticks.stolen.saturating_sub(self.ticks.stolen);
        let wanted = self.used_until(&now) + stolen;
        if wanted.is_zero() {
            return Ok(0.0);
        }
        Ok(stolen.as_secs_f64() / wanted.as_secs_f64())
    }

    /// The same as a share of one processor.
    ///
    /// # Errors
    /// As for [`now`](Self::now).
    pub fn busy(&self) -> Result<f64> {
        Ok(self.used()?.as_secs_f64() / self.at.elapsed().as_secs_f64())
    }
}

impl Ticks {
    /// By the text of /proc/stat.
    fn of(stat: &str) -> Option<Self> {
        // user, nice, system, idle, iowait, irq, softirq, steal
        let all: Vec<u64> = stat
            .lines()
            .next()?
            .split_whitespace()
            .skip(1)
            .map_while(|ticks| ticks.parse().ok())
            .collect();
        let processors = stat
            .lines()
            .skip(1)
            .take_while(|line| line.starts_with("cpu"))
            .count();
        // USER_HZ is 100 on all architectures that we run on.
        let time = |ticks: u64| Duration::from_millis(ticks * 10);
        let stolen = *all.get(7)?;
        Some(Self {
            unused: time(all.get(3)? + all.get(4)? + stolen),
            stolen: time(stolen),
            processors: u32::try_from(processors).ok()?,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_used_is_idle_or_waiting_or_stolen() {
        let stat = "cpu  1 2 3 40 5 6 7 8 9 10\ncpu0 0 1 1 20 2 3 3 4 4 5\ncpu1 1 1 2 20 3 3 4 4 5 5\nintr 1\n";
        let ticks = Ticks {
            unused: Duration::from_millis(530),
            stolen: Duration::from_millis(80),
            processors: 2,
        };
        assert_eq!(Ticks::of(stat), Some(ticks));
        assert_eq!(Ticks::of("cpu  1 2 3\n"), None);
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
        let missing = Duration::from_millis(20) * before.ticks.processors;
        assert!(
            used + missing >= own,
            "{used:?} of the machine, {own:?} of this process"
        );
    }
}
