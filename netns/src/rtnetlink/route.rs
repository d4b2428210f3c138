//! Routes: `struct rtmsg` and `RTA_*` (rtnetlink(7)).

use std::net::{IpAddr, Ipv6Addr};

use crate::address::octets;
use crate::netlink::{Message, Reply};

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;

/// Adds the default route by `gateway`, out of the link with this index.
pub(crate) fn default_by(gateway: IpAddr, link: u32) -> Message {
    let family = match gateway {
        IpAddr::V4(_) => libc::AF_INET,
        IpAddr::V6(_) => libc::AF_INET6,
    };
    // Family, lengths of destination and source, TOS, table, protocol, scope, type, flags.
    let (table, origin, scope, kind) = (
        libc::RT_TABLE_MAIN,
        libc::RTPROT_BOOT,
        libc::RT_SCOPE_UNIVERSE,
        libc::RTN_UNICAST,
    );
    let header = [
        family as u8,
        0,
        0,
        0,
        table,
        origin,
        scope,
        kind,
        0,
        0,
        0,
        0,
    ];
    let what = format!("add the default route by {gateway}");
    Message::new(
        libc::RTM_NEWROUTE,
        libc::NLM_F_CREATE | libc::NLM_F_REPLACE,
        &header,
        what,
    )
    .attribute(RTA_GATEWAY, &octets(gateway))
    .attribute(RTA_OIF, &link.to_ne_bytes())
}

/// Asks how the namespace would reach one IPv6 address.
pub(crate) fn to_ipv6(address: Ipv6Addr) -> Message {
    let header = [libc::AF_INET6 as u8, 128, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let what = format!("look up the route to {address}");
    Message::new(libc::RTM_GETROUTE, 0, &header, what).attribute(RTA_DST, &address.octets())
}

/// Whether the answer is that the address is the namespace's own.
pub(crate) fn is_local(reply: &Reply) -> bool {
    let Reply::Object {
        kind: libc::RTM_NEWROUTE,
        payload,
        ..
    } = reply
    else {
        return false;
    };
    payload.get(7) == Some(&libc::RTN_LOCAL)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_a_default_route() {
        #[rustfmt::skip]
        assert_eq!(default_by("10.231.0.1".parse().unwrap(), 3).encoded(), [
            44, 0, 0, 0, 24, 0, 0x01, 0x05, 0, 0, 0, 0, 0, 0, 0, 0,
            2, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0,
            8, 0, 5, 0, 10, 231, 0, 1,
            8, 0, 4, 0, 3, 0, 0, 0,
        ]);
    }
}
