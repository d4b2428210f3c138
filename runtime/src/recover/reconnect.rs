//! Pauses that live and are not spoken to: one that did not answer at start, and one whose connection has closed.

use std::sync::Arc;
use std::time::Duration;

use podwright_pause::protocol::{ContainerEntry, Target};

use super::{Told, id_text, living};
use crate::container::{self, State};
use crate::error::chain;
use crate::ids::{ContainerId, SandboxId};
use crate::node::Node;
use crate::pause::Pause;
use crate::records::StartedRecord;

/// A connection that has closed within this time of its beginning is made again no sooner than then, so that two that cannot speak to
/// each other do not keep a processor busy.
const SHORTEST: Duration = Duration::from_secs(1);

/// Connects again to the pause of a pod whose connection `before` has closed; none when pause has ended, as it has nearly always. It closes
/// a connection by itself when the daemon has left too much unread, and the daemon does when it cannot read what comes. What has happened
/// meanwhile is learnt beside this.
pub(crate) async fn reconnect(
    node: &Arc<Node>,
    id: &SandboxId,
    before: &Pause,
) -> Option<Arc<Pause>> {
    let (pause, told) = living(node, id).await?;
    tokio::time::sleep(SHORTEST.saturating_sub(before.lasted())).await;
    let entries = match told {
        Told::Containers(entries) => Some(entries.into_values().collect()),
        Told::Nothing => None,
    };
    let (node, of) = (Arc::clone(node), Arc::clone(&pause));
    let id = id.clone();
    tokio::spawn(async move {
        match entries {
            Some(entries) => take_in(&node, &of, entries).await,
            None => catch_up(node, id, of).await,
        }
    });
    Some(pause)
}

/// Learns what has happened in a pod whose pause did not answer, as soon as it does.
pub(super) async fn catch_up(node: Arc<Node>, id: SandboxId, pause: Arc<Pause>) {
    match pause.list_late().await {
        Ok(entries) => {
            tracing::info!(sandbox = %id, "the pod's pause process answers again");
            take_in(&node, &pause, entries).await;
        }
        // Its end is told by its connection, and dealt with there.
        Err(error) => {
            tracing::debug!(sandbox = %id, error = %chain(&error), "the pod's pause process never answered")
        }
    }
}

/// Takes in what pause knows of its containers.
async fn take_in(node: &Arc<Node>, pause: &Pause, entries: Vec<ContainerEntry>) {
    for entry in entries {
        let Some(container) = node.containers.get(&id_text(&entry)) else {
            continue;
        };
        if entry.exit.is_none() && matches!(container.state(), State::Exited { .. }) {
            // That it was started could not be told, and its start has failed for the client.
            end(pause, &container.id).await;
            continue;
        }
        let started = StartedRecord {
            pid: entry.pid,
            at: entry.started_at,
        };
        container.started_as(&node.container_events, &started);
        if let Some(exit) = &entry.exit {
            container::exited(node, &container, exit);
        }
    }
}

async fn end(pause: &Pause, container: &ContainerId) {
    let target = Target::Container {
        id: container.wire(),
    };
    if let Err(error) = pause.signal(target, libc::SIGKILL).await {
        tracing::warn!(%container, error = %chain(&error), "a container that runs though its start has failed is not killed");
    }
}
