//! Opening, repairing and removing the network.

use std::collections::VecDeque;
use std::sync::Mutex;

use nix::errno::Errno;

use super::{Network, State, ruleset};
use crate::address::{MacAddress, Pool};
use crate::attachment::Attachment;
use crate::config::NetworkConfig;
use crate::error::NetworkError;
use crate::netlink::{NetlinkError, Protocol, Socket, exchange};
use crate::nft::{self, Element, PodFilter};
use crate::port::PortRegistry;
use crate::record::{Records, cursors};
use crate::rtnetlink::{address, link};
use crate::sysctl;

/// What the names of the host's ends of pods' links begin with.
pub(super) const LINK_PREFIX: &str = "pw";

impl Network {
    /// Makes the network, or finds and repairs what an earlier daemon left: bridge, gateway addresses, kernel
    /// settings, nftables. Pods that are attached stay connected, and their ports open, all the while.
    ///
    /// It must be followed by [`Network::recover`] before the first [`Network::attach`].
    pub fn open(config: NetworkConfig) -> Result<Self, NetworkError> {
        check(&config)?;
        let records = Records::open(&config.state_dir)?;
        let attachments = records.load()?;
        let route =
            Socket::open(Protocol::Route).map_err(NetworkError::kernel("open the pod network"))?;
        let netfilter = Socket::open(Protocol::Netfilter)
            .map_err(NetworkError::kernel("open the pod network"))?;
        let bridge = set_up_bridge(&config, &route)?;

        let mut elements: Vec<Element> = attachments.values().flat_map(nft::pod_elements).collect();
        elements.extend(
            strays(&route, bridge, &attachments)?
                .iter()
                .map(|name| Element::link(name)),
        );
        let filter = install(&config, &netfilter, &elements)?;

        let mut pools: Vec<Pool> = cursors(&records, &config.subnets)
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
            route: Mutex::new(route),
            netfilter: Mutex::new(netfilter),
            state: Mutex::new(state),
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
        self.nft_transaction(self.ruleset().remove(self.filter))
            .map_err(NetworkError::kernel("remove the pod network's nftables"))?;
        self.delete_link(&self.config.bridge)?;
        self.records.destroy(&self.config.state_dir)
    }

    /// Makes the tables anew from what is attached: somebody flushed them.
    pub(super) fn reinstall(&self) -> Result<(), NetworkError> {
        let elements: Vec<Element> = {
            let state = self.state();
            let of_pods = state.attachments.values().flat_map(nft::pod_elements);
            of_pods
                .chain(
                    state
                        .lingering
                        .iter()
                        .map(|name| Element::link(name.as_str())),
                )
                .collect()
        };
        self.nft_transaction(self.ruleset().install(self.filter, &elements))
            .map_err(NetworkError::kernel("make the pod network's nftables anew"))
    }
}

fn check(config: &NetworkConfig) -> Result<(), NetworkError> {
    let problem = |problem: String| Err(NetworkError::Config { problem });
    if config.subnets.is_empty() {
        return problem("no pod subnet; write one IPv4 or IPv6 subnet, or one of each".to_owned());
    }
    for (index, one) in config.subnets.iter().enumerate() {
        for other in &config.subnets[..index] {
            if one.contains(other.network()) || other.contains(one.network()) {
                return problem(format!(
                    "the pod subnets {other} and {one} overlap; write each address once"
                ));
            }
        }
    }
    // The least that IPv4 (RFC 791) and IPv6 (RFC 8200 §5) work with; the most that veth takes.
    let least = if config
        .subnets
        .iter()
        .any(|subnet| subnet.network().is_ipv6())
    {
        1280
    } else {
        576
    };
    if let Some(mtu) = config.mtu.filter(|mtu| !(least..=65535).contains(mtu)) {
        return problem(format!("MTU {mtu} is not between {least} and 65535"));
    }
    Ok(())
}

/// Makes or repairs the bridge, and returns its index.
fn set_up_bridge(config: &NetworkConfig, route: &Socket) -> Result<u32, NetworkError> {
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

    let has_ipv6 = config
        .subnets
        .iter()
        .any(|subnet| subnet.network().is_ipv6());
    if config
        .subnets
        .iter()
        .any(|subnet| subnet.network().is_ipv4())
    {
        sysctl::forward_ipv4()?;
    }
    if has_ipv6 {
        sysctl::forward_ipv6()?;
    }
    sysctl::configure_bridge(name, has_ipv6)?;
    let gateways: Vec<_> = config
        .subnets
        .iter()
        .map(|subnet| address::add(index, subnet.gateway()))
        .collect();
    exchange(route, &gateways).map_err(action())?;
    Ok(index)
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
    netfilter: &Socket,
    elements: &[Element],
) -> Result<PodFilter, NetworkError> {
    let try_with = |filter| {
        exchange(
            netfilter,
            &nft::transaction(ruleset(config).install(filter, elements)),
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
