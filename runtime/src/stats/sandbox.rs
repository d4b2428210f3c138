//! The statistics of one pod.

use std::collections::HashMap;

use podwright_cri_api::v1 as cri;
use podwright_netns::Counters;

use super::{container, message};
use crate::cgroup::{CgroupError, Stats};
use crate::clock;
use crate::error::chain;
use crate::node::Node;
use crate::sandbox::Sandbox;

/// The traffic of all pods, by their ids.
pub(crate) fn traffic(node: &Node) -> HashMap<String, Counters> {
    node.network.traffic().unwrap_or_else(|error| {
        tracing::error!(error = %chain(&error), "cannot read the pods' traffic; statistics go without it");
        HashMap::new()
    })
}

/// What the pod uses with all its containers.
pub(crate) fn read(node: &Node, sandbox: &Sandbox, now: i64) -> Result<(Stats, u64), CgroupError> {
    let group = node.cgroups.cgroup(&sandbox.cgroup);
    sandbox.gauges.read(&group, sandbox.created_at, now)
}

/// A pod's statistics with those of its containers that run. Those of a pod that is not ready have nothing but its name.
pub(super) fn stats(
    node: &Node,
    sandbox: &Sandbox,
    traffic: &HashMap<String, Counters>,
) -> Result<cri::PodSandboxStats, CgroupError> {
    let now = clock::now();
    let mut linux = cri::LinuxPodSandboxStats::default();
    if sandbox.pause().is_some() {
        let (stats, rate) = read(node, sandbox, now)?;
        linux.cpu = Some(message::cpu(&stats, rate, now));
        linux.memory = Some(message::memory(&stats.memory, now));
        linux.io = message::io(&stats, now);
        linux.process = Some(cri::ProcessUsage {
            timestamp: now,
            process_count: stats.tasks.and_then(message::value),
        });
        let counters = traffic.get(sandbox.id.as_str());
        linux.network = counters.map(|counters| message::network(counters, now));
        let containers = node.containers_of(&sandbox.id);
        linux.containers = containers
            .iter()
            .filter_map(|of| container::running(node, of))
            .collect();
    }
    Ok(cri::PodSandboxStats {
        attributes: Some(cri::PodSandboxAttributes {
            id: sandbox.id.to_string(),
            metadata: Some(sandbox.metadata()),
            labels: sandbox.config.labels.clone(),
            annotations: sandbox.config.annotations.clone(),
        }),
        linux: Some(linux),
        windows: None,
    })
}
