//! What plugins are told of pods.

use podwright_cri_api::v1::LinuxContainerResources;
use podwright_nri::PodUpdate;
use podwright_nri::api::Event;

use super::{call_error, containers, describe, resources};
use crate::error::{CallError, chain};
use crate::node::Node;
use crate::sandbox::Sandbox;
use std::sync::Arc;

/// A pod runs. A plugin may refuse it: then it must not.
pub(crate) async fn pod_runs(node: &Node, sandbox: &Sandbox) -> Result<(), CallError> {
    if !node.nri.wants(Event::RunPodSandbox) {
        return Ok(());
    }
    let told = node
        .nri
        .pod_event(Event::RunPodSandbox, describe::pod(node, sandbox))
        .await;
    told.map_err(|error| call_error("cannot run the pod sandbox", error))
}

/// A pod's resources are about to change. A plugin may refuse: then they must not.
pub(crate) async fn pod_updating(
    node: &Node,
    sandbox: &Sandbox,
    overhead: Option<&LinuxContainerResources>,
    containers: Option<&LinuxContainerResources>,
) -> Result<(), CallError> {
    if !node.nri.wants(Event::UpdatePodSandbox) {
        return Ok(());
    }
    let update = PodUpdate {
        overhead: overhead.map(resources::of_cri),
        resources: containers.map(resources::of_cri),
    };
    let told = node
        .nri
        .update_pod(describe::pod(node, sandbox), update)
        .await;
    told.map_err(|error| call_error("cannot update the pod sandbox's resources", error))
}

/// A pod's resources have changed.
pub(crate) async fn pod_updated(node: &Node, sandbox: &Sandbox) {
    tell(node, sandbox, Event::PostUpdatePodSandbox).await;
}

/// A pod's containers have ended, and it goes.
pub(crate) async fn pod_stops(node: &Arc<Node>, sandbox: &Sandbox) {
    for container in node.containers_of(&sandbox.id) {
        containers::stopped(node, &container).await;
    }
    tell(node, sandbox, Event::StopPodSandbox).await;
}

/// A pod is removed.
pub(crate) async fn pod_removed(node: &Node, sandbox: &Sandbox) {
    tell(node, sandbox, Event::RemovePodSandbox).await;
}

/// What cannot be undone is not refused by anybody.
async fn tell(node: &Node, sandbox: &Sandbox, event: Event) {
    if !node.nri.wants(event) {
        return;
    }
    let pod = describe::pod(node, sandbox);
    if let Err(error) = node.nri.pod_event(event, pod).await {
        tracing::warn!(sandbox = %sandbox.id, error = %chain(&error), "a NRI plugin objects to what has happened");
    }
}
