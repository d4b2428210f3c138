//! What plugins ask of the runtime.

use std::sync::{Arc, Weak};

use podwright_nri::api::{ContainerEviction, ContainerUpdate};
use podwright_nri::{Host, HostFuture, Inventory};

use super::{describe, resources};
use crate::container::{self, State};
use crate::error::{CallError, chain};
use crate::index::shown;
use crate::node::Node;

/// The node, as plugins reach it.
pub(crate) struct NodeHost {
    /// The node holds the interface, so the interface cannot hold the node.
    node: Weak<Node>,
}

impl NodeHost {
    pub(crate) fn of(node: &Arc<Node>) -> Self {
        Self {
            node: Arc::downgrade(node),
        }
    }

    fn node(&self) -> Result<Arc<Node>, String> {
        self.node
            .upgrade()
            .ok_or_else(|| "the runtime is ending".into())
    }
}

impl Host for NodeHost {
    fn inventory(&self) -> Inventory {
        let Some(node) = self.node.upgrade() else {
            return Inventory::default();
        };
        let sandboxes = node.sandboxes.all();
        let mut containers = node.containers.all();
        containers.retain(|container| !matches!(container.state(), State::Exited { .. }));
        Inventory {
            pods: sandboxes
                .iter()
                .map(|sandbox| describe::pod(&node, sandbox))
                .collect(),
            containers: containers
                .iter()
                .map(|container| describe::container(&node, container))
                .collect(),
        }
    }

    fn update(&self, update: ContainerUpdate) -> HostFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let node = self.node()?;
            apply(&node, update).await.map_err(|error| chain(&error))
        })
    }

    fn evict(&self, eviction: ContainerEviction) -> HostFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let node = self.node()?;
            let id = &eviction.container_id;
            tracing::warn!(
                container = shown(id),
                reason = shown(&eviction.reason),
                "a NRI plugin evicts the container"
            );
            // Whole ids only: a plugin has them, and a prefix could be another's.
            if node.containers.get(id).is_none() {
                return Err(format!("there is no container '{}'", shown(id)));
            }
            container::stop(&node, id, 0)
                .await
                .map_err(|error| chain(&error))
        })
    }
}

async fn apply(node: &Arc<Node>, update: ContainerUpdate) -> Result<(), CallError> {
    let id = &update.container_id;
    let container = node
        .containers
        .get(id)
        .ok_or_else(|| CallError::state(format!("there is no container '{}'", shown(id))))?;
    let limits = update
        .linux
        .and_then(|linux| linux.resources)
        .unwrap_or_default();
    let (said, rest) = resources::split(limits)?;
    let _operation = container.operation.lock().await;
    let said = resources::combine(container.asked_resources(), said);
    container::change_limits(node, &container, said, rest)
}
