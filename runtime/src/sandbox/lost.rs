//! What happens when the connection to a pod's pause closes without being asked to.

use std::sync::Arc;

use super::State;
use super::stop::finish;
use crate::error::chain;
use crate::ids::SandboxId;
use crate::node::Node;
use crate::{nri, recover};

/// A pod whose pause lives is spoken to by a new connection. One whose pause has ended is not ready: everything of it is killed and
/// reclaimed.
pub(crate) async fn lost(node: &Arc<Node>, id: &SandboxId) {
    let Some(sandbox) = node.sandboxes.get(id.as_str()) else {
        return;
    };
    if matches!(sandbox.state(), State::NotReady) {
        return;
    }
    let _operation = sandbox.operation.lock().await;
    let State::Ready(before) = sandbox.state() else {
        return;
    };
    if !before.has_ended() {
        // It was another connection: one that was tried in vain, or the one before.
        return;
    }
    if let Some(pause) = recover::reconnect(node, id, &before).await {
        tracing::warn!(sandbox = %id, "the connection to the pod's pause process had closed; what ran in it by calls has ended, and the pod goes on");
        sandbox.set_pause(pause);
        return;
    }
    tracing::warn!(sandbox = %id, "the pod's pause process has ended; killing what is left of the pod");
    sandbox.set_not_ready();
    if let Err(error) = finish(node, &sandbox).await {
        tracing::error!(sandbox = %id, error = %chain(&error), "the pod is not wholly reclaimed; the next start tries again");
    }
    nri::pod_stops(node, &sandbox).await;
}
