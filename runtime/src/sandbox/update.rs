//! UpdatePodSandboxResources, and the limits that a pod begins with.
//!
//! Whoever names a cgroup parent limits the pod there: a kubelet does so, and what it sends here is the sum of what its
//! containers declare, which would be too little for a pod of which one container declares no limit. So the pod's own cgroup
//! gets limits only when its parent is the runtime's.

use std::sync::{Arc, PoisonError};

use podwright_cri_api::v1::{LinuxContainerResources, UpdatePodSandboxResourcesRequest};

use super::Sandbox;
use crate::cgroup::Cgroup;
use crate::error::{CallError, Context, Kind};
use crate::node::Node;
use crate::plan::{merge_resources, oci_resources, sum_resources};
use crate::records::{PodResourcesRecord, Record};

/// Changes the pod's overhead and resources; what the request leaves out or at zero stays.
pub(crate) async fn update(
    node: &Arc<Node>,
    request: UpdatePodSandboxResourcesRequest,
) -> Result<(), CallError> {
    let sandbox = node.sandboxes.require(&request.pod_sandbox_id)?;
    let _operation = sandbox.operation.lock().await;
    sandbox.require_ready("update the pod sandbox's resources")?;
    let old = sandbox.resources();
    let merged = |old: Option<LinuxContainerResources>, new: Option<LinuxContainerResources>| match (
        old, new,
    ) {
        (Some(old), Some(new)) => Some(merge_resources(old, new)),
        (old, new) => new.or(old),
    };
    let next = PodResourcesRecord {
        overhead: merged(old.overhead, request.overhead),
        resources: merged(old.resources, request.resources),
    };
    apply(
        &sandbox.config,
        &node.cgroups.cgroup(&sandbox.cgroup),
        &next,
    )?;
    next.write(&sandbox.directory).internal(|| {
        format!(
            "cannot record the resources of the pod sandbox {}",
            sandbox.id
        )
    })?;
    *sandbox
        .resources
        .lock()
        .unwrap_or_else(PoisonError::into_inner) = next;
    Ok(())
}

/// Sets the pod's limits, when they are the runtime's to set. Limits that cannot be are refused in any case.
pub(super) fn apply(
    config: &podwright_cri_api::v1::PodSandboxConfig,
    cgroup: &Cgroup,
    resources: &PodResourcesRecord,
) -> Result<(), CallError> {
    let sum = sum_resources(&resources.overhead, &resources.resources);
    let limits = oci_resources(&sum, None)?;
    let linux = config.linux.as_ref();
    if linux.is_some_and(|linux| !linux.cgroup_parent.is_empty()) {
        return Ok(());
    }
    cgroup.apply(&limits).map_err(|error| {
        let kind = match error.is_invalid_input() {
            true => Kind::InvalidArgument,
            false => Kind::Internal,
        };
        CallError::caused(kind, "cannot set the limits of the pod", error)
    })
}

impl Sandbox {
    /// What it was last given.
    pub(crate) fn resources(&self) -> PodResourcesRecord {
        let resources = self.resources.lock();
        resources.unwrap_or_else(PoisonError::into_inner).clone()
    }
}
