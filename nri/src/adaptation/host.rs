//! What the interface asks of the runtime.

use std::pin::Pin;

use crate::api::{Container, ContainerEviction, ContainerUpdate, PodSandbox};

/// A future of a [`Host`].
pub type HostFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What lives on the node.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// All pods.
    pub pods: Vec<PodSandbox>,
    /// All containers that have not ended.
    pub containers: Vec<Container>,
}

/// The runtime, as plugins reach it.
pub trait Host: Send + Sync + 'static {
    /// What lives. Called while no object comes or goes.
    fn inventory(&self) -> Inventory;

    /// Changes a container that is there.
    ///
    /// # Errors
    /// In words, when it cannot be done.
    fn update(&self, update: ContainerUpdate) -> HostFuture<'_, Result<(), String>>;

    /// Ends a container that a plugin wants gone.
    ///
    /// # Errors
    /// In words, when it cannot be done.
    fn evict(&self, eviction: ContainerEviction) -> HostFuture<'_, Result<(), String>>;
}
