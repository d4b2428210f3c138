//! Sets and maps, and what one pod puts into them. Their cost does not depend on how many pods there are.

use std::net::IpAddr;
use std::os::fd::AsFd;

use nix::errno::Errno;

use super::expression::{link_key, put_value};
use super::{Family, request};
use crate::address::octets;
use crate::attachment::Attachment;
use crate::config::TableName;
use crate::netlink::{Attributes, Message, NetlinkError, Reply, dump};
use crate::port::PortMapping;

const NFTA_SET_TABLE: u16 = 1;
const NFTA_SET_NAME: u16 = 2;
const NFTA_SET_FLAGS: u16 = 3;
const NFTA_SET_KEY_TYPE: u16 = 4;
const NFTA_SET_KEY_LEN: u16 = 5;
const NFTA_SET_DATA_TYPE: u16 = 6;
const NFTA_SET_DATA_LEN: u16 = 7;
const NFTA_SET_ID: u16 = 10;
const NFTA_SET_USERDATA: u16 = 13;
/// `NFT_SET_MAP`.
const IS_MAP: u32 = 8;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
/// Elements in one message: an attribute holds 64 KiB at most, and an element takes under 100 bytes.
const ELEMENTS_PER_MESSAGE: usize = 512;

/// The sets and maps of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Set {
    /// Map: protocol . host port → pod address . port, on all host addresses.
    Ports4,
    /// As `Ports4`, for IPv6.
    Ports6,
    /// Map: host address . protocol . host port → pod address . port.
    AddressedPorts4,
    /// As `AddressedPorts4`, for IPv6.
    AddressedPorts6,
    /// Set: names of the host's ends of pods' links.
    Links,
    /// Set: link . link-layer address . IPv4 address that a pod may send from.
    Sources4,
    /// As `Sources4`, for IPv6.
    Sources6,
}

/// The nft program's numbers of data types. The kernel only stores them, for listings; six bits each in a concatenation.
mod data_type {
    pub(super) const IPV4: u32 = 7;
    pub(super) const IPV6: u32 = 8;
    pub(super) const ETHER: u32 = 9;
    pub(super) const PROTOCOL: u32 = 12;
    pub(super) const SERVICE: u32 = 13;
    pub(super) const LINK: u32 = 41;
}

/// A field of a key or value: data type, and bytes as padded to registers.
type Fields = &'static [(u32, u32)];

impl Set {
    pub(crate) const ALL: [Self; 7] = [
        Self::Ports4,
        Self::Ports6,
        Self::AddressedPorts4,
        Self::AddressedPorts6,
        Self::Links,
        Self::Sources4,
        Self::Sources6,
    ];

    /// Its name in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ports4 => "ports4",
            Self::Ports6 => "ports6",
            Self::AddressedPorts4 => "addressed-ports4",
            Self::AddressedPorts6 => "addressed-ports6",
            Self::Links => "links",
            Self::Sources4 => "sources4",
            Self::Sources6 => "sources6",
        }
    }

    /// The family of the table it is in.
    pub(crate) fn family(self) -> Family {
        match self {
            Self::Links | Self::Sources4 | Self::Sources6 => Family::Bridge,
            _ => Family::Inet,
        }
    }

    fn key(self) -> Fields {
        use data_type::{ETHER, IPV4, IPV6, LINK, PROTOCOL, SERVICE};
        match self {
            Self::Ports4 | Self::Ports6 => &[(PROTOCOL, 4), (SERVICE, 4)],
            Self::AddressedPorts4 => &[(IPV4, 4), (PROTOCOL, 4), (SERVICE, 4)],
            Self::AddressedPorts6 => &[(IPV6, 16), (PROTOCOL, 4), (SERVICE, 4)],
            Self::Links => &[(LINK, 16)],
            Self::Sources4 => &[(LINK, 16), (ETHER, 8), (IPV4, 4)],
            Self::Sources6 => &[(LINK, 16), (ETHER, 8), (IPV6, 16)],
        }
    }

    fn value(self) -> Option<Fields> {
        use data_type::{IPV4, IPV6, SERVICE};
        match self {
            Self::Ports4 | Self::AddressedPorts4 => Some(&[(IPV4, 4), (SERVICE, 4)]),
            Self::Ports6 | Self::AddressedPorts6 => Some(&[(IPV6, 16), (SERVICE, 4)]),
            Self::Links | Self::Sources4 | Self::Sources6 => None,
        }
    }

    /// Makes the set.
    pub(crate) fn create(self, table: &TableName) -> Message {
        let what = format!("make the nftables set {}", self.name());
        let mut message = request(
            libc::NFT_MSG_NEWSET,
            libc::NLM_F_CREATE,
            self.family(),
            what,
        )
        .text(NFTA_SET_TABLE, table.as_str())
        .text(NFTA_SET_NAME, self.name());
        let mut put = |kind, number: u32| message.put(kind, &number.to_be_bytes());
        let bytes = |fields: Fields| fields.iter().map(|(_, bytes)| bytes).sum();
        let kinds = |fields: Fields| {
            fields
                .iter()
                .fold(0, |kinds, (kind, _)| (kinds << 6) | kind)
        };
        put(
            NFTA_SET_FLAGS,
            if self.value().is_some() { IS_MAP } else { 0 },
        );
        put(NFTA_SET_KEY_TYPE, kinds(self.key()));
        put(NFTA_SET_KEY_LEN, bytes(self.key()));
        if let Some(value) = self.value() {
            put(NFTA_SET_DATA_TYPE, kinds(value));
            put(NFTA_SET_DATA_LEN, bytes(value));
        }
        put(NFTA_SET_ID, self as u32 + 1);
        if self == Self::Links {
            // NFTNL_UDATA_SET_KEYBYTEORDER, host order: the nft program lists single names by it.
            message.put(NFTA_SET_USERDATA, &[0, 4, 1, 0, 0, 0]);
        }
        message
    }
}

/// One element of a set or map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) set: Set,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl Element {
    /// Makes a link one of those that are filtered.
    pub(crate) fn link(name: &str) -> Self {
        Self {
            set: Set::Links,
            key: link_key(name),
            value: Vec::new(),
        }
    }

    fn source(link: &str, mac: [u8; 6], address: IpAddr) -> Self {
        let mut key = link_key(link);
        key.extend_from_slice(&mac);
        key.extend_from_slice(&[0; 2]);
        key.extend_from_slice(&octets(address));
        Self {
            set: if address.is_ipv4() {
                Set::Sources4
            } else {
                Set::Sources6
            },
            key,
            value: Vec::new(),
        }
    }

    /// A host port that leads to `pod`; `None` when the mapping is for the other IP version.
    fn port(mapping: &PortMapping, pod: IpAddr) -> Option<Self> {
        let specific = mapping.host_ip.filter(|address| !address.is_unspecified());
        if mapping
            .host_ip
            .is_some_and(|address| address.is_ipv4() != pod.is_ipv4())
        {
            return None;
        }
        let set = match (specific.is_some(), pod.is_ipv4()) {
            (false, true) => Set::Ports4,
            (false, false) => Set::Ports6,
            (true, true) => Set::AddressedPorts4,
            (true, false) => Set::AddressedPorts6,
        };
        let mut key = specific.map(octets).unwrap_or_default();
        key.extend_from_slice(&[mapping.protocol.number(), 0, 0, 0]);
        key.extend_from_slice(&padded(mapping.host_port.get()));
        let mut value = octets(pod);
        value.extend_from_slice(&padded(mapping.container_port.get()));
        Some(Self { set, key, value })
    }
}

/// A port in network order, padded to a register.
fn padded(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

/// All elements of one pod.
pub(crate) fn pod_elements(attachment: &Attachment) -> Vec<Element> {
    let link = attachment.host_link.as_str();
    let mac = attachment.mac;
    let mut elements = vec![Element::link(link)];
    for net in &attachment.addresses {
        elements.push(Element::source(link, mac.0, net.address));
    }
    // The kernel of the pod makes itself a link-local address, which neighbour discovery uses.
    elements.push(Element::source(link, mac.0, mac.link_local().into()));
    let mut has_port = [false; 2];
    for net in &attachment.addresses {
        // With several subnets of one IP version, ports lead to the first address of it.
        if !std::mem::replace(&mut has_port[usize::from(net.address.is_ipv6())], true) {
            elements.extend(
                attachment
                    .ports
                    .iter()
                    .filter_map(|mapping| Element::port(mapping, net.address)),
            );
        }
    }
    elements
}

/// Adds elements; one that is there already with another value is refused.
pub(crate) fn add(table: &TableName, elements: &[Element]) -> Vec<Message> {
    messages(
        libc::NFT_MSG_NEWSETELEM,
        libc::NLM_F_CREATE,
        table,
        elements,
        "add to",
    )
}

/// Removes elements; one that is not there is refused.
pub(crate) fn remove(table: &TableName, elements: &[Element]) -> Vec<Message> {
    messages(libc::NFT_MSG_DELSETELEM, 0, table, elements, "remove from")
}

fn messages(
    kind: libc::c_int,
    flags: i32,
    table: &TableName,
    elements: &[Element],
    verb: &str,
) -> Vec<Message> {
    let mut messages = Vec::new();
    for set in Set::ALL {
        let of_set: Vec<&Element> = elements
            .iter()
            .filter(|element| element.set == set)
            .collect();
        for chunk in of_set.chunks(ELEMENTS_PER_MESSAGE) {
            let what = format!("{verb} the nftables set {}", set.name());
            let message = request(kind, flags, set.family(), what)
                .text(NFTA_SET_ELEM_LIST_TABLE, table.as_str())
                .text(NFTA_SET_ELEM_LIST_SET, set.name())
                .nest(NFTA_SET_ELEM_LIST_ELEMENTS, |list| {
                    for element in chunk {
                        put_element(list, element, kind);
                    }
                });
            messages.push(message);
        }
    }
    messages
}

fn put_element(list: &mut Message, element: &Element, kind: libc::c_int) {
    list.put_nested(NFTA_LIST_ELEM, |item| {
        put_value(item, NFTA_SET_ELEM_KEY, &element.key);
        if kind == libc::NFT_MSG_NEWSETELEM && !element.value.is_empty() {
            put_value(item, NFTA_SET_ELEM_DATA, &element.value);
        }
    });
}

/// How many elements a set has; none when there is no such set.
pub(crate) fn count(socket: impl AsFd, table: &TableName, set: Set) -> Result<usize, NetlinkError> {
    let what = format!("list the nftables set {}", set.name());
    let message = request(libc::NFT_MSG_GETSETELEM, 0, set.family(), what)
        .text(NFTA_SET_ELEM_LIST_TABLE, table.as_str())
        .text(NFTA_SET_ELEM_LIST_SET, set.name());
    match dump(socket, &message) {
        Ok(replies) => Ok(replies.iter().map(elements_in).sum()),
        Err(error) if error.is(Errno::ENOENT) => Ok(0),
        Err(error) => Err(error),
    }
}

fn elements_in(reply: &Reply) -> usize {
    let Reply::Object { payload, .. } = reply else {
        return 0;
    };
    // Past `struct nfgenmsg`.
    let attributes = Attributes::new(payload.get(4..).unwrap_or_default());
    attributes.nested(NFTA_SET_ELEM_LIST_ELEMENTS).count()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::address::MacAddress;
    use crate::nft::transaction;
    use crate::port::Protocol;
    use podwright_instructions::counted;
    use std::num::NonZeroU16;

    fn mapping(host_ip: Option<&str>) -> PortMapping {
        PortMapping {
            protocol: Protocol::Tcp,
            container_port: NonZeroU16::new(80).unwrap(),
            host_port: NonZeroU16::new(8080).unwrap(),
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
        }
    }

    #[test]
    fn instructions_of_a_pod_s_elements() {
        let attachment = Attachment {
            addresses: vec![
                "10.231.0.2/24".parse().unwrap(),
                "fd00::2/64".parse().unwrap(),
            ],
            host_link: "pw0123456789".parse().unwrap(),
            mac: MacAddress::of("10.231.0.2".parse().unwrap()),
            ports: vec![mapping(None), mapping(Some("192.0.2.1"))],
        };
        let table = "podwright".parse().unwrap();
        let messages = counted(|| {
            let requests = add(&table, &pod_elements(&attachment));
            let transaction = transaction(requests).into_iter();
            transaction
                .map(|message| message.encoded())
                .collect::<Vec<_>>()
        });
        assert!(messages.len() > 3, "{messages:?}");
    }

    #[test]
    fn ports_go_to_the_map_of_their_address() {
        let v4: IpAddr = "10.231.0.2".parse().unwrap();
        let v6: IpAddr = "fd00::2".parse().unwrap();
        for (host_ip, pod, set) in [
            (None, v4, Some(Set::Ports4)),
            (None, v6, Some(Set::Ports6)),
            (Some("0.0.0.0"), v4, Some(Set::Ports4)),
            (Some("0.0.0.0"), v6, None),
            (Some("::"), v4, None),
            (Some("::"), v6, Some(Set::Ports6)),
            (Some("192.0.2.1"), v4, Some(Set::AddressedPorts4)),
            (Some("192.0.2.1"), v6, None),
            (Some("2001:db8::1"), v6, Some(Set::AddressedPorts6)),
        ] {
            let element = Element::port(&mapping(host_ip), pod);
            assert_eq!(
                element.as_ref().map(|element| element.set),
                set,
                "{host_ip:?} {pod}"
            );
            if let Some(element) = element {
                let bytes = |fields: Fields| {
                    fields
                        .iter()
                        .map(|(_, bytes)| *bytes as usize)
                        .sum::<usize>()
                };
                assert_eq!(element.key.len(), bytes(element.set.key()));
                assert_eq!(element.value.len(), bytes(element.set.value().unwrap()));
            }
        }
    }

    #[test]
    fn bytes_of_a_port_element() {
        let element = Element::port(&mapping(None), "10.231.0.2".parse().unwrap()).unwrap();
        let [message] = &add(&"p".parse().unwrap(), &[element])[..] else {
            panic!("one message")
        };
        #[rustfmt::skip]
        assert_eq!(message.encoded(), [
            80, 0, 0, 0, 12, 10, 0x01, 0x04, 0, 0, 0, 0, 0, 0, 0, 0,
            1, 0, 0, 0,
            6, 0, 1, 0, b'p', 0, 0, 0,
            11, 0, 2, 0, b'p', b'o', b'r', b't', b's', b'4', 0, 0,
            40, 0, 3, 0x80, 36, 0, 1, 0x80,
            16, 0, 1, 0x80, 12, 0, 1, 0, 6, 0, 0, 0, 0x1f, 0x90, 0, 0,
            16, 0, 2, 0x80, 12, 0, 1, 0, 10, 231, 0, 2, 0, 80, 0, 0,
        ]);
    }

    #[test]
    fn many_elements_are_cut_into_messages() {
        let elements: Vec<Element> = (0..1300)
            .map(|number| Element::link(&format!("pw{number}")))
            .collect();
        let messages = add(&"p".parse().unwrap(), &elements);
        assert_eq!(messages.len(), 3);
        assert!(
            messages
                .iter()
                .all(|message| message.encoded().len() < usize::from(u16::MAX))
        );
    }
}
