//! ContainerStats and ListContainerStats.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use podwright_cri_api::v1 as cri;

use super::{Container, State, view};
use crate::cgroup::{MemoryStats, Pressure, PressureLine, Stats};
use crate::clock;
use crate::error::{CallError, Context};
use crate::node::Node;

/// How old the size of a writable layer may be: it costs a walk through the layer.
const LAYER_AGE: Duration = Duration::from_secs(10);

/// What a writable layer takes on disk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerUsage {
    looked_at: Instant,
    timestamp: i64,
    bytes: u64,
    inodes: u64,
}

/// The stats of one container.
pub(crate) fn stats(node: &Node, id: &str) -> Result<cri::ContainerStats, CallError> {
    container_stats(node, &node.containers.require(id)?)
}

/// The stats of all containers that run and that the filter lets through.
pub(crate) fn list_stats(
    node: &Node,
    filter: Option<&cri::ContainerStatsFilter>,
) -> Vec<cri::ContainerStats> {
    let filter = filter.map(|filter| cri::ContainerFilter {
        id: filter.id.clone(),
        state: None,
        pod_sandbox_id: filter.pod_sandbox_id.clone(),
        label_selector: filter.label_selector.clone(),
    });
    let containers = view::matching(node, filter.as_ref());
    // One that ends while it is asked is not listed.
    containers
        .iter()
        .filter(|container| container.is_running())
        .filter_map(|container| container_stats(node, container).ok())
        .collect()
}

fn container_stats(
    node: &Node,
    container: &Arc<Container>,
) -> Result<cri::ContainerStats, CallError> {
    let attributes = cri::ContainerAttributes {
        id: container.id.to_string(),
        metadata: Some(container.metadata()),
        labels: container.config.labels.clone(),
        annotations: container.config.annotations.clone(),
    };
    let mut out = cri::ContainerStats {
        attributes: Some(attributes),
        writable_layer: Some(writable_layer(node, container)),
        ..Default::default()
    };
    if matches!(container.state(), State::Running { .. }) {
        let stats = container
            .cgroup
            .stats()
            .internal(|| format!("cannot read the stats of the container {}", container.id))?;
        let now = clock::now();
        out.cpu = Some(cpu_usage(&stats, now));
        out.memory = Some(memory_usage(&stats.memory, now));
        out.swap = stats.swap.map(|swap| cri::SwapUsage {
            timestamp: now,
            swap_available_bytes: swap.available.map(value),
            swap_usage_bytes: Some(value(swap.usage)),
        });
        out.io = stats.io_pressure.map(|pressure| cri::IoUsage {
            timestamp: now,
            psi: Some(psi(&pressure)),
        });
    }
    Ok(out)
}

pub(crate) fn value(value: u64) -> cri::UInt64Value {
    cri::UInt64Value { value }
}

pub(crate) fn cpu_usage(stats: &Stats, now: i64) -> cri::CpuUsage {
    cri::CpuUsage {
        timestamp: now,
        usage_core_nano_seconds: Some(value(stats.cpu.usage_ns)),
        usage_nano_cores: None,
        psi: stats.cpu.pressure.as_ref().map(psi),
    }
}

pub(crate) fn memory_usage(memory: &MemoryStats, now: i64) -> cri::MemoryUsage {
    cri::MemoryUsage {
        timestamp: now,
        working_set_bytes: Some(value(memory.working_set)),
        available_bytes: memory.available.map(value),
        usage_bytes: Some(value(memory.usage)),
        rss_bytes: Some(value(memory.rss)),
        page_faults: Some(value(memory.page_faults)),
        major_page_faults: Some(value(memory.major_page_faults)),
        psi: memory.pressure.as_ref().map(psi),
    }
}

fn psi(pressure: &Pressure) -> cri::PsiStats {
    // CRI counts the total in nanoseconds, the kernel in microseconds.
    let line = |line: &PressureLine| cri::PsiData {
        total: line.total_us.saturating_mul(1000),
        avg10: line.avg10,
        avg60: line.avg60,
        avg300: line.avg300,
    };
    cri::PsiStats {
        full: Some(line(&pressure.full)),
        some: Some(line(&pressure.some)),
    }
}

fn writable_layer(node: &Node, container: &Container) -> cri::FilesystemUsage {
    let mut cached = container
        .usage
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let usage = match *cached {
        Some(usage) if usage.looked_at.elapsed() < LAYER_AGE => usage,
        _ => {
            let (mut bytes, mut inodes) = (0, 0);
            walk(&container.directory.join("upper"), &mut bytes, &mut inodes);
            LayerUsage {
                looked_at: Instant::now(),
                timestamp: clock::now(),
                bytes,
                inodes,
            }
        }
    };
    *cached = Some(usage);
    cri::FilesystemUsage {
        timestamp: usage.timestamp,
        fs_id: Some(cri::FilesystemIdentifier {
            mountpoint: node.config.state_dir.to_string_lossy().into_owned(),
        }),
        used_bytes: Some(value(usage.bytes)),
        inodes_used: Some(value(usage.inodes)),
    }
}

/// Adds up a tree. What vanishes meanwhile is not counted; links are not followed.
fn walk(directory: &Path, bytes: &mut u64, inodes: &mut u64) {
    for entry in std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
    {
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        *inodes += 1;
        *bytes += metadata.blocks() * 512;
        if metadata.is_dir() {
            walk(&entry.path(), bytes, inodes);
        }
    }
}
