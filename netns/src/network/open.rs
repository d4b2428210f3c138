//! Opening, repairing and removing the network.

use std::collections::VecDeque;
use std::sync::Mutex;

use nix::errno::Errno;

use super::subnets::withdraw;
use super::{Network, State, ruleset};
use crate::address::{MacAddress, Pool, Subnet};
use crate::attachment::Attachment;
use crate::config::NetworkConfig;
use crate::error::NetworkError;
use crate::netlink::{NetlinkError, Protocol, Socket, exchange};
use crate::nft::{self, Element, PodFilter};
use crate::port::PortRegistry;
use crate::procfs::Procfs;
use crate::record::{Records, cursors};
use crate::rtnetlink::{address, link};
use crate::subnets::{Subnets, is_of};
use crate::sysctl;

/// What the names of the host's ends of pods' links begin with.
pub(super) const LINK_PREFIX: &str = "pw";

impl Network {
    /// Makes the network, or finds and repairs what an earlier daemon left: bridge, gateway addresses, kernel
    /// settings, nftables. Pods that are attached stay connected, and their ports open, all the while.
    ///
    /// It must be followed by [`Network::recover`] before the first [`Network::allocate`].
    pub fn open(config: NetworkConfig) -> Result<Self, NetworkError> {
        check(&config.subnets, config.mtu)?;
        let records = Records::open(&config.state_dir)?;
        let attachments = records.load()?;
        let route =
            Socket::open(Protocol::Route).map_err(NetworkError::kernel("open the pod network"))?;
        let netfilter = Socket::open(Protocol::Netfilter)
            .map_err(NetworkError::kernel("open the pod network"))?;
        let earlier = records.subnets();
        let change = Subnets::at_start(&config.subnets, earlier.clone(), |subnet| {
            let mut addresses = attachments.values().flat_map(|pod| &pod.addresses);
            addresses.any(|net| is_of(net, subnet))
        });
        let subnets = change.next;
        if earlier.as_ref() != Some(&subnets)
            && let Err(error) = records.write_subnets(&subnets)
        {
            // A full disk must not keep the node from starting; without the record the configuration holds.
            tracing::warn!(%error, "which subnets pods have is not recorded; the next start tries again");
        }
        let bridge = set_up_bridge(&config, &route, &subnets.all())?;
        withdraw(&config.bridge, &route, bridge, &change.dropped)?;

        let mut elements: Vec<Element> = attachments.values().flat_map(nft::pod_elements).collect();
        elements.extend(
            strays(&route, bridge, &attachments)?
                .iter()
                .map(|name| Element::link(name)),
        );
        let filter = install(&config, &subnets.all(), &netfilter, &elements)?;

        let mut pools: Vec<Pool> = cursors(&records, &subnets.given)
            .map(|(subnet, cursor)| Pool::new(subnet, cursor))
            .collect();
        let mut ports = PortRegistry::default();
        for (pod, attachment) in &attachments {
            for net in &attachment.addresses {
                pools.iter_mut().for_each(|pool| pool.occupy(net.address));
            }
            ports
                .take(pod, &attachment.ports)
                .map_err(|taken| NetworkError::PortTaken {
                    port: taken.port,
                    holder: taken.holder,
                })?;
        }
        let state = State {
            subnets,
            pools,
            ports,
            attachments,
            lingering: VecDeque::new(),
        };
        Ok(Self {
            config,
            records,
            bridge,
            filter,
            protocols: sysctl::protocols(),
            route: Mutex::new(route),
            netfilter: Mutex::new(netfilter),
            procfs: Procfs::default(),
            state: Mutex::new(state),
            changing: Mutex::new(()),
        })
    }

    /// Removes the bridge, the tables and the state. No pod may be attached. Forwarding stays on: others may need it.
    pub fn destroy(self) -> Result<(), NetworkError> {
        let pods = self.state().attachments.len();
        if pods > 0 {
            return Err(NetworkError::HasPods { pods });
        }
        for link in std::mem::take(&mut self.state().lingering) {
            self.delete_link(&link)?;
        }
        self.nft_transaction(ruleset(&self.config, &[]).remove(self.filter))
            .map_err(NetworkError::kernel("remove the pod network's nftables"))?;
        self.delete_link(&self.config.bridge)?;
        self.records.destroy(&self.config.state_dir)
    }

    /// Makes the tables anew from what is attached: somebody flushed them.
    pub(super) fn reinstall(&self) -> Result<(), NetworkError> {
        let (subnets, elements) = {
            let state = self.state();
            let of_pods = state.attachments.values().flat_map(nft::pod_elements);
            let lingering = state.lingering.iter();
            let elements: Vec<Element> = of_pods
                .chain(lingering.map(|name| Element::link(name.as_str())))
                .collect();
            (state.subnets.all(), elements)
        };
        let ruleset = ruleset(&self.config, &subnets);
        self.nft_transaction(ruleset.install(self.filter, &elements))
            .map_err(NetworkError::kernel("make the pod network's nftables anew"))
    }
}

pub(super) fn check(subnets: &[Subnet], mtu: Option<u32>) -> Result<(), NetworkError> {
    let problem = |problem: String| Err(NetworkError::Config { problem });
    if subnets.is_empty() {
        return problem("no pod subnet; write one IPv4 or IPv6 subnet, or one of each".to_owned());
    }
    for (index, one) in subnets.iter().enumerate() {
        for other in &subnets[..index] {
            if one.contains(other.network()) || other.contains(one.network()) {
                return problem(format!(
                    "the pod subnets {other} and {one} overlap; write each address once"
                ));
            }
        }
    }
    // The least that IPv4 (RFC 791) and IPv6 (RFC 8200 §5) work with; the most that veth takes.
    let has_ipv6 = subnets.iter().any(|subnet| subnet.network().is_ipv6());
    let least = if has_ipv6 { 1280 } else { 576 };
    if let Some(mtu) = mtu.filter(|mtu| !(least..=65535).contains(mtu)) {
        return problem(format!("MTU {mtu} is not between {least} and 65535"));
    }
    Ok(())
}

/// Makes or repairs the bridge, and returns its index.
fn set_up_bridge(
    config: &NetworkConfig,
    route: &Socket,
    subnets: &[Subnet],
) -> Result<u32, NetworkError> {
    let action = || NetworkError::kernel(format!("set up the pod bridge {}", config.bridge));
    let name = &config.bridge;
    if let Some(found) = link::find(route, name).map_err(action())?
        && found.kind != "bridge"
    {
        return Err(NetworkError::NotABridge {
            link: name.clone(),
            kind: found.kind,
        });
    }
    // The configuration's, whatever is served: pods know the gateway by its link-layer address.
    let mac = MacAddress::of(config.subnets[0].gateway().address);
    exchange(route, &[link::bridge(name, mac, config.mtu)]).map_err(action())?;
    let missing = || NetlinkError::Answer {
        what: format!("look up the link {name}"),
        problem: "it has gone",
    };
    let index = link::find(route, name)
        .and_then(|link| link.ok_or_else(missing))
        .map_err(action())?
        .index;
    serve(config, route, index, subnets)?;
    Ok(index)
}

/// Makes the host a gateway of these subnets; one that it is already stays so.
pub(super) fn serve(
    config: &NetworkConfig,
    route: &Socket,
    bridge: u32,
    subnets: &[Subnet],
) -> Result<(), NetworkError> {
    let has_ipv6 = subnets.iter().any(|subnet| subnet.network().is_ipv6());
    if subnets.iter().any(|subnet| subnet.network().is_ipv4()) {
        sysctl::forward_ipv4()?;
    }
    if has_ipv6 {
        sysctl::forward_ipv6()?;
    }
    sysctl::configure_bridge(&config.bridge, has_ipv6)?;
    let gateways = subnets.iter();
    let gateways: Vec<_> = gateways
        .map(|subnet| address::add(bridge, subnet.gateway()))
        .collect();
    exchange(route, &gateways)
        .map(drop)
        .map_err(NetworkError::kernel(format!(
            "make the pod bridge {} a gateway",
            config.bridge
        )))
}

/// Links of pods that no record knows.
pub(super) fn strays(
    route: &Socket,
    bridge: u32,
    attachments: &std::collections::HashMap<String, Attachment>,
) -> Result<Vec<String>, NetworkError> {
    let known: std::collections::HashSet<&str> = attachments
        .values()
        .map(|attachment| attachment.host_link.as_str())
        .collect();
    let links = link::ports(route, bridge).map_err(NetworkError::kernel("list the pods' links"))?;
    let is_stray = |name: &String| name.starts_with(LINK_PREFIX) && !known.contains(name.as_str());
    Ok(links
        .into_iter()
        .filter(|link| link.kind == "veth")
        .map(|link| link.name)
        .filter(is_stray)
        .collect())
}

/// Makes the tables anew, with as exact a filter as the kernel can.
fn install(
    config: &NetworkConfig,
    subnets: &[Subnet],
    netfilter: &Socket,
    elements: &[Element],
) -> Result<PodFilter, NetworkError> {
    let try_with = |filter| {
        exchange(
            netfilter,
            &nft::transaction(ruleset(config, subnets).install(filter, elements)),
        )
        .map(|_| filter)
    };
    try_with(PodFilter::PerPod)
        .or_else(|error| {
            if !(error.is(Errno::EOPNOTSUPP) || error.is(Errno::EAFNOSUPPORT)) {
                return Err(error);
            }
            tracing::warn!(
                "this kernel has no nftables for bridges: pods can send from each other's addresses"
            );
            try_with(PodFilter::SubnetsOnly)
        })
        .map_err(NetworkError::kernel(format!(
            "make the nftables {}",
            config.table
        )))
}
