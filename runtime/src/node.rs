//! Everything that a running daemon holds.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use podwright_image::ImageStore;
use podwright_netns::Network;
use podwright_nri::Nri;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::cdi;
use crate::cgroup::Hierarchy;
use crate::config::Config;
use crate::container::{Container, ContainerName, Turns};
use crate::events::Events;
use crate::handler::Handlers;
use crate::ids::{ContainerId, SandboxId};
use crate::index::Index;
use crate::kernel::KernelFeatures;
use crate::names::Names;
use crate::pause::{Event, Program};
use crate::reclaim::Reclaim;
use crate::sandbox::{PodName, Sandbox};
use crate::security::apparmor::AppArmor;
use crate::security::capabilities::CapabilitySet;
use crate::security::oom::OomScoreRange;
use crate::security::seccomp::ProgramCache;
use crate::security::selinux::Selinux;
use crate::security::users::UserDatabases;
use crate::stats::Walks;
use crate::systemd::Systemd;
use crate::user_namespaces::UserNamespaceSupport;

/// The daemon's parts and objects, shared by all calls.
pub(crate) struct Node {
    pub(crate) config: Config,
    pub(crate) handlers: Handlers,
    pub(crate) cdi: cdi::Cache,
    pub(crate) kernel: KernelFeatures,
    pub(crate) images: ImageStore,
    pub(crate) network: Network,
    pub(crate) cgroups: Hierarchy,
    /// With the systemd cgroup driver only.
    pub(crate) systemd: Option<Systemd>,
    pub(crate) program: Program,
    pub(crate) seccomp: ProgramCache,
    pub(crate) user_databases: UserDatabases,
    pub(crate) capabilities: CapabilitySet,
    pub(crate) apparmor: AppArmor,
    pub(crate) selinux: Selinux,
    pub(crate) oom_scores: OomScoreRange,
    pub(crate) user_namespaces: UserNamespaceSupport,
    pub(crate) reclaim: Reclaim,
    /// The plugins that are told of pods and containers.
    pub(crate) nri: Nri,
    /// Where pauses tell what happens.
    pub(crate) events: mpsc::UnboundedSender<Event>,
    /// Where clients hear what happens.
    pub(crate) container_events: Events,
    /// Through writable layers.
    pub(crate) walks: Walks,
    pub(crate) sandboxes: Index<SandboxId, Sandbox>,
    pub(crate) containers: Index<ContainerId, Container>,
    pub(crate) pod_names: Arc<Names<PodName, SandboxId>>,
    pub(crate) container_names: Arc<Names<ContainerName, ContainerId>>,
    /// Which containers are whose, so that a pod's operations cost the same with 1,000 others. Guards the map alone.
    pub(crate) members: RwLock<BTreeMap<SandboxId, Vec<ContainerId>>>,
    /// For the commands in containers.
    pub(crate) turns: Turns,
    /// Commands that nobody waits for any more are being killed.
    pub(crate) kills: TaskTracker,
}

impl Node {
    /// An empty directory that containers mount their roots on, each in its own mount namespace.
    pub(crate) fn mount_point(&self) -> std::path::PathBuf {
        self.config.run_dir.join("root")
    }

    /// An empty directory that stays empty: the lowest layer of image volumes.
    pub(crate) fn empty_directory(&self) -> std::path::PathBuf {
        self.config.run_dir.join("empty")
    }

    /// A directory with an empty one for each of cgroup v1's mounts, which containers see below /sys/fs/cgroup.
    pub(crate) fn cgroup_places(&self) -> std::path::PathBuf {
        self.config.run_dir.join("cgroups")
    }

    /// Makes a container known.
    pub(crate) fn add_container(&self, container: Arc<Container>) {
        let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
        members
            .entry(container.sandbox.id.clone())
            .or_default()
            .push(container.id.clone());
        drop(members);
        self.containers.insert(container.id.clone(), container);
    }

    /// Makes a removed container unknown; whether it was known.
    pub(crate) fn drop_container(&self, container: &Container) -> bool {
        let known = self.containers.remove(&container.id);
        let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(ids) = members.get_mut(&container.sandbox.id) {
            ids.retain(|id| *id != container.id);
            if ids.is_empty() {
                members.remove(&container.sandbox.id);
            }
        }
        known
    }

    /// The pod's containers, oldest first.
    pub(crate) fn containers_of(&self, sandbox: &SandboxId) -> Vec<Arc<Container>> {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        let ids = members.get(sandbox).cloned().unwrap_or_default();
        drop(members);
        ids.iter()
            .filter_map(|id| self.containers.get(id.as_str()))
            .collect()
    }
}
