//! Which pods and containers a list is about.

use std::sync::Arc;

use podwright_cri_api::v1 as cri;

use crate::container::{self, Container};
use crate::node::Node;
use crate::sandbox::{self, Sandbox};

pub(super) fn containers(
    node: &Node,
    filter: Option<cri::ContainerStatsFilter>,
) -> Vec<Arc<Container>> {
    let filter = filter.map(|filter| cri::ContainerFilter {
        id: filter.id,
        state: None,
        pod_sandbox_id: filter.pod_sandbox_id,
        label_selector: filter.label_selector,
    });
    let mut containers = container::matching(node, filter.as_ref());
    containers.retain(|container| container.is_running());
    containers
}

pub(super) fn sandboxes(
    node: &Node,
    filter: Option<cri::PodSandboxStatsFilter>,
) -> Vec<Arc<Sandbox>> {
    let filter = filter.map(|filter| cri::PodSandboxFilter {
        id: filter.id,
        state: None,
        label_selector: filter.label_selector,
    });
    let mut sandboxes = sandbox::matching(node, filter.as_ref());
    sandboxes.retain(|sandbox| sandbox.pause().is_some());
    sandboxes
}
