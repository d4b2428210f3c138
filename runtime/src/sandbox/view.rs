//! ListPodSandbox and PodSandboxStatus: what clients see of a sandbox.

use std::collections::BTreeMap;
use std::sync::Arc;

use podwright_cri_api::list::Listed;
use podwright_cri_api::v1 as cri;
use prost::Message as _;

use super::{Sandbox, State};
use crate::clock;
use crate::container::{container_status, selects};
use crate::error::CallError;
use crate::node::Node;

fn cri_state(sandbox: &Sandbox) -> cri::PodSandboxState {
    match sandbox.state() {
        State::Ready(_) => cri::PodSandboxState::SandboxReady,
        State::NotReady => cri::PodSandboxState::SandboxNotready,
    }
}

/// Sandboxes that the filter lets through, oldest first.
pub(crate) fn list(node: &Node, filter: Option<&cri::PodSandboxFilter>) -> Vec<cri::PodSandbox> {
    let mut sandboxes = matching(node, filter);
    sandboxes.sort_by_key(|sandbox| sandbox.created_at);
    sandboxes.iter().map(|sandbox| item(sandbox)).collect()
}

/// As [`list`], as ListPodSandbox answers them.
pub(crate) fn listed(node: &Node, filter: Option<&cri::PodSandboxFilter>) -> Vec<Listed> {
    let mut sandboxes = matching(node, filter);
    sandboxes.sort_by_cached_key(|sandbox| sandbox.created_at);
    let listed = sandboxes.iter().map(|sandbox| {
        let encoded = sandbox.listed.get_or_init(|| {
            let without_state = cri::PodSandbox {
                state: 0,
                ..item(sandbox)
            };
            without_state.encode_to_vec().into()
        });
        Listed::sandbox(encoded.clone(), cri_state(sandbox))
    });
    listed.collect()
}

/// As [`list`], as they are.
pub(crate) fn matching(node: &Node, filter: Option<&cri::PodSandboxFilter>) -> Vec<Arc<Sandbox>> {
    let Some(filter) = filter else {
        return node.sandboxes.all();
    };
    let mut sandboxes = match filter.id.as_str() {
        "" => node.sandboxes.all(),
        // An unknown or ambiguous id filters everything out.
        id => node.sandboxes.find(id).ok().flatten().into_iter().collect(),
    };
    sandboxes.retain(|sandbox| {
        let state = filter
            .state
            .is_none_or(|state| state.state == cri_state(sandbox) as i32);
        state && selects(&filter.label_selector, &sandbox.config.labels)
    });
    sandboxes
}

fn item(sandbox: &Sandbox) -> cri::PodSandbox {
    cri::PodSandbox {
        id: sandbox.id.to_string(),
        metadata: Some(sandbox.metadata()),
        state: cri_state(sandbox).into(),
        created_at: sandbox.created_at,
        labels: sandbox.config.labels.clone(),
        annotations: sandbox.config.annotations.clone(),
        runtime_handler: sandbox.runtime_handler.clone(),
    }
}

/// A sandbox's status with its containers', and more about it when `verbose`.
pub(crate) fn status(
    node: &Node,
    request: &cri::PodSandboxStatusRequest,
) -> Result<cri::PodSandboxStatusResponse, CallError> {
    let sandbox = node.sandboxes.require(&request.pod_sandbox_id)?;
    let containers = node.containers_of(&sandbox.id);
    Ok(cri::PodSandboxStatusResponse {
        status: Some(sandbox_status(node, &sandbox)),
        info: if request.verbose {
            info(&sandbox)
        } else {
            BTreeMap::new()
        },
        containers_statuses: containers
            .iter()
            .map(|container| container_status(container))
            .collect(),
        timestamp: clock::now(),
    })
}

/// The status as events carry it as well.
pub(crate) fn sandbox_status(node: &Node, sandbox: &Sandbox) -> cri::PodSandboxStatus {
    let context = sandbox
        .config
        .linux
        .as_ref()
        .and_then(|linux| linux.security_context.as_ref());
    let options = context
        .and_then(|context| context.namespace_options.clone())
        .unwrap_or_default();
    cri::PodSandboxStatus {
        id: sandbox.id.to_string(),
        metadata: Some(sandbox.metadata()),
        state: cri_state(sandbox).into(),
        created_at: sandbox.created_at,
        network: Some(network_status(node, sandbox)),
        linux: Some(cri::LinuxPodSandboxStatus {
            namespaces: Some(cri::Namespace {
                options: Some(options),
            }),
        }),
        labels: sandbox.config.labels.clone(),
        annotations: sandbox.config.annotations.clone(),
        runtime_handler: sandbox.runtime_handler.clone(),
    }
}

/// The pod's addresses; none on the host's network, as CRI says, and none of a pod that has stopped.
fn network_status(node: &Node, sandbox: &Sandbox) -> cri::PodSandboxNetworkStatus {
    let attachment = node.network.attachment(sandbox.id.as_str());
    let mut addresses = attachment
        .iter()
        .flat_map(|attachment| &attachment.addresses)
        .map(|address| address.address.to_string());
    cri::PodSandboxNetworkStatus {
        ip: addresses.next().unwrap_or_default(),
        additional_ips: addresses.map(|ip| cri::PodIp { ip }).collect(),
    }
}

fn info(sandbox: &Sandbox) -> BTreeMap<String, String> {
    let pid = sandbox.pause().and_then(|pause| pause.pid()).unwrap_or(0);
    let resources = sandbox.resources();
    let info = serde_json::json!({
        "pid": pid,
        "cgroup": sandbox.cgroup.as_str(),
        "directory": sandbox.directory,
        "runtimeHandler": sandbox.runtime_handler,
        "overhead": resources.overhead.as_ref().map(shown_resources),
        "resources": resources.resources.as_ref().map(shown_resources),
        "networkNamespace": if pid == 0 { String::new() } else { format!("/proc/{pid}/ns/net") },
    });
    BTreeMap::from([("info".to_owned(), info.to_string())])
}

/// As CRI names the limits.
fn shown_resources(resources: &cri::LinuxContainerResources) -> serde_json::Value {
    serde_json::json!({
        "cpuPeriod": resources.cpu_period,
        "cpuQuota": resources.cpu_quota,
        "cpuShares": resources.cpu_shares,
        "memoryLimitInBytes": resources.memory_limit_in_bytes,
        "memorySwapLimitInBytes": resources.memory_swap_limit_in_bytes,
    })
}
