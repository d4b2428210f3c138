//! StartContainer.

use std::os::fd::AsFd;
use std::sync::Arc;

use super::{Container, State};
use crate::clock;
use crate::error::{CallError, Context, Kind, chain};
use crate::node::Node;
use crate::nri;
use crate::pause::Pause;
use crate::plan::{self, oci_resources};
use crate::records::{ExitRecord, Record, StartedRecord};

/// The exit code of a container that could not be started, as docker and containerd give it.
pub(super) const NOT_STARTED: i32 = 128;

/// Starts a created container. One that runs already is no error: the call was retried.
pub(crate) async fn start(node: &Arc<Node>, id: &str) -> Result<(), CallError> {
    let container = node.containers.require(id)?;
    let _operation = container.operation.lock().await;
    match container.state() {
        State::Created => {}
        State::Running { .. } => return Ok(()),
        State::Exited { .. } => {
            return Err(CallError::state(format!(
                "cannot start the container {}: it has exited; create a new one",
                container.id
            )));
        }
    }
    let pause = container.sandbox.require_ready("start the container")?;
    let launched = async {
        let starting = nri::starting(node, &container).await?;
        let started = launch(node, &container, &pause).await?;
        Ok((starting, started))
    };
    match launched.await {
        Ok((starting, started)) => {
            if let Err(error) = started.write(&container.directory) {
                // It runs; pause knows, and tells the next daemon as well.
                tracing::error!(container = %container.id, error = %chain(&error), "cannot record the start");
            }
            // It may have ended already, and its end have been told: then that stays.
            container.started_as(&node.container_events, &started);
            starting.done(node).await;
            Ok(())
        }
        Err(error) => {
            let exit = ExitRecord {
                exit_code: NOT_STARTED,
                signal: 0,
                finished_at: clock::now(),
                reason: "StartError".into(),
                message: chain(&error),
            };
            super::exit::record(node, &container, None, exit);
            Err(error)
        }
    }
}

async fn launch(
    node: &Arc<Node>,
    container: &Container,
    pause: &Pause,
) -> Result<StartedRecord, CallError> {
    let compiled = container.compile(node)?;
    let cgroup = &container.cgroup;
    // Made with the container, unless an older daemon created that, or somebody has removed it.
    if !cgroup.exists() {
        let made = node.cgroups.create(cgroup.path());
        made.internal(|| format!("cannot make the cgroup of the container {}", container.id))?;
    }
    // The limits as they are asked for now: they may have been updated since the container was created.
    let compiled_resources = compiled
        .spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.resources().as_ref());
    let devices = compiled_resources.and_then(|resources| resources.devices().clone());
    let mut limits = oci_resources(&container.asked_resources(), devices)?;
    limits.set_pids(compiled_resources.and_then(|resources| *resources.pids()));
    container.nri.overlay(&mut limits)?;
    container.apply_limits(&limits)?;
    plan::write_bundle(&container.directory, &node.mount_point(), &compiled.spec)?;
    let log = super::log::open(container)?;
    let launched = pause
        .launch(&container.id, &compiled.plan, log.as_fd())
        .await;
    let (pid, at) = launched.map_err(|error| {
        if cgroup.oom_kills().is_ok_and(|kills| kills > 0) {
            let limit = container.asked_resources().memory_limit_in_bytes;
            let what = format!("cannot start the container {}: its memory limit of {limit} bytes is too low to start a process", container.id);
            return CallError::caused(Kind::InvalidArgument, what, error);
        }
        let kind = launch_failure(error.errno());
        CallError::caused(
            kind,
            format!("cannot start the container {}", container.id),
            error,
        )
    })?;
    Ok(StartedRecord { pid, at })
}

/// What a failed launch or exec means to the client: what the request names is missing or of no use, the disk or a limit is full, or
/// the node failed.
pub(super) fn launch_failure(errno: Option<i32>) -> Kind {
    match errno {
        Some(
            libc::ENOENT | libc::EACCES | libc::ENOTDIR | libc::ENOEXEC | libc::ELOOP | libc::E2BIG,
        ) => Kind::InvalidArgument,
        // EAGAIN: the limit on processes.
        Some(libc::ENOSPC | libc::EDQUOT | libc::EAGAIN) => Kind::ResourceExhausted,
        _ => Kind::Internal,
    }
}
