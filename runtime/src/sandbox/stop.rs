//! StopPodSandbox, and the end that all pods have in common.

use std::sync::Arc;
use std::time::Duration;

use podwright_cri_api::v1::ContainerEventType;
use podwright_pause::protocol::Target;

use super::settings::{NetworkMode, Settings};
use super::{Sandbox, State, files};
use crate::cgroup::CgroupPath;
use crate::clock;
use crate::container::{self, Container};
use crate::error::{CallError, Context, chain};
use crate::ids::SandboxId;
use crate::node::Node;
use crate::nri;
use crate::pause::{Pause, PauseError};
use crate::records::{Record, StoppedRecord};

/// How long killed containers may take to be gone.
const KILLED: Duration = Duration::from_secs(10);

/// Stops a sandbox: its containers are killed, its addresses and ports freed. Stopping a stopped or unknown one is no error.
pub(crate) async fn stop(node: &Arc<Node>, id: &str) -> Result<(), CallError> {
    let Some(sandbox) = node.sandboxes.find(id)? else {
        return Ok(());
    };
    let _operation = sandbox.operation.lock().await;
    stop_locked(node, &sandbox).await
}

/// As [`stop`], for who holds the sandbox's operation lock.
pub(super) async fn stop_locked(node: &Arc<Node>, sandbox: &Arc<Sandbox>) -> Result<(), CallError> {
    let State::Ready(pause) = sandbox.state() else {
        return Ok(());
    };
    // No container starts from here on.
    sandbox.set_not_ready();
    let running: Vec<Arc<Container>> = node
        .containers_of(&sandbox.id)
        .into_iter()
        .filter(|container| container.is_running())
        .collect();
    let told = kill_each(sandbox, &pause, running).await;
    // While its namespaces are there: what plugins have put into them they may want back.
    nri::pod_stops(node, sandbox).await;
    let ended = match told {
        Ok(()) => pause.shut_down().await,
        silent => silent,
    };
    if let Err(error) = ended {
        tracing::warn!(sandbox = %sandbox.id, error = %chain(&error), "pause has not ended by itself; killing it");
    }
    finish(node, sandbox).await
}

/// Kills containers by their pause and waits until they are gone. One that does not go this way goes with its cgroup.
///
/// # Errors
/// When pause is silent: each further request would wait as long, and be as vain.
async fn kill_each(
    sandbox: &Sandbox,
    pause: &Pause,
    running: Vec<Arc<Container>>,
) -> Result<(), PauseError> {
    let mut killed = Vec::new();
    for container in running {
        let target = Target::Container {
            id: container.id.wire(),
        };
        match pause.signal(target, libc::SIGKILL).await {
            Ok(()) => killed.push(container),
            Err(error) if error.is_silence() => return Err(error),
            Err(error) => {
                tracing::debug!(sandbox = %sandbox.id, container = %container.id, error = %chain(&error), "not killed one by one");
            }
        }
    }
    for container in killed {
        let _ = tokio::time::timeout(KILLED, container.ended()).await;
    }
    Ok(())
}

pub(super) async fn finish(node: &Arc<Node>, sandbox: &Arc<Sandbox>) -> Result<(), CallError> {
    release(node, &sandbox.id, &sandbox.settings, &sandbox.cgroup).await;
    for container in node.containers_of(&sandbox.id) {
        container::lost(node, &container);
    }
    let recorded = StoppedRecord { at: clock::now() }.write(&sandbox.directory);
    node.container_events
        .sandbox(ContainerEventType::ContainerStoppedEvent, sandbox);
    recorded.internal(|| {
        format!(
            "cannot record that the pod sandbox {} has stopped",
            sandbox.id
        )
    })
}

/// Frees everything that a sandbox holds outside its directory. Goes on past failures: each is logged, and the next start
/// of the daemon reclaims what is left.
pub(crate) async fn release(
    node: &Arc<Node>,
    id: &SandboxId,
    settings: &Settings,
    cgroup: &CgroupPath,
) {
    let group = node.cgroups.cgroup(cgroup);
    let alive = group.pids().map_or(true, |pids| !pids.is_empty());
    if alive && group.exists() {
        let killing = group.clone();
        let killed = tokio::task::spawn_blocking(move || killing.kill_all(KILLED)).await;
        if let Ok(Err(error)) = killed {
            tracing::error!(sandbox = %id, error = %chain(&error), "processes of the pod could not be killed");
        }
    }
    if settings.network == NetworkMode::Pod
        && let Err(error) = node.network.detach(id.as_str())
    {
        tracing::error!(sandbox = %id, error = %chain(&error), "the pod's addresses and ports are not freed");
    }
    node.program.remove_socket(id);
    files::remove(&node.config.run_dir, id);
    node.reclaim.cgroup(group);
    if node.systemd.is_some() {
        let (node, id) = (Arc::clone(node), id.clone());
        tokio::spawn(async move { end_scope(&node, &id).await });
    }
}

/// Nobody waits for it.
async fn end_scope(node: &Node, id: &SandboxId) {
    let Some(systemd) = &node.systemd else { return };
    if let Err(error) = systemd.end_scope(id).await {
        tracing::warn!(sandbox = %id, error = %chain(&error), "systemd was not told that the pod's scope has ended; the next start tells it");
    }
}
