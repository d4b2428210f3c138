//! What processes use, from /proc (see proc(5)).

use std::{collections::BTreeSet, fs, time::Duration};

use anyhow::{Context as _, Result};

/// All process ids.
pub(crate) fn all() -> BTreeSet<u32> {
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
pub(crate) fn monitors(before: &BTreeSet<u32>) -> Vec<u32> {
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

/// The proportional set size in KiB.
pub(crate) fn pss(pid: u32) -> Result<f64> {
    Ok(rollup(pid)?.0)
}

/// The private memory in KiB.
pub(crate) fn private(pid: u32) -> Result<f64> {
    Ok(rollup(pid)?.1)
}

fn rollup(pid: u32) -> Result<(f64, f64)> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let sum = |names: &[&str]| -> f64 {
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        let values = lines
            .filter(|(name, _)| names.contains(name))
            .filter_map(|(_, value)| value.trim().trim_end_matches(" kB").parse::<f64>().ok());
        values.sum()
    };
    Ok((sum(&["Pss"]), sum(&["Private_Clean", "Private_Dirty"])))
}

/// CPU time that the living threads of `pids` have used.
pub(crate) fn cpu(pids: &[u32]) -> Duration {
    let mut nanoseconds = 0_u64;
    for pid in pids {
        for task in fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            nanoseconds += text
                .split(' ')
                .next()
                .and_then(|n| n.parse().ok())
                .unwrap_or(0);
        }
    }
    Duration::from_nanos(nanoseconds)
}

/// CPU time that the whole machine has used since its start; of a hundredth second's resolution.
pub(crate) fn machine_cpu() -> Result<Duration> {
    let text = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
    let line = text.lines().next().context("/proc/stat is empty")?;
    let ticks: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .filter_map(|n| n.parse().ok())
        .collect();
    // user, nice, system, idle, iowait, irq, softirq: all but idle and iowait.
    let busy: u64 = ticks
        .iter()
        .take(7)
        .enumerate()
        .filter(|(i, _)| ![3, 4].contains(i))
        .map(|(_, n)| n)
        .sum();
    Ok(Duration::from_millis(busy * 10))
}
