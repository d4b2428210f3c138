//! Links: `struct ifinfomsg` and `IFLA_*` (`include/uapi/linux/if_link.h`).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;

use crate::address::MacAddress;
use crate::config::LinkName;
use crate::netlink::{
    Attributes, Message, NetlinkError, Reply, dump, exchange, read_u32, read_u64,
};

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_STATS64: u16 = 23;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BR_FORWARD_DELAY: u16 = 1;
const IFLA_BR_STP_STATE: u16 = 5;
const IFLA_BR_MCAST_SNOOPING: u16 = 23;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
/// `IN6_ADDR_GEN_MODE_NONE`.
const NO_GENERATED_ADDRESSES: u8 = 1;
const VETH_INFO_PEER: u16 = 1;
/// `IF_OPER_UP` (RFC 2863).
const OPERATIONAL: u8 = 6;
/// `RTEXT_FILTER_SKIP_STATS`: leave the counters out of the answer.
const SKIP_STATS: u32 = 1 << 3;
/// Bytes of `struct ifinfomsg`.
const HEADER: usize = 16;
/// The loopback link has this index in every network namespace.
const LOOPBACK: u32 = 1;

/// What the kernel knows of; one that has no IPv6 takes no settings of it (EAFNOSUPPORT).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocols {
    Ipv4,
    Both,
}

/// Whether a message sets a link up or leaves its state alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Up,
    Unchanged,
}

/// `struct ifinfomsg`: family, type, index, flags, mask of changed flags.
fn header(index: u32, state: State) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    if state == State::Up {
        let up = (libc::IFF_UP as u32).to_ne_bytes();
        header[8..12].copy_from_slice(&up);
        header[12..16].copy_from_slice(&up);
    }
    header
}

/// The pod's two link ends, to be made by one message.
#[derive(Debug)]
pub(crate) struct Veth<'a> {
    /// The host's end.
    pub(crate) host: &'a LinkName,
    /// Index of the bridge that the host's end joins.
    pub(crate) bridge: u32,
    /// The pod's namespace, where the other end appears as `eth0`.
    pub(crate) namespace: BorrowedFd<'a>,
    /// Link-layer address of `eth0`.
    pub(crate) mac: MacAddress,
    /// MTU of both ends.
    pub(crate) mtu: Option<u32>,
}

impl Veth<'_> {
    /// Makes both ends, the pod's in its namespace; the host's is set up and joins the bridge. The pod's cannot be
    /// set up by this message: the kernel refuses that (ENOTCONN) before the ends know each other.
    pub(crate) fn create(&self) -> Message {
        let what = format!("make the veth pair {} / eth0", self.host);
        let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        let mut message = Message::new(libc::RTM_NEWLINK, flags, &header(0, State::Up), what)
            .text(IFLA_IFNAME, self.host.as_str());
        if let Some(mtu) = self.mtu {
            message.put(IFLA_MTU, &mtu.to_ne_bytes());
        }
        message.put(IFLA_MASTER, &self.bridge.to_ne_bytes());
        put_one_queue(&mut message);
        message.nest(IFLA_LINKINFO, |info| {
            info.put_text(IFLA_INFO_KIND, "veth");
            info.put_nested(IFLA_INFO_DATA, |data| {
                data.put_nested(VETH_INFO_PEER, |peer| {
                    peer.put_raw(&header(0, State::Unchanged));
                    peer.put_text(IFLA_IFNAME, "eth0");
                    peer.put(IFLA_ADDRESS, &self.mac.0);
                    put_one_queue(peer);
                    peer.put(IFLA_NET_NS_FD, &self.namespace.as_raw_fd().to_ne_bytes());
                    if let Some(mtu) = self.mtu {
                        peer.put(IFLA_MTU, &mtu.to_ne_bytes());
                    }
                });
            });
        })
    }

    /// Sets the host's end so that the pod reaches itself through the bridge (hairpin), and gives it no IPv6
    /// address of its own. The kernel takes neither at creation.
    pub(crate) fn configure_port(&self, protocols: Protocols) -> Message {
        let what = format!("set hairpin mode of {}", self.host);
        let message = Message::new(libc::RTM_NEWLINK, 0, &header(0, State::Unchanged), what)
            .text(IFLA_IFNAME, self.host.as_str())
            .nest(IFLA_LINKINFO, |info| {
                info.put_text(IFLA_INFO_SLAVE_KIND, "bridge");
                info.put_nested(IFLA_INFO_SLAVE_DATA, |data| {
                    data.put(IFLA_BRPORT_MODE, &[1])
                });
            });
        match protocols {
            Protocols::Both => message.nest(IFLA_AF_SPEC, put_no_generated_addresses),
            Protocols::Ipv4 => message,
        }
    }
}

/// veth makes a queue for each possible processor, with two sysfs objects each, and uses but the first unless XDP is on.
fn put_one_queue(message: &mut Message) {
    message.put(IFLA_NUM_TX_QUEUES, &1u32.to_ne_bytes());
    message.put(IFLA_NUM_RX_QUEUES, &1u32.to_ne_bytes());
}

fn put_no_generated_addresses(families: &mut Message) {
    // AF_INET6 is 10.
    families.put_nested(libc::AF_INET6 as u16, |inet6| {
        inet6.put(IFLA_INET6_ADDR_GEN_MODE, &[NO_GENERATED_ADDRESSES])
    });
}

/// Makes a bridge, or sets an existing one: no spanning tree, no delay before a port forwards, no multicast snooping
/// (without a querier it would lose neighbour discovery), a fixed link-layer address (else it follows the ports').
pub(crate) fn bridge(name: &LinkName, mac: MacAddress, mtu: Option<u32>) -> Message {
    let what = format!("make the bridge {name}");
    let mut message = Message::new(
        libc::RTM_NEWLINK,
        libc::NLM_F_CREATE,
        &header(0, State::Up),
        what,
    )
    .text(IFLA_IFNAME, name.as_str())
    .attribute(IFLA_ADDRESS, &mac.0);
    if let Some(mtu) = mtu {
        message.put(IFLA_MTU, &mtu.to_ne_bytes());
    }
    message.nest(IFLA_LINKINFO, |info| {
        info.put_text(IFLA_INFO_KIND, "bridge");
        info.put_nested(IFLA_INFO_DATA, |data| {
            data.put(IFLA_BR_FORWARD_DELAY, &0u32.to_ne_bytes());
            data.put(IFLA_BR_STP_STATE, &0u32.to_ne_bytes());
            data.put(IFLA_BR_MCAST_SNOOPING, &[0]);
        });
    })
}

/// Sets the loopback link up.
pub(crate) fn loopback_up() -> Message {
    Message::new(
        libc::RTM_NEWLINK,
        0,
        &header(LOOPBACK, State::Up),
        "set lo up in the pod",
    )
}

/// Sets the link with this index up.
pub(crate) fn up(index: u32) -> Message {
    Message::new(
        libc::RTM_NEWLINK,
        0,
        &header(index, State::Up),
        "set eth0 up in the pod",
    )
}

/// Keeps the kernel from giving this link an IPv6 address by itself.
pub(crate) fn generate_no_addresses(index: u32) -> Message {
    Message::new(
        libc::RTM_NEWLINK,
        0,
        &header(index, State::Unchanged),
        "leave eth0 without a generated address in the pod",
    )
    .nest(IFLA_AF_SPEC, put_no_generated_addresses)
}

/// Deletes a link.
pub(crate) fn delete(name: &LinkName) -> Message {
    let what = format!("delete the link {name}");
    Message::new(libc::RTM_DELLINK, 0, &header(0, State::Unchanged), what)
        .text(IFLA_IFNAME, name.as_str())
}

/// Asks for a link without its counters.
pub(crate) fn get(name: &str) -> Message {
    let what = format!("look up the link {name}");
    Message::new(libc::RTM_GETLINK, 0, &header(0, State::Unchanged), what)
        .text(IFLA_IFNAME, name)
        .attribute(IFLA_EXT_MASK, &SKIP_STATS.to_ne_bytes())
}

/// What a link is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// `bridge`, `veth` …; empty for plain devices.
    pub(crate) kind: String,
    /// Index of the bridge it belongs to.
    pub(crate) master: Option<u32>,
    /// Whether the kernel has seen that it has a carrier; before that it sends nothing.
    pub(crate) is_operational: bool,
}

impl Link {
    /// Reads an `RTM_NEWLINK` answer.
    pub(crate) fn read(reply: &Reply) -> Option<Self> {
        let Reply::Object {
            kind: libc::RTM_NEWLINK,
            payload,
            ..
        } = reply
        else {
            return None;
        };
        let index = read_u32(payload.get(4..)?)?;
        let attributes = Attributes::new(payload.get(HEADER..)?);
        Some(Self {
            index,
            name: attributes.text(IFLA_IFNAME)?.to_owned(),
            kind: attributes
                .nested(IFLA_LINKINFO)
                .text(IFLA_INFO_KIND)
                .unwrap_or_default()
                .to_owned(),
            master: attributes.find(IFLA_MASTER).and_then(read_u32),
            is_operational: attributes.find(IFLA_OPERSTATE) == Some(&[OPERATIONAL]),
        })
    }
}

/// The link of this name, if there is one.
pub(crate) fn find(socket: impl AsFd, name: &LinkName) -> Result<Option<Link>, NetlinkError> {
    match exchange(socket, &[get(name.as_str())]) {
        Ok(replies) => Ok(replies.iter().find_map(Link::read)),
        Err(error) if error.is(Errno::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether there is a link of this name in the calling thread's namespace. Unlike rtnetlink, the ioctl (netdevice(7))
/// does not wait for the kernel's one lock of all links, which the deletion of namespaces holds for milliseconds.
pub(crate) fn exists(name: &LinkName) -> Result<bool, Errno> {
    match if_nametoindex(name.as_str()) {
        Ok(_) => Ok(true),
        Err(Errno::ENODEV | Errno::ENXIO) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// All links that belong to the bridge with this index.
pub(crate) fn ports(socket: impl AsFd, bridge: u32) -> Result<Vec<Link>, NetlinkError> {
    let request = Message::new(
        libc::RTM_GETLINK,
        0,
        &header(0, State::Unchanged),
        "list the bridge's links",
    )
    .attribute(IFLA_MASTER, &bridge.to_ne_bytes())
    .attribute(IFLA_EXT_MASK, &SKIP_STATS.to_ne_bytes());
    let links = dump(socket, &request)?;
    Ok(links
        .iter()
        .filter_map(Link::read)
        .filter(|link| link.master == Some(bridge))
        .collect())
}

/// A link's counters since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Packets that could not be received.
    pub rx_errors: u64,
    /// Packets that were received and dropped.
    pub rx_dropped: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
    /// Packets that were dropped instead of sent.
    pub tx_dropped: u64,
}

impl Counters {
    /// The counters of the other end of a veth pair.
    pub(crate) fn mirrored(self) -> Self {
        Self {
            rx_bytes: self.tx_bytes,
            rx_packets: self.tx_packets,
            rx_errors: self.tx_errors,
            rx_dropped: self.tx_dropped,
            tx_bytes: self.rx_bytes,
            tx_packets: self.rx_packets,
            tx_errors: self.rx_errors,
            tx_dropped: self.rx_dropped,
        }
    }

    /// Reads `struct rtnl_link_stats64` of an `RTM_NEWLINK` answer.
    fn read(reply: &Reply) -> Option<Self> {
        let Reply::Object {
            kind: libc::RTM_NEWLINK,
            payload,
            ..
        } = reply
        else {
            return None;
        };
        let stats = Attributes::new(payload.get(HEADER..)?).find(IFLA_STATS64)?;
        let field = |index: usize| read_u64(stats.get(index * 8..)?);
        Some(Self {
            rx_packets: field(0)?,
            tx_packets: field(1)?,
            rx_bytes: field(2)?,
            tx_bytes: field(3)?,
            rx_errors: field(4)?,
            tx_errors: field(5)?,
            rx_dropped: field(6)?,
            tx_dropped: field(7)?,
        })
    }
}

/// The counters of the link of this name.
pub(crate) fn counters(socket: impl AsFd, name: &LinkName) -> Result<Counters, NetlinkError> {
    let what = format!("read the counters of {name}");
    let request = Message::new(
        libc::RTM_GETLINK,
        0,
        &header(0, State::Unchanged),
        what.clone(),
    )
    .text(IFLA_IFNAME, name.as_str());
    let replies = exchange(socket, &[request])?;
    replies
        .iter()
        .find_map(Counters::read)
        .ok_or(NetlinkError::Answer {
            what,
            problem: "no counters",
        })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use podwright_instructions::counted;
    use proptest::prelude::*;

    fn veth<'a>(host: &'a LinkName, namespace: BorrowedFd<'a>) -> Veth<'a> {
        Veth {
            host,
            bridge: 7,
            namespace,
            mac: MacAddress([1, 2, 3, 4, 5, 6]),
            mtu: None,
        }
    }

    #[test]
    fn instructions_of_a_veth() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let host = "pw0123456789".parse().unwrap();
        let veth = veth(&host, null.as_fd());
        let (link, port) = counted(|| {
            (
                veth.create().encoded(),
                veth.configure_port(Protocols::Both).encoded(),
            )
        });
        assert!(link.len() > port.len());
    }

    #[test]
    fn veth_message_bytes() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let host = "pw1".parse().unwrap();
        let veth = veth(&host, null.as_fd());
        let [d0, d1, d2, d3] = null.as_raw_fd().to_ne_bytes();
        #[rustfmt::skip]
        assert_eq!(veth.create().encoded(), [
            152, 0, 0, 0, 16, 0, 0x01, 0x06, 0, 0, 0, 0, 0, 0, 0, 0, // RTM_NEWLINK, REQUEST|EXCL|CREATE
            0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0,          // up
            8, 0, 3, 0, b'p', b'w', b'1', 0,
            8, 0, 10, 0, 7, 0, 0, 0,                                 // master
            8, 0, 31, 0, 1, 0, 0, 0, 8, 0, 32, 0, 1, 0, 0, 0,        // one queue
            88, 0, 18, 0x80,                                         // linkinfo
            9, 0, 1, 0, b'v', b'e', b't', b'h', 0, 0, 0, 0,
            72, 0, 2, 0x80,                                          // data
            68, 0, 1, 0x80,                                          // peer
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            9, 0, 3, 0, b'e', b't', b'h', b'0', 0, 0, 0, 0,
            10, 0, 1, 0, 1, 2, 3, 4, 5, 6, 0, 0,
            8, 0, 31, 0, 1, 0, 0, 0, 8, 0, 32, 0, 1, 0, 0, 0,
            8, 0, 28, 0, d0, d1, d2, d3,
        ]);
    }

    #[test]
    fn reads_a_link_and_its_counters() {
        let mut payload = header(9, State::Unchanged).to_vec();
        payload.extend_from_slice(&[8, 0, 3, 0, b'p', b'w', b'1', 0]);
        payload.extend_from_slice(&[8, 0, 10, 0, 4, 0, 0, 0, 5, 0, 16, 0, 6, 0, 0, 0]);
        payload.extend_from_slice(&[
            13, 0, 18, 0x80, 9, 0, 1, 0, b'v', b'e', b't', b'h', 0, 0, 0, 0,
        ]);
        payload.extend_from_slice(&[68, 0, 23, 0]);
        for value in 1..=8u64 {
            payload.extend_from_slice(&value.to_ne_bytes());
        }
        let reply = Reply::Object {
            sequence: 1,
            kind: libc::RTM_NEWLINK,
            payload,
        };
        let link = Link {
            index: 9,
            name: "pw1".to_owned(),
            kind: "veth".to_owned(),
            master: Some(4),
            is_operational: true,
        };
        assert_eq!(Link::read(&reply), Some(link));
        let counters = Counters::read(&reply).unwrap();
        assert_eq!((counters.rx_bytes, counters.tx_bytes), (3, 4));
        assert_eq!((counters.rx_dropped, counters.tx_dropped), (7, 8));
        assert_eq!(counters.mirrored().rx_bytes, 4);
        assert_eq!(counters.mirrored().mirrored(), counters);
    }

    proptest! {
        #[test]
        fn any_payload_is_read_without_panic(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            let reply = Reply::Object { sequence: 1, kind: libc::RTM_NEWLINK, payload };
            let _ = Link::read(&reply);
            let _ = Counters::read(&reply);
        }
    }
}
