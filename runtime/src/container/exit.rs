//! The end of a container: told by pause, or found out.

use std::sync::Arc;
use std::time::Duration;

use podwright_pause::protocol::Exit;

use super::start::NOT_STARTED;
use super::{Container, State};
use crate::clock;
use crate::error::chain;
use crate::node::Node;
use crate::records::{ExitRecord, Record, StartedRecord};

/// The exit code of a container whose end nobody saw, as containerd and CRI-O give it.
const UNSEEN: i32 = 255;

/// How long an end waits for its own start to be told first: longer than a launch may take.
const START: Duration = Duration::from_secs(150);

/// Takes in the end that pause tells. A container may end before the call that starts it has taken in that it runs: then
/// that comes first, so that states and events keep their order.
pub(crate) fn told_exit(node: &Arc<Node>, container: Arc<Container>, exit: Exit) {
    if container.state() != State::Created {
        return exited(node, &container, &exit);
    }
    let node = Arc::clone(node);
    tokio::spawn(async move {
        // A start that has told nothing by then has been given up.
        let _ = tokio::time::timeout(START, container.start_told()).await;
        exited(&node, &container, &exit);
    });
}

/// Records that a container has ended.
pub(crate) fn exited(node: &Arc<Node>, container: &Arc<Container>, exit: &Exit) {
    let oom_kills = container.cgroup.oom_kills().unwrap_or_else(|error| {
        tracing::debug!(container = %container.id, error = %chain(&error), "cannot read the OOM kills");
        0
    });
    let reason = match exit.code {
        0 => "Completed",
        _ if oom_kills > 0 => "OOMKilled",
        _ => "Error",
    };
    let exit = ExitRecord {
        exit_code: exit.code,
        signal: exit.signal,
        finished_at: exit.at,
        reason: reason.into(),
        message: String::new(),
    };
    record(node, container, None, exit);
}

/// Records the end of a container whose pause is gone, if it had not ended before.
pub(crate) fn lost(node: &Arc<Node>, container: &Arc<Container>) {
    let (exit_code, reason, message) = match container.state() {
        State::Exited { .. } => return,
        State::Created => (
            NOT_STARTED,
            "StartError",
            "its pod stopped before it was started",
        ),
        State::Running { .. } => (
            UNSEEN,
            "Unknown",
            "its pod ended with it; how it ended was not seen",
        ),
    };
    let exit = ExitRecord {
        exit_code,
        signal: 0,
        finished_at: clock::now(),
        reason: reason.into(),
        message: message.into(),
    };
    record(node, container, None, exit);
}

/// Makes the end known, writes it down and reclaims the cgroup. The first end told stays.
pub(crate) fn record(
    node: &Arc<Node>,
    container: &Container,
    started: Option<&StartedRecord>,
    exit: ExitRecord,
) {
    if matches!(container.state(), State::Exited { .. }) {
        return;
    }
    // On disk first: a client that has seen the exit must not see it undone by a crash.
    if let Err(error) = exit.write(&container.directory) {
        tracing::error!(container = %container.id, error = %chain(&error), "cannot record the exit");
    }
    tracing::info!(sandbox = %container.sandbox.id, container = %container.id, exit_code = exit.exit_code, reason = exit.reason, "container ended");
    container.advance(&node.container_events, |state| match state {
        State::Created => Some(State::Exited {
            started: started.cloned(),
            exit: exit.clone(),
        }),
        State::Running { started } => Some(State::Exited {
            started: Some(started.clone()),
            exit: exit.clone(),
        }),
        State::Exited { .. } => None,
    });
    container.gauges.group.end();
    container.forget_plan();
    node.reclaim.cgroup(container.cgroup.clone());
    crate::nri::ended(node, container);
}
