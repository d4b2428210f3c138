//! What pods that are gone have left.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::RecoverError;
use crate::cgroup::CgroupPath;
use crate::error::chain;
use crate::ids::SandboxId;
use crate::node::Node;
use crate::pause::{Pause, Program};
use crate::sandbox;

/// How long killed processes may take to be gone.
const KILLED: Duration = Duration::from_secs(10);

/// Ends whatever an unfinished or damaged sandbox has left.
pub(super) async fn discard(node: &Arc<Node>, id: &SandboxId) {
    let ended = match Pause::connect(&node.program, id, node.events.clone()).await {
        Ok((pause, _)) => pause.shut_down().await,
        Err(error) if error.is_nobody() => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = ended {
        tracing::warn!(sandbox = %id, error = %chain(&error), "pause has not ended by itself; what is in its cgroup is killed");
    }
    node.program.remove_socket(id);
}

async fn reclaim_group(node: &Node, group: CgroupPath) {
    tracing::info!(cgroup = %group, "reclaiming the cgroup of a pod that is gone");
    let group = node.cgroups.cgroup(&group);
    let killing = group.clone();
    let killed = tokio::task::spawn_blocking(move || killing.kill_all(KILLED)).await;
    if let Ok(Err(error)) = killed {
        tracing::error!(cgroup = %group.path(), error = %chain(&error), "cannot kill what is in the cgroup");
    }
    node.reclaim.cgroup(group);
}

/// Frees what is ours by name and belongs to no sandbox.
pub(super) async fn reclaim(node: &Arc<Node>) -> Result<(), RecoverError> {
    let run_dir = &node.config.run_dir;
    let is_gone = |id: &SandboxId| {
        let sandbox = node.sandboxes.get(id.as_str());
        sandbox.is_none_or(|sandbox| sandbox.pause().is_none())
    };
    let sockets = Program::sockets_of(run_dir).map_err(RecoverError::list(run_dir))?;
    // All at once: each that does not answer takes its time.
    let gone: Vec<_> = sockets.into_iter().filter(is_gone).collect();
    join_all(gone.iter().map(|id| discard(node, id))).await;
    let owners = sandbox::files::owners(run_dir).map_err(RecoverError::list(run_dir))?;
    for id in owners.iter().filter(|id| is_gone(id)) {
        sandbox::files::remove(run_dir, id);
    }
    let live: HashSet<String> = node
        .sandboxes
        .all()
        .iter()
        .filter(|sandbox| sandbox.pause().is_some())
        .map(|sandbox| sandbox.id.to_string())
        .collect();
    match node.network.recover(&live) {
        Ok(reclaimed) if reclaimed.is_empty() => {}
        Ok(reclaimed) => tracing::info!(
            ?reclaimed,
            "freed addresses and ports of pods that are gone"
        ),
        Err(error) => {
            tracing::error!(error = %chain(&error), "addresses and ports of pods that are gone are not all freed")
        }
    }
    let roots = node.handlers.cgroup_roots();
    let groups = roots.into_iter().flat_map(|root| {
        node.cgroups.children(root, crate::CGROUP_PREFIX).unwrap_or_else(|error| {
            tracing::error!(cgroup = %root, error = %chain(&error), "cannot look for cgroups of pods that are gone");
            Vec::new()
        })
    });
    let gone = groups.filter(|group| !live.contains(sandbox::id_of_group(group.name())));
    join_all(gone.map(|group| reclaim_group(node, group))).await;
    if let Some(systemd) = &node.systemd {
        match systemd.kill_stale(&live).await {
            Ok(scopes) if scopes.is_empty() => {}
            Ok(scopes) => tracing::info!(
                ?scopes,
                "killed what was left in scopes of pods that are gone"
            ),
            Err(error) => {
                tracing::error!(error = %chain(&error), "cannot look for scopes of pods that are gone");
            }
        }
    }
    node.images.recovery_done();
    Ok(())
}
