//! RemovePodSandbox.

use std::sync::Arc;

use podwright_cri_api::v1::ContainerEventType;

use super::{PodName, stop};
use crate::container;
use crate::error::CallError;
use crate::node::Node;
use crate::nri;

/// Removes a sandbox and its containers, running ones too. Removing an unknown one is no error.
pub(crate) async fn remove(node: &Arc<Node>, id: &str) -> Result<(), CallError> {
    let Some(sandbox) = node.sandboxes.find(id)? else {
        return Ok(());
    };
    let _operation = sandbox.operation.lock().await;
    stop::stop_locked(node, &sandbox).await?;
    for container in node.containers_of(&sandbox.id) {
        container::remove(node, container.id.as_str()).await?;
    }
    let _gate = node.nri.hold().await;
    nri::pod_removed(node, &sandbox).await;
    node.reclaim.directory(sandbox.directory.clone());
    if !node.sandboxes.remove(&sandbox.id) {
        // Another call has removed it meanwhile, and its name may be another sandbox's by now.
        return Ok(());
    }
    node.container_events
        .sandbox(ContainerEventType::ContainerDeletedEvent, &sandbox);
    node.selinux.release_level(&sandbox.selinux_level);
    node.pod_names.release(&PodName::from(&sandbox.metadata()));
    Ok(())
}
