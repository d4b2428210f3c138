//! UpdatePodSandboxResources, and the limits that a pod begins with.
//!
//! Whoever names a cgroup parent limits the pod there: a kubelet does so, and what it sends here is the sum of what its
//! containers declare, which would be too little for a pod of which one container declares no limit. So the pod's own cgroup
//! gets limits only when its parent is the runtime's.

use std::sync::{Arc, PoisonError};

use oci_spec::runtime::LinuxResources;
use podwright_cri_api::v1::{
    LinuxContainerResources, PodSandboxConfig, UpdatePodSandboxResourcesRequest,
};

use super::Sandbox;
use crate::cgroup::{Cgroup, CgroupError, Undo};
use crate::container;
use crate::error::{CallError, Context};
use crate::node::Node;
use crate::nri;
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
    let (overhead, resources) = (request.overhead, request.resources);
    let next = PodResourcesRecord {
        overhead: merged(old.overhead, overhead.clone()),
        resources: merged(old.resources, resources.clone()),
    };
    // A request that makes no sense is not shown to plugins.
    limits(&next)?;
    nri::pod_updating(node, &sandbox, overhead.as_ref(), resources.as_ref()).await?;
    let undo = change(
        &sandbox.config,
        &node.cgroups.cgroup(&sandbox.cgroup),
        &next,
    )?;
    let recorded = next.write(&sandbox.directory).internal(|| {
        format!(
            "cannot record the resources of the pod sandbox {}",
            sandbox.id
        )
    });
    if let Err(error) = recorded {
        if let Some(undo) = undo {
            undo.restore();
        }
        return Err(error);
    }
    *sandbox
        .resources
        .lock()
        .unwrap_or_else(PoisonError::into_inner) = next;
    nri::pod_updated(node, &sandbox).await;
    Ok(())
}

fn merged(
    old: Option<LinuxContainerResources>,
    new: Option<LinuxContainerResources>,
) -> Option<LinuxContainerResources> {
    match (old, new) {
        (Some(old), Some(new)) => Some(merge_resources(old, new)),
        (old, new) => new.or(old),
    }
}

/// The pod's limits: its overhead and what its containers have together.
fn limits(resources: &PodResourcesRecord) -> Result<LinuxResources, CallError> {
    oci_resources(
        &sum_resources(&resources.overhead, &resources.resources),
        None,
    )
}

/// Sets a new pod's limits, when they are the runtime's to set. Limits that cannot be are refused in any case.
pub(super) fn apply(
    config: &PodSandboxConfig,
    cgroup: &Cgroup,
    resources: &PodResourcesRecord,
) -> Result<(), CallError> {
    let limits = limits(resources)?;
    match are_ours(config) {
        true => cgroup.apply(&limits).map_err(refused),
        false => Ok(()),
    }
}

/// The same for a pod that is there.
fn change(
    config: &PodSandboxConfig,
    cgroup: &Cgroup,
    resources: &PodResourcesRecord,
) -> Result<Option<Undo>, CallError> {
    let limits = limits(resources)?;
    if !are_ours(config) {
        return Ok(None);
    }
    // To reclaim memory takes the kernel as long as it takes.
    let changed = tokio::task::block_in_place(|| cgroup.update(&limits));
    changed.map(Some).map_err(refused)
}

/// Whether nobody else limits the pod.
fn are_ours(config: &PodSandboxConfig) -> bool {
    super::cgroup::parent(config).is_empty()
}

fn refused(error: CgroupError) -> CallError {
    let kind = container::refusal(&error);
    CallError::caused(kind, "cannot set the limits of the pod", error)
}

impl Sandbox {
    /// What it was last given.
    pub(crate) fn resources(&self) -> PodResourcesRecord {
        let resources = self.resources.lock();
        resources.unwrap_or_else(PoisonError::into_inner).clone()
    }
}
