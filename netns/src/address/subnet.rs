//! Subnets, addresses with their prefix length, and link-layer addresses made from them.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// A text is no usable subnet.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no pod subnet: {problem}")]
pub struct SubnetError {
    text: String,
    problem: &'static str,
}

/// An address with the length of its subnet's prefix, as in `10.1.2.3/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IpNet {
    /// The address.
    pub address: IpAddr,
    /// Bits of the prefix.
    pub prefix: u8,
}

impl fmt::Display for IpNet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for IpNet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let error = |problem| SubnetError {
            text: text.to_owned(),
            problem,
        };
        let (address, prefix) = text.split_once('/').ok_or_else(|| error("no /prefix"))?;
        let address: IpAddr = address
            .parse()
            .map_err(|_| error("the address does not parse"))?;
        let prefix: u8 = prefix
            .parse()
            .map_err(|_| error("the prefix length is no number"))?;
        if u32::from(prefix) > bits_of(address) {
            return Err(error("the prefix length is greater than the address"));
        }
        Ok(Self { address, prefix })
    }
}

/// A range of pod addresses in CIDR form. It has room for a gateway and one pod at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Subnet {
    network: IpAddr,
    prefix: u8,
}

impl Subnet {
    /// The subnet that an address was given out of.
    pub(crate) fn of(net: IpNet) -> Self {
        Self {
            network: mask(net.address, net.prefix),
            prefix: net.prefix,
        }
    }

    /// The network's address: all host bits zero.
    pub fn network(self) -> IpAddr {
        self.network
    }

    /// Bits of the prefix.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether the address lies in the subnet.
    pub fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.network.is_ipv4() && mask(address, self.prefix) == self.network
    }

    /// The first address, which the bridge has.
    pub fn gateway(self) -> IpNet {
        self.at(1)
    }

    /// The address `offset` after the network's.
    pub(crate) fn at(self, offset: u64) -> IpNet {
        let address = from_number(
            to_number(self.network) | u128::from(offset),
            self.network.is_ipv4(),
        );
        IpNet {
            address,
            prefix: self.prefix,
        }
    }

    /// The inverse of [`Subnet::at`]; `None` outside the subnet, or beyond 64 bits.
    pub(crate) fn offset(self, address: IpAddr) -> Option<u64> {
        if !self.contains(address) {
            return None;
        }
        u64::try_from(to_number(address) ^ to_number(self.network)).ok()
    }

    /// The offsets that pods can have, first and last. Left out are the network itself (in IPv6 the subnet-router
    /// anycast address, RFC 4291 §2.6.1), the gateway and IPv4's broadcast address; of huge IPv6 subnets only the
    /// first 2⁴⁸ addresses are used.
    pub(crate) fn pod_offsets(self) -> (u64, u64) {
        let host_bits = (bits_of(self.network) - u32::from(self.prefix)).min(48);
        let last = (1u64 << host_bits) - 1;
        (
            2,
            if self.network.is_ipv4() {
                last - 1
            } else {
                last
            },
        )
    }

    /// The netmask as bytes.
    pub(crate) fn mask_bytes(self) -> Vec<u8> {
        let ones = match self.network {
            IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::BROADCAST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(u128::MAX)),
        };
        octets(mask(ones, self.prefix))
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.network, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let IpNet { address, prefix } = text.parse()?;
        let error = |problem| SubnetError {
            text: text.to_owned(),
            problem,
        };
        if mask(address, prefix) != address {
            return Err(error(
                "host bits are set; write the network's first address",
            ));
        }
        if bits_of(address) - u32::from(prefix) < 2 {
            return Err(error(
                "too small for a gateway and pods; use /30 (IPv4) or /126 (IPv6) or shorter",
            ));
        }
        if address.is_multicast() || address.is_loopback() || address.is_unspecified() {
            return Err(error(
                "use private unicast addresses, as 10.0.0.0/8 or fd00::/8 have them",
            ));
        }
        Ok(Self {
            network: address,
            prefix,
        })
    }
}

fn bits_of(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn to_number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn from_number(number: u128, is_ipv4: bool) -> IpAddr {
    // An IPv4 number comes from 32 bits and stays within them.
    if is_ipv4 {
        IpAddr::V4((number as u32).into())
    } else {
        IpAddr::V6(number.into())
    }
}

fn mask(address: IpAddr, prefix: u8) -> IpAddr {
    let host_bits = bits_of(address) - u32::from(prefix);
    let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
    from_number(to_number(address) & mask, address.is_ipv4())
}

/// The address as the kernel's messages have it: 4 or 16 bytes in network order.
pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// A link-layer (Ethernet) address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// A locally administered address made from the last four bytes of an IP address: who gets an IP address again
    /// also gets its link-layer address again, so no neighbour's cache can be stale.
    pub(crate) fn of(address: IpAddr) -> Self {
        let bytes = octets(address);
        let [.., a, b, c, d] = bytes[..] else {
            unreachable!("an address has at least four bytes")
        };
        Self([0x0a, 0x58, a, b, c, d])
    }

    /// The IPv6 link-local address that the kernel makes from it (modified EUI-64, RFC 4291 appendix A).
    pub(crate) fn link_local(self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        Ipv6Addr::from([
            0xfe,
            0x80,
            0,
            0,
            0,
            0,
            0,
            0,
            a ^ 0x02,
            b,
            c,
            0xff,
            0xfe,
            d,
            e,
            f,
        ])
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(formatter, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn subnets_are_checked() {
        for (text, is_valid) in [
            ("10.231.0.0/24", true),
            ("10.231.0.0/30", true),
            ("10.231.0.0/31", false),
            ("10.231.0.1/24", false),
            ("10.231.0.0", false),
            ("10.231.0.0/33", false),
            ("10.231.0.0/-1", false),
            ("127.0.0.0/8", false),
            ("224.0.0.0/8", false),
            ("0.0.0.0/0", false),
            ("fd00:1::/64", true),
            ("fd00:1::/126", true),
            ("fd00:1::/127", false),
            ("fd00:1::/129", false),
            ("ff00::/8", false),
        ] {
            assert_eq!(text.parse::<Subnet>().is_ok(), is_valid, "{text}");
        }
    }

    #[test]
    fn gateway_is_first_and_pods_follow() {
        let subnet: Subnet = "10.231.4.0/24".parse().unwrap();
        assert_eq!(subnet.gateway().to_string(), "10.231.4.1/24");
        assert_eq!(subnet.pod_offsets(), (2, 254));
        assert_eq!(subnet.mask_bytes(), [255, 255, 255, 0]);
        let subnet: Subnet = "fd42::/64".parse().unwrap();
        assert_eq!(subnet.gateway().to_string(), "fd42::1/64");
        assert_eq!(subnet.pod_offsets(), (2, (1 << 48) - 1));
    }

    #[test]
    fn link_addresses_come_from_the_address() {
        let mac = MacAddress::of("10.231.4.2".parse().unwrap());
        assert_eq!(mac.to_string(), "0a:58:0a:e7:04:02");
        assert_eq!(mac.link_local().to_string(), "fe80::858:aff:fee7:402");
    }

    proptest! {
        #[test]
        fn offsets_and_addresses_are_inverse(network in any::<u32>(), prefix in 8u8..=30, offset in any::<u64>()) {
            let network = mask(IpAddr::V4(network.into()), prefix);
            let subnet = Subnet { network, prefix };
            let offset = offset % (1 << (32 - prefix));
            let address = subnet.at(offset).address;
            prop_assert!(subnet.contains(address));
            prop_assert_eq!(subnet.offset(address), Some(offset));
        }

        #[test]
        fn any_text_is_parsed_without_panic(text in "[0-9a-f:./]{0,24}") {
            let _ = text.parse::<Subnet>();
        }
    }
}
