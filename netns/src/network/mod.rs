//! The network of one daemon.

mod attach;
mod detach;
mod open;
mod recover;
mod subnets;
mod traffic;

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::address::{Pool, Subnet};
use crate::attachment::Attachment;
use crate::config::{LinkName, NetworkConfig};
use crate::error::NetworkError;
use crate::netlink::{Message, NetlinkError, Reply, Socket, exchange};
use crate::nft::{self, Element, PodFilter, Ruleset, Set};
use crate::port::PortRegistry;
use crate::procfs::Procfs;
use crate::record::Records;
use crate::rtnetlink::link::{self, Counters, Protocols};
use crate::subnets::Subnets;
use crate::sysctl;

/// One daemon's pod network.
///
/// Calls about different pods may run at the same time. Calls about one pod must not.
#[derive(Debug)]
pub struct Network {
    config: NetworkConfig,
    records: Records,
    /// Index of the bridge.
    bridge: u32,
    filter: PodFilter,
    protocols: Protocols,
    /// The host's rtnetlink socket; the lock keeps each exchange to itself.
    route: Mutex<Socket>,
    procfs: Procfs,
    /// The host's nfnetlink socket; the lock keeps each transaction to itself.
    netfilter: Mutex<Socket>,
    /// Never locked during a call into the kernel that waits for others, and never while a socket is.
    state: Mutex<State>,
    /// Held by who changes the subnets.
    changing: Mutex<()>,
}

/// What is given, and to whom. The records say the same on disk.
#[derive(Debug)]
struct State {
    subnets: Subnets,
    /// In the order of the subnets that are given.
    pools: Vec<Pool>,
    ports: PortRegistry,
    attachments: HashMap<String, Attachment>,
    /// Links of detached pods that the kernel had not yet deleted. They are filtered until they are gone: their
    /// element in `links` stays, those of their addresses do not.
    lingering: VecDeque<LinkName>,
}

/// What the network has in the kernel and on disk, counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Links that belong to the bridge.
    pub links: usize,
    /// Elements of all nftables sets and maps: ports, links, source addresses.
    pub elements: usize,
    /// Pod records on disk.
    pub records: usize,
}

impl Network {
    /// The configuration that the network was opened with.
    pub fn config(&self) -> &NetworkConfig {
        &self.config
    }

    /// Kernel settings that a new pod's namespace needs. A pod without IPv6 needs none where the bridge drops what a router's
    /// enemy sends.
    fn pod_sysctls(&self) -> &'static [(&'static str, &'static str)] {
        let subnets = &self.state().subnets.given;
        let has_ipv6 = subnets.iter().any(|subnet| subnet.network().is_ipv6());
        match self.filter {
            PodFilter::PerPod if !has_ipv6 => &[],
            PodFilter::PerPod | PodFilter::SubnetsOnly => sysctl::OF_PODS,
        }
    }

    /// What the pod has, also when an earlier daemon gave it.
    pub fn attachment(&self, pod: &str) -> Option<Attachment> {
        self.state().attachments.get(pod).cloned()
    }

    /// The counters of every pod's `eth0`, by pod.
    ///
    /// One file tells them all, and reading it waits for nobody who changes links.
    pub fn traffic(&self) -> Result<HashMap<String, Counters>, NetworkError> {
        let links = traffic::read()?;
        let state = self.state();
        let pods = state.attachments.iter().filter_map(|(pod, attachment)| {
            let counters = links.get(attachment.host_link.as_str())?;
            Some((pod.clone(), counters.mirrored()))
        });
        Ok(pods.collect())
    }

    /// The counters of the pod's `eth0`.
    pub fn usage(&self, pod: &str) -> Result<Counters, NetworkError> {
        let attachment = self
            .attachment(pod)
            .ok_or_else(|| NetworkError::NotAttached {
                pod: pod.to_owned(),
            })?;
        let counters = link::counters(&*self.route(), &attachment.host_link);
        counters
            .map(Counters::mirrored)
            .map_err(NetworkError::kernel(format!(
                "read the traffic of pod {pod}"
            )))
    }

    /// Counts what is there; for diagnosis.
    pub fn installed(&self) -> Result<Installed, NetworkError> {
        let action = || NetworkError::kernel("count what the pod network has in the kernel");
        let links = link::ports(&*self.route(), self.bridge)
            .map_err(action())?
            .len();
        let mut elements = 0;
        for set in Set::ALL {
            elements += nft::count(&*self.netfilter(), &self.config.table, set).map_err(action())?;
        }
        Ok(Installed {
            links,
            elements,
            records: self.records.count()?,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock; were it so, the records still say what is true.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn route(&self) -> MutexGuard<'_, Socket> {
        self.route.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn netfilter(&self) -> MutexGuard<'_, Socket> {
        self.netfilter
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn route_exchange(&self, messages: &[Message]) -> Result<Vec<Reply>, NetlinkError> {
        exchange(&*self.route(), messages)
    }

    fn nft_transaction(&self, requests: Vec<Message>) -> Result<(), NetlinkError> {
        exchange(&*self.netfilter(), &nft::transaction(requests)).map(drop)
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the elements of the tables that there are.
    fn installable(&self, elements: Vec<Element>) -> Vec<Element> {
        match self.filter {
            PodFilter::PerPod => elements,
            PodFilter::SubnetsOnly => elements
                .into_iter()
                .filter(|element| element.set.family() == nft::Family::Inet)
                .collect(),
        }
    }
}

fn ruleset<'a>(config: &'a NetworkConfig, subnets: &'a [Subnet]) -> Ruleset<'a> {
    Ruleset {
        table: &config.table,
        bridge: &config.bridge,
        subnets,
        masquerade: &config.masquerade,
    }
}
