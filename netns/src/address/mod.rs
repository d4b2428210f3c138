//! Pod addresses: subnets, and which address is given next.

mod pool;
mod subnet;

pub(crate) use pool::Pool;
pub(crate) use subnet::octets;
pub use subnet::{IpNet, MacAddress, Subnet, SubnetError};
