//! What rules ask of a packet: pieces of a rule, one or more expressions each.

use std::net::{IpAddr, Ipv6Addr};

use super::expression::{Expression, Field, IpVersion, Is, Meta, Register};
use crate::address::{Subnet, octets};

use Expression::{Compare, Mask, Payload};

/// A rule's instructions, in order.
pub(super) type Rule = Vec<Expression>;

/// Loads a key of several fields into registers in a row.
pub(super) fn load_key(meta: Option<Meta>, fields: &[Field]) -> Rule {
    let mut next = 0;
    let mut expressions = Vec::new();
    if let Some(meta) = meta {
        expressions.push(Expression::Meta(meta, Register(next)));
        next += 4; // a link's name has 16 bytes
    }
    for field in fields {
        expressions.push(Payload(*field, Register(next)));
        next += field.registers();
    }
    expressions
}

pub(super) fn ip_version(version: IpVersion) -> [Expression; 2] {
    [
        Expression::Meta(Meta::NetworkProtocol, Register::FIRST),
        Compare(Register::FIRST, Is::Equal, vec![version.number()]),
    ]
}

pub(super) fn ether_type(kind: libc::c_int) -> Rule {
    // EtherTypes have sixteen bits.
    let kind = (kind as u16).to_be_bytes().to_vec();
    vec![
        Expression::Meta(Meta::Protocol, Register::FIRST),
        Compare(Register::FIRST, Is::Equal, kind),
    ]
}

pub(super) fn is_transport(protocol: libc::c_int) -> [Expression; 2] {
    [
        Expression::Meta(Meta::TransportProtocol, Register::FIRST),
        // Protocol numbers have eight bits.
        Compare(Register::FIRST, Is::Equal, vec![protocol as u8]),
    ]
}

pub(super) fn is_icmpv6(kind: u8) -> Rule {
    let mut expressions = is_transport(libc::IPPROTO_ICMPV6).to_vec();
    expressions.push(Payload(Field::ICMPV6_TYPE, Register::FIRST));
    expressions.push(Compare(Register::FIRST, Is::Equal, vec![kind]));
    expressions
}

pub(super) fn is_loopback(field: Field) -> [Expression; 3] {
    [
        Payload(field, Register::FIRST),
        Mask(Register::FIRST, vec![255, 0, 0, 0]),
        Compare(Register::FIRST, Is::Equal, vec![127, 0, 0, 0]),
    ]
}

pub(super) fn is_address(field: Field, address: Ipv6Addr) -> Rule {
    vec![
        Payload(field, Register::FIRST),
        Compare(Register::FIRST, Is::Equal, address.octets().to_vec()),
    ]
}

/// Which address of a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Source,
    Destination,
}

pub(super) fn from_subnet(subnet: Subnet) -> Rule {
    matches_subnet(subnet, Side::Source)
}

pub(super) fn matches_subnet(subnet: Subnet, side: Side) -> Rule {
    let (version, field) = match (subnet.network(), side) {
        (IpAddr::V4(_), Side::Source) => (IpVersion::V4, Field::IPV4_SOURCE),
        (IpAddr::V4(_), Side::Destination) => (IpVersion::V4, Field::IPV4_DESTINATION),
        (IpAddr::V6(_), Side::Source) => (IpVersion::V6, Field::IPV6_SOURCE),
        (IpAddr::V6(_), Side::Destination) => (IpVersion::V6, Field::IPV6_DESTINATION),
    };
    let mut expressions = ip_version(version).to_vec();
    expressions.extend([
        Payload(field, Register::FIRST),
        Mask(Register::FIRST, subnet.mask_bytes()),
        Compare(Register::FIRST, Is::Equal, octets(subnet.network())),
    ]);
    expressions
}
