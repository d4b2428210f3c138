//! UpdateContainerResources.

use std::sync::{Arc, PoisonError};

use oci_spec::runtime::LinuxResources;
use podwright_cri_api::v1::{LinuxContainerResources, UpdateContainerResourcesRequest};

use super::{Container, State, oom_score};
use crate::cgroup::{CgroupError, Undo};
use crate::error::{CallError, Context, Kind};
use crate::node::Node;
use crate::nri;
use crate::plan::{merge_resources, oci_resources};
use crate::records::{Record, ResourcesRecord};

/// Changes the limits of a created or running container; what the request leaves at zero stays.
pub(crate) async fn update(
    node: &Arc<Node>,
    request: UpdateContainerResourcesRequest,
) -> Result<(), CallError> {
    let container = node.containers.require(&request.container_id)?;
    let asked = request
        .linux
        .ok_or_else(|| CallError::invalid("the request has no Linux resources"))?;
    let others = {
        let _operation = container.operation.lock().await;
        require_living(&container)?;
        // A request that makes no sense is not shown to plugins.
        oci_resources(&asked, None)?;
        let (asked, rest, others) = nri::updating(node, &container, asked).await?;
        change_limits(node, &container, asked, rest)?;
        others
    };
    nri::updated(node, &container, others).await
}

fn require_living(container: &Container) -> Result<(), CallError> {
    match container.state() {
        State::Exited { .. } => Err(CallError::state(format!(
            "cannot update the container {}: it has exited",
            container.id
        ))),
        State::Created | State::Running { .. } => Ok(()),
    }
}

/// Changes a container's limits, and writes them down: those of CRI, and the rest that NRI plugins may set. For who holds its
/// operation lock.
pub(crate) fn change_limits(
    node: &Node,
    container: &Container,
    asked: LinuxContainerResources,
    rest: podwright_nri::api::LinuxResources,
) -> Result<(), CallError> {
    require_living(container)?;
    nri::refuse_rules(&rest)?;
    let mut resources = oci_resources(&asked, None)?;
    nri::overlay(&mut resources, &rest)?;
    let score = node
        .oom_scores
        .clamp(asked.oom_score_adj)
        .invalid(|| "cannot set oom_score_adj".into())?;
    let merged = merge_resources(container.asked_resources(), asked.clone());
    let undo = match container.is_running() {
        true => Some(container.update_limits(&resources)?),
        false => None,
    };
    let failed = || {
        format!(
            "cannot record the new limits of the container {}",
            container.id
        )
    };
    let keep = || {
        if undo.is_some() && asked.oom_score_adj != 0 {
            oom_score::set(&container.cgroup, score)?;
        }
        let record = ResourcesRecord {
            resources: Some(merged.clone()),
        };
        record.write(&container.directory).internal(failed)
    };
    if let Err(error) = keep() {
        if let Some(undo) = undo {
            undo.restore();
        }
        return Err(error);
    }
    *container
        .resources
        .lock()
        .unwrap_or_else(PoisonError::into_inner) = merged;
    // Its start, or its execs, take the new score from there.
    container.forget_plan();
    match container.nri.add_limits(rest) {
        Some(record) => record.write(&container.directory).internal(failed),
        None => Ok(()),
    }
}

impl Container {
    /// Sets the first limits in the container's cgroup.
    pub(super) fn apply_limits(&self, resources: &LinuxResources) -> Result<(), CallError> {
        let applied = self.cgroup.apply(resources);
        applied.map_err(|error| self.limits_refused(error))
    }

    /// Changes limits in the cgroup of a running container: all of them or none.
    fn update_limits(&self, resources: &LinuxResources) -> Result<Undo, CallError> {
        // To reclaim memory takes the kernel as long as it takes.
        let updated = tokio::task::block_in_place(|| self.cgroup.update(resources));
        updated.map_err(|error| self.limits_refused(error))
    }

    fn limits_refused(&self, error: CgroupError) -> CallError {
        let what = format!("cannot set the limits of the container {}", self.id);
        CallError::caused(refusal(&error), what, error)
    }
}

/// What it means to the client that limits were not set.
pub(crate) fn refusal(error: &CgroupError) -> Kind {
    if error.is_in_use() {
        Kind::FailedPrecondition
    } else if error.is_invalid_input() {
        Kind::InvalidArgument
    } else {
        Kind::Internal
    }
}
