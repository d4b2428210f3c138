//! All connected plugins, as the runtime calls them.

mod events;
mod host;
mod join;
mod start;

pub use events::{Creation, PodUpdate};
pub use host::{Host, HostFuture, Inventory};
pub(crate) use join::{Origin, serve};

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use tokio::sync::{OwnedRwLockReadGuard, Semaphore};
use tokio::task::JoinSet;

use crate::api::{Event, EventSet};
use crate::config::Config;
use crate::plugin::Plugin;

/// Connections at a time, of plugins and of what may become one. Each can hold some MiB.
const MAX_CONNECTIONS: usize = 64;

/// The interface. Clones share it.
#[derive(Clone)]
pub struct Nri {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    /// None when the interface is off.
    pub(crate) config: Option<Config>,
    /// The connected plugins in the order in which they are called. Guards the list alone; who calls them has a copy.
    plugins: RwLock<Arc<[Arc<Plugin>]>>,
    /// The events that any plugin wants: what a caller looks at before it does anything.
    wanted: AtomicU32,
    /// Held for reading from the moment that plugins are told of a new or vanishing object until the runtime's lists have it so,
    /// for writing while a new plugin's lists are made: none is missing, none told twice.
    gate: Arc<tokio::sync::RwLock<()>>,
    host: OnceLock<Arc<dyn Host>>,
    connections: Arc<Semaphore>,
    /// What accepts, starts and serves plugins; ends with the interface. Guards the set alone.
    tasks: Mutex<JoinSet<()>>,
}

/// Keeps new plugins from being told what lives while it is held.
#[derive(Debug)]
pub struct Gate {
    _held: Option<OwnedRwLockReadGuard<()>>,
}

impl Nri {
    /// The interface, without plugins until it is started; `None` turns it off.
    pub fn new(config: Option<Config>) -> Self {
        let shared = Shared {
            config,
            plugins: RwLock::new(Arc::from([])),
            wanted: AtomicU32::new(0),
            gate: Arc::default(),
            host: OnceLock::new(),
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            tasks: Mutex::default(),
        };
        shared.set_plugins(Vec::new());
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Whether anybody must be told of `event`. One atomic load.
    pub fn wants(&self, event: Event) -> bool {
        EventSet::from_bits(self.shared.wanted.load(Ordering::Acquire)).contains(event)
    }

    /// Keeps new plugins waiting: see [`Gate`].
    pub async fn hold(&self) -> Gate {
        let held = match self.shared.config {
            Some(_) => Some(Arc::clone(&self.shared.gate).read_owned().await),
            None => None,
        };
        Gate { _held: held }
    }

    /// The plugins' names, in the order in which they are called.
    pub fn plugins(&self) -> Vec<String> {
        let plugins = self.shared.plugins();
        plugins
            .iter()
            .map(|plugin| plugin.name.to_string())
            .collect()
    }
}

impl std::fmt::Debug for Nri {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Nri").field(&self.plugins()).finish()
    }
}

impl Shared {
    pub(crate) fn plugins(&self) -> Arc<[Arc<Plugin>]> {
        Arc::clone(&self.plugins.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn add(&self, plugin: &Arc<Plugin>) {
        let mut plugins = self.plugins().to_vec();
        plugins.push(Arc::clone(plugin));
        // Stable: of two with the same name, the one that came first.
        plugins.sort_by(|a, b| a.name.cmp(&b.name));
        self.set_plugins(plugins);
    }

    pub(crate) fn remove(&self, plugin: &Arc<Plugin>) {
        let mut plugins = self.plugins().to_vec();
        plugins.retain(|other| !Arc::ptr_eq(other, plugin));
        self.set_plugins(plugins);
    }

    fn set_plugins(&self, plugins: Vec<Arc<Plugin>>) {
        let mut wanted = plugins
            .iter()
            .fold(EventSet::EMPTY, |all, plugin| all.union(plugin.events));
        let demanding = |config: &Config| !config.required_plugins.is_empty();
        if self.config.as_ref().is_some_and(demanding)
            || wanted.contains(Event::ValidateContainerAdjustment)
        {
            wanted = wanted.with(Event::CreateContainer);
        }
        let mut held = self.plugins.write().unwrap_or_else(PoisonError::into_inner);
        *held = plugins.into();
        self.wanted.store(wanted.bits(), Ordering::Release);
    }
}
