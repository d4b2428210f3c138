//! StartContainer.

use std::os::fd::AsFd;
use std::sync::Arc;

use super::{Compiled, Container, State};
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
    // Without a connection it stays as it is, and can be started later.
    let connected = || container.sandbox.require_pause("start the container");
    connected()?;
    let launched = match nri::starting(node, &container).await {
        Ok(starting) => {
            // Plugins take their time.
            let pause = connected()?;
            let started = launch(node, &container, &pause).await;
            started.map(|started| (starting, started))
        }
        Err(error) => Err(error),
    };
    match launched {
        Ok((starting, started)) => {
            if let Err(error) = started.write(&container.directory) {
                // It runs; pause knows, and tells the next daemon as well.
                tracing::error!(container = %container.id, error = %chain(&error), "cannot record the start");
            }
            // It may have ended already, and its end have been told: then that stays.
            container.started_as(&node.container_events, &started);
            container.keep_for_commands();
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
    let cgroup = &container.cgroup;
    if !cgroup.exists() {
        // Somebody has removed it, and its limits with it.
        container.forget_plan();
    }
    let compiled = container.compile(node)?;
    make_group(node, container, &compiled)?;
    plan::write_bundle(&container.directory, &node.mount_point(), &compiled.spec)?;
    let log = super::log::open(container)?;
    let root = match container.sandbox.settings.user_namespace {
        Some(_) => {
            super::root::leave(&compiled.plan);
            None
        }
        None => super::root::make(&compiled.plan),
    };
    let launched = pause
        .launch(&container.id, &compiled.plan, log.as_fd(), root)
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

/// Makes the container's cgroup with its limits, unless it has those already: they are compiled anew when they are updated,
/// and by a daemon that has not made the group itself.
pub(super) fn make_group(
    node: &Node,
    container: &Container,
    compiled: &Compiled,
) -> Result<(), CallError> {
    if compiled.limits.get().is_some() {
        return Ok(());
    }
    node.cgroups
        .create(container.cgroup.path())
        .internal(|| format!("cannot make the cgroup of the container {}", container.id))?;
    let linux = compiled.spec.linux().as_ref();
    let resources = linux.and_then(|linux| linux.resources().as_ref());
    let devices = resources.and_then(|resources| resources.devices().clone());
    let mut limits = oci_resources(&container.asked_resources(), devices)?;
    limits.set_pids(resources.and_then(|resources| *resources.pids()));
    container.nri.overlay(&mut limits)?;
    container.apply_limits(&limits)?;
    // Set by another call meanwhile, it is set.
    let _ = compiled.limits.set(());
    Ok(())
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
