//! RemoveContainer.

use std::sync::Arc;

use super::stop;
use crate::error::{CallError, chain};
use crate::node::Node;

/// Removes a container, a running one too. Removing an unknown one is no error.
pub(crate) async fn remove(node: &Arc<Node>, id: &str) -> Result<(), CallError> {
    let Some(container) = node.containers.find(id)? else {
        return Ok(());
    };
    let _operation = container.operation.lock().await;
    stop::stop_container(&container, 0).await?;
    if let Some(pause) = container.sandbox.pause()
        && let Err(error) = pause.forget(&container.id).await
    {
        // One that was never started is not known there.
        tracing::debug!(container = %container.id, error = %chain(&error), "pause had nothing to forget");
    }
    node.reclaim.directory(container.directory.clone());
    node.reclaim.cgroup(container.cgroup.clone());
    node.drop_container(&container);
    node.container_names.release(&container.name());
    Ok(())
}
