//! The statistics of one container.

use podwright_cri_api::v1 as cri;

use super::message;
use crate::cgroup::{CgroupError, Stats};
use crate::clock;
use crate::container::{Container, State};
use crate::node::Node;

/// Those of a container that does not run have its writable layer alone.
pub(super) fn stats(
    node: &Node,
    container: &Container,
) -> Result<cri::ContainerStats, CgroupError> {
    let now = clock::now();
    let mut out = cri::ContainerStats {
        attributes: Some(cri::ContainerAttributes {
            id: container.id.to_string(),
            metadata: Some(container.metadata()),
            labels: container.config.labels.clone(),
            annotations: container.config.annotations.clone(),
        }),
        writable_layer: container.gauges.layer.message(node),
        ..Default::default()
    };
    if let Some((stats, rate)) = read(container, now)? {
        out.cpu = Some(message::cpu(&stats, rate, now));
        out.memory = Some(message::memory(&stats.memory, now));
        out.swap = message::swap(&stats, now);
        out.io = message::io(&stats, now);
    }
    Ok(out)
}

/// What its group uses while it runs.
pub(crate) fn read(container: &Container, now: i64) -> Result<Option<(Stats, u64)>, CgroupError> {
    let State::Running { started } = container.state() else {
        return Ok(None);
    };
    match container
        .gauges
        .group
        .read(&container.cgroup, started.at, now)
    {
        Ok(read) => Ok(Some(read)),
        // It has ended meanwhile.
        Err(error) if error.is_missing() && !container.is_running() => Ok(None),
        Err(error) => Err(error),
    }
}

/// As lists have them: none of one that does not run, or that ends while it is asked.
pub(super) fn running(node: &Node, container: &Container) -> Option<cri::ContainerStats> {
    let stats = stats(node, container).ok()?;
    stats.cpu.is_some().then_some(stats)
}
