//! UpdateContainerResources.

use std::sync::{Arc, PoisonError};

use oci_spec::runtime::LinuxResources;
use podwright_cri_api::v1::{LinuxContainerResources, UpdateContainerResourcesRequest};

use super::{Container, State};
use crate::error::{CallError, Context, Kind};
use crate::node::Node;
use crate::plan::oci_resources;
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
    let _operation = container.operation.lock().await;
    let state = container.state();
    if matches!(state, State::Exited { .. }) {
        return Err(CallError::state(format!(
            "cannot update the container {}: it has exited",
            container.id
        )));
    }
    let resources = oci_resources(&asked, None)?;
    if matches!(state, State::Running { .. }) {
        container.apply_limits(&resources)?;
    }
    let merged = merge(container.asked_resources(), asked);
    let record = ResourcesRecord {
        resources: Some(merged.clone()),
    };
    record.write(&container.directory).internal(|| {
        format!(
            "cannot record the new limits of the container {}",
            container.id
        )
    })?;
    *container
        .resources
        .lock()
        .unwrap_or_else(PoisonError::into_inner) = merged;
    Ok(())
}

/// The limits after an update: zero and empty mean "as before".
fn merge(old: LinuxContainerResources, new: LinuxContainerResources) -> LinuxContainerResources {
    let number = |new: i64, old: i64| if new == 0 { old } else { new };
    let text = |new: String, old: String| if new.is_empty() { old } else { new };
    let mut unified = old.unified;
    unified.extend(new.unified);
    LinuxContainerResources {
        cpu_period: number(new.cpu_period, old.cpu_period),
        cpu_quota: number(new.cpu_quota, old.cpu_quota),
        cpu_shares: number(new.cpu_shares, old.cpu_shares),
        memory_limit_in_bytes: number(new.memory_limit_in_bytes, old.memory_limit_in_bytes),
        oom_score_adj: number(new.oom_score_adj, old.oom_score_adj),
        cpuset_cpus: text(new.cpuset_cpus, old.cpuset_cpus),
        cpuset_mems: text(new.cpuset_mems, old.cpuset_mems),
        hugepage_limits: if new.hugepage_limits.is_empty() {
            old.hugepage_limits
        } else {
            new.hugepage_limits
        },
        unified,
        memory_swap_limit_in_bytes: number(
            new.memory_swap_limit_in_bytes,
            old.memory_swap_limit_in_bytes,
        ),
    }
}

impl Container {
    /// Sets limits in the container's cgroup.
    pub(super) fn apply_limits(&self, resources: &LinuxResources) -> Result<(), CallError> {
        self.cgroup.apply(resources).map_err(|error| {
            let kind = if error.is_invalid_input() {
                Kind::InvalidArgument
            } else {
                Kind::Internal
            };
            CallError::caused(
                kind,
                format!("cannot set the limits of the container {}", self.id),
                error,
            )
        })
    }
}
