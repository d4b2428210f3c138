//! Podwright's built-in pod network: a bridge, one veth pair per pod, IPv4 and IPv6 addresses, default routes,
//! masquerade and host ports.
//!
//! All of it is done by netlink messages from the calling process: no program is run, nothing forks, and no thread
//! changes its network namespace but the one that makes a pod's and writes its settings ([`Namespace`]). What happens inside a pod's namespace goes
//! through a `NETLINK_ROUTE` socket that was opened there. Calls block for microseconds up to about a millisecond; the caller chooses the thread. All of them must be
//! made in the host's network namespace.

mod address;
mod attachment;
mod config;
mod error;
mod namespace;
mod netlink;
mod network;
mod nft;
mod port;
mod procfs;
mod record;
mod rtnetlink;
mod subnets;
mod sysctl;

pub use address::{IpNet, MacAddress, Subnet, SubnetError};
pub use attachment::Attachment;
pub use config::{LinkName, Masquerade, NameError, NetworkConfig, TableName};
pub use error::NetworkError;
pub use namespace::Namespace;
pub use netlink::NetlinkError;
pub use network::{Installed, Network};
pub use port::{PortMapping, Protocol};
pub use rtnetlink::link::Counters;
