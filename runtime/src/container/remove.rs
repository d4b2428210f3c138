//! RemoveContainer.

use std::sync::Arc;

use podwright_cri_api::v1::ContainerEventType;

use super::stop;
use crate::error::{CallError, chain};
use crate::node::Node;
use crate::nri;

/// Removes a container, a running one too. Removing an unknown one is no error.
pub(crate) async fn remove(node: &Arc<Node>, id: &str) -> Result<(), CallError> {
    let Some(container) = node.containers.find(id)? else {
        return Ok(());
    };
    let _operation = container.operation.lock().await;
    stop::stop_container(&container, 0).await?;
    nri::stopped(node, &container).await;
    if let Some(pause) = container.sandbox.pause()
        && let Err(error) = pause.forget(&container.id).await
    {
        // One that was never started is not known there.
        tracing::debug!(container = %container.id, error = %chain(&error), "pause had nothing to forget");
    }
    let _gate = node.nri.hold().await;
    nri::removed(node, &container).await;
    node.reclaim.directory(container.directory.clone());
    node.reclaim.cgroup(container.cgroup.clone());
    if !node.drop_container(&container) {
        // Another call has removed it meanwhile, and its name may be another container's by now.
        return Ok(());
    }
    node.container_events
        .container(ContainerEventType::ContainerDeletedEvent, &container);
    node.container_names.release(&container.name());
    Ok(())
}
