//! What a pod network is to be: names, subnets, policies.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::address::Subnet;

/// One daemon's pod network.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// The bridge that joins the pods; it is made when absent.
    pub bridge: LinkName,
    /// Pods get one address of each, in this order. The first address of each is the gateway, on the bridge.
    pub subnets: Vec<Subnet>,
    /// MTU of the bridge and the pods' links, in bytes; the kernel's default (1500) when absent.
    pub mtu: Option<u32>,
    /// Whose address pods show to the outside.
    pub masquerade: Masquerade,
    /// Directory of the address records. It must outlive the pods, not the machine.
    pub state_dir: PathBuf,
    /// Name of the nftables tables (family `inet` and `bridge`).
    pub table: TableName,
}

/// What source address a packet from a pod carries when it leaves the pod network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Masquerade {
    /// The pod's own: somebody else routes the pod subnets, or translates.
    Off,
    /// The host's, except towards these subnets (other nodes' pods, say). The pod subnets need not be named.
    OutsideOf(Vec<Subnet>),
}

/// A name was refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} name {name:?} is not valid: {rule}")]
pub struct NameError {
    kind: &'static str,
    name: String,
    rule: &'static str,
}

/// A network link's name: 1 to 15 bytes, as the kernel's `dev_valid_name` wants them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LinkName(String);

impl LinkName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LinkName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        let is_plain =
            |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'%' | b'"' | b'*');
        if (1..=15).contains(&name.len())
            && name.bytes().all(is_plain)
            && !matches!(name, "." | ".." | "lo")
        {
            return Ok(Self(name.to_owned()));
        }
        Err(NameError {
            kind: "link",
            name: name.to_owned(),
            rule: "use 1 to 15 printable ASCII characters without / : % \" *, and not \"lo\"",
        })
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// An nftables table's name, in the form that the nft program can list too.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TableName(String);

impl TableName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TableName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if name.len() <= 64
            && name.starts_with(|first: char| first.is_ascii_alphabetic())
            && name.bytes().all(is_plain)
        {
            return Ok(Self(name.to_owned()));
        }
        Err(NameError {
            kind: "nftables table",
            name: name.to_owned(),
            rule: "use up to 64 ASCII letters, digits, _ or -, beginning with a letter",
        })
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_names_follow_the_kernel() {
        for (name, is_valid) in [
            ("pw0", true),
            ("podwright0.12-a_", false), // 16 bytes
            ("podwright0.12-a", true),
            ("", false),
            (".", false),
            ("..", false),
            ("lo", false),
            ("a/b", false),
            ("a b", false),
            ("a:1", false),
            ("eth%d", false),
            ("é", false),
        ] {
            assert_eq!(name.parse::<LinkName>().is_ok(), is_valid, "{name:?}");
        }
    }

    #[test]
    fn table_names_can_be_listed_by_nft() {
        for (name, is_valid) in [
            ("podwright", true),
            ("p-1_a", true),
            ("", false),
            ("1a", false),
            ("a b", false),
        ] {
            assert_eq!(name.parse::<TableName>().is_ok(), is_valid, "{name:?}");
        }
    }
}
