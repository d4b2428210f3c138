//! What plugins are told of pods.

use podwright_nri::api::Event;

use super::{call_error, containers, describe};
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
