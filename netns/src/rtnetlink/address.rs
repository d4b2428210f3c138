//! Addresses: `struct ifaddrmsg` and `IFA_*` (rtnetlink(7)).

use std::net::IpAddr;

use crate::address::{IpNet, octets};
use crate::netlink::Message;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
/// `IFA_F_NODAD`: usable at once. The allocator, not duplicate detection, makes addresses unique.
const NO_DETECTION: u8 = 0x02;

/// Gives an address to the link with this index; one that it has already stays as it is.
pub(crate) fn add(link: u32, net: IpNet) -> Message {
    let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
    let message = message(libc::RTM_NEWADDR, flags, link, net, "add");
    match net.address {
        IpAddr::V4(address) => {
            let hosts = u32::MAX.checked_shr(u32::from(net.prefix)).unwrap_or(0);
            message.attribute(IFA_BROADCAST, &(address.to_bits() | hosts).to_be_bytes())
        }
        IpAddr::V6(_) => message,
    }
}

/// Takes an address from the link with this index.
pub(crate) fn remove(link: u32, net: IpNet) -> Message {
    message(libc::RTM_DELADDR, 0, link, net, "remove")
}

fn message(kind: u16, flags: i32, link: u32, net: IpNet, verb: &str) -> Message {
    let (family, detection) = match net.address {
        IpAddr::V4(_) => (libc::AF_INET, 0),
        IpAddr::V6(_) => (libc::AF_INET6, NO_DETECTION),
    };
    let mut header = [
        family as u8,
        net.prefix,
        detection,
        libc::RT_SCOPE_UNIVERSE,
        0,
        0,
        0,
        0,
    ];
    header[4..].copy_from_slice(&link.to_ne_bytes());
    let what = format!("{verb} the address {net}");
    let address = octets(net.address);
    Message::new(kind, flags, &header, what)
        .attribute(IFA_LOCAL, &address)
        .attribute(IFA_ADDRESS, &address)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_an_ipv4_address() {
        #[rustfmt::skip]
        assert_eq!(add(3, "10.231.0.2/24".parse().unwrap()).encoded(), [
            48, 0, 0, 0, 20, 0, 0x01, 0x05, 0, 0, 0, 0, 0, 0, 0, 0,
            2, 24, 0, 0, 3, 0, 0, 0,
            8, 0, 2, 0, 10, 231, 0, 2,
            8, 0, 1, 0, 10, 231, 0, 2,
            8, 0, 4, 0, 10, 231, 0, 255,
        ]);
    }

    #[test]
    fn ipv6_addresses_are_usable_at_once() {
        let bytes = add(3, "fd00::2/64".parse().unwrap()).encoded();
        assert_eq!(bytes[16..24], [10, 64, NO_DETECTION, 0, 3, 0, 0, 0]);
        assert_eq!(bytes.len(), 24 + 20 + 20);
    }
}
