//! Pauses that live and are not spoken to: one that did not answer at start, and one whose connection has closed.

use std::sync::Arc;
use std::time::Duration;

use podwright_pause::protocol::{ContainerEntry, Target};

use super::{Told, id_text};
use crate::container::{self, State};
use crate::error::chain;
use crate::ids::{ContainerId, SandboxId};
use crate::node::Node;
use crate::pause::{Greeting, Pause, PauseError};
use crate::records::{Record, StartedRecord};

/// A connection that has closed within this time of its beginning is made again no sooner than then, so that two that cannot speak to
/// each other do not keep a processor busy.
const SHORTEST: Duration = Duration::from_secs(1);

/// Connects again to the pause of a pod whose connection has closed, having `lasted` so long; none when pause has ended, as it has nearly always. It closes
/// a connection by itself when the daemon has left too much unread, and the daemon does when it cannot read what comes. What has happened
/// meanwhile is learnt beside this.
///
/// # Errors
/// When pause may live and is not reached now.
pub(crate) async fn reconnect(
    node: &Arc<Node>,
    id: &SandboxId,
    lasted: Duration,
) -> Result<Option<Arc<Pause>>, PauseError> {
    let Some((pause, told)) = living(node, id).await? else {
        return Ok(None);
    };
    tokio::time::sleep(SHORTEST.saturating_sub(lasted)).await;
    tokio::spawn(learn(
        Arc::clone(node),
        id.clone(),
        Arc::clone(&pause),
        told,
    ));
    Ok(Some(pause))
}

/// The pause of a pod, and what that tells; none when it has ended.
pub(super) async fn living(
    node: &Arc<Node>,
    id: &SandboxId,
) -> Result<Option<(Arc<Pause>, Told)>, PauseError> {
    let connected = Pause::connect(&node.program, id, node.events.clone()).await;
    let (pause, greeting) = match connected {
        Err(error) if error.is_nobody() => return Ok(None),
        connected => connected?,
    };
    match greeting {
        Greeting::Unfinished => Ok(None),
        Greeting::Late | Greeting::Foreign => Ok(Some((pause, Told::Nothing))),
        Greeting::Made => match pause.list().await {
            Ok(entries) => Ok(Some((pause, Told::all(entries)))),
            // Frozen or starved since its greeting, not gone.
            Err(PauseError::Deadline { .. }) => Ok(Some((pause, Told::Nothing))),
            Err(error) => {
                pause.hang_up();
                Err(error)
            }
        },
    }
}

async fn learn(node: Arc<Node>, id: SandboxId, pause: Arc<Pause>, told: Told) {
    match told {
        Told::Containers(entries) => {
            take_in(&node, &pause, entries.into_values().collect()).await;
        }
        Told::Nothing => catch_up(node, id, pause).await,
    }
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
            // It was removed when pause could not be told to forget it.
            if let (Some(_), Ok(removed)) = (&entry.exit, ContainerId::parse(&id_text(&entry))) {
                // What it does not forget goes with the pod.
                let _ = pause.forget(&removed).await;
            }
            continue;
        };
        // A start that is under way fails with the connection, and says so before it lets go; the next one finds it running.
        let _operation = match (&entry.exit, container.state()) {
            (None, State::Created) => Some(container.operation.lock().await),
            _ => None,
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
        if container.state() == State::Created
            && let Err(error) = started.write(&container.directory)
        {
            tracing::error!(container = %container.id, error = %chain(&error), "cannot record the start");
        }
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
    // ESRCH: it has ended since it was listed.
    if let Err(error) = pause.signal(target, libc::SIGKILL).await
        && error.errno() != Some(libc::ESRCH)
    {
        tracing::warn!(%container, error = %chain(&error), "a container that runs though its start has failed is not killed");
    }
}
