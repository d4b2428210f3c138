//! What happens when the connection to a pod's pause closes without being asked to, or cannot be made.

use std::sync::Arc;
use std::time::Duration;

use super::Sandbox;
use super::stop::finish;
use crate::error::chain;
use crate::ids::SandboxId;
use crate::node::Node;
use crate::pause::{ConnectionId, Pause};
use crate::{nri, recover};

/// The first and the longest wait between two attempts to reach a pause; each is twice as long as the one before.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// A pod whose pause lives is spoken to by a new connection, however long it takes to get one: pods are not killed for what is amiss
/// between the two. One whose pause has ended is not ready: everything of it is killed and reclaimed. `connection` is what has closed; when the
/// pod has another, nothing is done.
pub(crate) async fn lost(node: &Arc<Node>, id: &SandboxId, mut connection: ConnectionId) {
    let mut wait = FIRST_WAIT;
    loop {
        match settle(node, id, connection, wait).await {
            Attempt::Settled => return,
            Attempt::ClosedAgain(next) => connection = next,
            Attempt::Failed => {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(LONGEST_WAIT);
            }
        }
    }
}

/// What an attempt has come to.
enum Attempt {
    /// There is nothing left to do.
    Settled,
    /// The connection that it made has closed before the pod had it, and nobody else was told.
    ClosedAgain(ConnectionId),
    /// Pause is not reached now.
    Failed,
}

/// One attempt. The pod can be stopped between two.
async fn settle(
    node: &Arc<Node>,
    id: &SandboxId,
    connection: ConnectionId,
    wait: Duration,
) -> Attempt {
    let Some(sandbox) = node.sandboxes.get(id.as_str()) else {
        return Attempt::Settled;
    };
    // Each attempt that fails closes a connection as well: those do not even wait.
    if closed(&sandbox, connection).is_none() {
        return Attempt::Settled;
    }
    let _operation = sandbox.operation.lock().await;
    let Some(before) = closed(&sandbox, connection) else {
        return Attempt::Settled;
    };
    let lasted = before.lasted();
    // Its descriptor may be the one that the next connection needs.
    sandbox.set_pause(before.without_socket());
    drop(before);
    match recover::reconnect(node, id, lasted).await {
        Ok(Some(pause)) => {
            tracing::warn!(sandbox = %id, "the connection to the pod's pause process had closed; what ran in it by calls has ended, and the pod goes on");
            sandbox.set_pause(Arc::clone(&pause));
            // Whoever was told of its end until now did not find it to be the pod's; from now on they do.
            return match pause.has_ended() {
                true => Attempt::ClosedAgain(pause.id()),
                false => Attempt::Settled,
            };
        }
        Ok(None) => {}
        // It is ending, as a rule, or this process has no descriptor to spare.
        Err(error) if wait < LONGEST_WAIT => {
            tracing::debug!(sandbox = %id, error = %chain(&error), "not connected again yet");
            return Attempt::Failed;
        }
        Err(error) => {
            tracing::error!(sandbox = %id, error = %chain(&error), "the pod's pause process may live and is not reached; trying again, and the pod can be stopped");
            return Attempt::Failed;
        }
    }
    tracing::warn!(sandbox = %id, "the pod's pause process has ended; killing what is left of the pod");
    sandbox.set_not_ready();
    if let Err(error) = finish(node, &sandbox).await {
        tracing::error!(sandbox = %id, error = %chain(&error), "the pod is not wholly reclaimed; the next start tries again");
    }
    nri::pod_stops(node, &sandbox).await;
    Attempt::Settled
}

/// The sandbox's connection, if it is that one.
fn closed(sandbox: &Sandbox, connection: ConnectionId) -> Option<Arc<Pause>> {
    sandbox
        .pause()
        .filter(|pause| pause.id() == connection && pause.has_ended())
}
