//! What one pod has of the network.

use crate::address::{IpNet, MacAddress};
use crate::config::LinkName;
use crate::port::PortMapping;

/// One pod's place in the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// One address of each of the network's subnets, in their order; the first is the pod's primary one.
    pub addresses: Vec<IpNet>,
    /// The host's end of the pod's link; the pod's end is `eth0`.
    pub host_link: LinkName,
    /// Link-layer address of the pod's `eth0`.
    pub mac: MacAddress,
    /// The host ports that lead to the pod.
    pub ports: Vec<PortMapping>,
}

impl Attachment {
    /// Whether the pod has an IPv6 address.
    pub fn has_ipv6(&self) -> bool {
        self.addresses.iter().any(|net| net.address.is_ipv6())
    }
}
