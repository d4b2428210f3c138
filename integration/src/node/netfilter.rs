//! The few netlink messages that looking at nftables takes, removing a bridge and a table, and bringing up a link
//! (netlink(7), linux/netfilter/nf_tables.h).

use std::{collections::BTreeMap, os::fd::AsRawFd as _};

use anyhow::{Context as _, Result, bail};
use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket},
};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLA_TYPE_MASK: u16 = 0x3fff;

const NFTABLES: u16 = 10 << 8;
const GET_TABLE: u16 = NFTABLES | 1;
const DELETE_TABLE: u16 = NFTABLES | 2;
const GET_RULE: u16 = NFTABLES | 7;
const GET_SET: u16 = NFTABLES | 10;
const GET_ELEMENTS: u16 = NFTABLES | 13;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const IFF_UP: u32 = 1;
/// linux/netlink.h, since Linux 3.1.
const NLM_F_DUMP_INTR: u16 = 0x10;
/// Other tests change their tables at the same time, but not for ever.
const MOST_INTERRUPTED: u32 = 1000;
const IFLA_IFNAME: u16 = 3;

/// What the nftables tables named `table`, of any family, hold: rules by chain and elements by set.
/// Nothing when there is no such table.
pub(super) fn contents(table: &str) -> Result<BTreeMap<String, usize>> {
    let mut counts = BTreeMap::new();
    for message in dump(GET_TABLE, 0, &[])?
        .iter()
        .filter(|m| m.text(1) == table)
    {
        counts.insert(format!("table {table}"), 1);
        for rule in dump(GET_RULE, message.family, &[(1, table)])?
            .iter()
            .filter(|m| m.text(1) == table)
        {
            *counts
                .entry(format!("rules in chain {}", rule.text(2)))
                .or_default() += 1;
        }
        for set in dump(GET_SET, message.family, &[(1, table)])?
            .iter()
            .filter(|m| m.text(1) == table)
        {
            let name = set.text(2);
            let elements = dump(GET_ELEMENTS, message.family, &[(1, table), (2, &name)])?;
            let count = elements.iter().map(|m| attributes(m.raw(3)).len()).sum();
            counts.insert(format!("elements of set {name}"), count);
        }
    }
    Ok(counts)
}

/// Deletes the tables named `table`, of all families. There may be none.
pub(super) fn delete_table(table: &str) -> Result<()> {
    for message in dump(GET_TABLE, 0, &[])?
        .iter()
        .filter(|m| m.text(1) == table)
    {
        let family = message.family;
        let batch = [0, 0, 0, 10];
        let mut delete = vec![family, 0, 0, 0];
        delete.extend(attribute(1, table));
        let mut packet = packed(BATCH_BEGIN, NLM_F_REQUEST, 1, &batch);
        packet.extend(packed(DELETE_TABLE, NLM_F_REQUEST | NLM_F_ACK, 2, &delete));
        packet.extend(packed(BATCH_END, NLM_F_REQUEST, 3, &batch));
        exchange(SockProtocol::NetlinkNetFilter, &packet)
            .with_context(|| format!("deleting the nftables table {table}"))?;
    }
    Ok(())
}

/// Deletes the link `name`. There may be none.
pub(super) fn delete_link(name: &str) -> Result<()> {
    // struct ifinfomsg: the link is found by its name alone.
    let mut body = vec![0; 16];
    body.extend(attribute(IFLA_IFNAME, name));
    let packet = packed(RTM_DELLINK, NLM_F_REQUEST | NLM_F_ACK, 1, &body);
    match exchange(SockProtocol::NetlinkRoute, &packet) {
        Err(error) if error.downcast_ref() == Some(&Errno::ENODEV) => Ok(()),
        other => other
            .map(drop)
            .with_context(|| format!("deleting the link {name}")),
    }
}

/// Brings up the link `name`.
pub(super) fn bring_up(name: &str) -> Result<()> {
    // struct ifinfomsg: no index, and which flags are to be set among those that are to be changed.
    let mut body = vec![0; 8];
    body.extend(IFF_UP.to_ne_bytes());
    body.extend(IFF_UP.to_ne_bytes());
    body.extend(attribute(IFLA_IFNAME, name));
    let packet = packed(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, 1, &body);
    exchange(SockProtocol::NetlinkRoute, &packet)
        .map(drop)
        .with_context(|| format!("bringing up the link {name}"))
}

/// The body of an nf_tables message: struct nfgenmsg, then attributes.
struct Message {
    family: u8,
    attributes: BTreeMap<u16, Vec<u8>>,
}

impl Message {
    fn text(&self, kind: u16) -> String {
        String::from_utf8_lossy(self.raw(kind))
            .trim_end_matches('\0')
            .to_owned()
    }

    fn raw(&self, kind: u16) -> &[u8] {
        self.attributes.get(&kind).map_or(&[], Vec::as_slice)
    }
}

fn dump(kind: u16, family: u8, arguments: &[(u16, &str)]) -> Result<Vec<Message>> {
    let mut body = vec![family, 0, 0, 0];
    for (kind, value) in arguments {
        body.extend(attribute(*kind, value));
    }
    let packet = packed(kind, NLM_F_REQUEST | NLM_F_DUMP, 1, &body);
    let mut answer = exchange(SockProtocol::NetlinkNetFilter, &packet);
    let mut left = MOST_INTERRUPTED;
    while left > 0 && answer.as_ref().is_err_and(is_interrupted) {
        answer = exchange(SockProtocol::NetlinkNetFilter, &packet);
        left -= 1;
    }
    let bodies = answer.context("listing nftables")?;
    Ok(bodies
        .iter()
        .filter(|body| body.len() >= 4)
        .map(|body| Message {
            family: body[0],
            attributes: attributes(&body[4..]).into_iter().collect(),
        })
        .collect())
}

fn is_interrupted(error: &anyhow::Error) -> bool {
    error.downcast_ref() == Some(&Errno::EINTR)
}

/// Sends and collects the bodies of all answers up to the end or the acknowledgement. The error is EINTR when somebody changed
/// what is listed meanwhile: the list may lack some of it then.
fn exchange(protocol: SockProtocol, packet: &[u8]) -> Result<Vec<Vec<u8>>> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let netlink = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
    send(netlink.as_raw_fd(), packet, MsgFlags::empty())?;
    let mut bodies = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = &buffer[..length];
        while let Some((size, kind, flags)) = header(rest) {
            if flags & NLM_F_DUMP_INTR != 0 {
                bail!(Errno::EINTR);
            }
            let (message, after) = rest.split_at(size.next_multiple_of(4).min(rest.len()));
            let body = &message[16..size];
            match kind {
                NLMSG_DONE => return Ok(bodies),
                NLMSG_ERROR => {
                    let code = body
                        .first_chunk()
                        .map_or(0, |code| i32::from_ne_bytes(*code));
                    return if code == 0 {
                        Ok(bodies)
                    } else {
                        bail!(Errno::from_raw(-code))
                    };
                }
                _ => bodies.push(body.to_vec()),
            }
            rest = after;
        }
    }
}

/// The length, type and flags of the message at the start of `bytes`.
fn header(bytes: &[u8]) -> Option<(usize, u16, u16)> {
    let size = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let flags = u16::from_ne_bytes(*bytes.get(6..)?.first_chunk()?);
    (16..=bytes.len())
        .contains(&size)
        .then_some((size, kind, flags))
}

fn packed(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let size = 16 + u32::try_from(body.len()).unwrap_or(u32::MAX - 16);
    let mut message = size.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend([0; 4]);
    message.extend(body);
    message
}

/// A NUL-terminated text, padded to four bytes.
fn attribute(kind: u16, text: &str) -> Vec<u8> {
    let size = u16::try_from(4 + text.len() + 1).unwrap_or(u16::MAX);
    let mut bytes = size.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(text.as_bytes());
    bytes.push(0);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn attributes(mut bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut found = Vec::new();
    while let [s0, s1, k0, k1, ..] = *bytes {
        let size = usize::from(u16::from_ne_bytes([s0, s1]));
        if size < 4 || size > bytes.len() {
            break;
        }
        found.push((
            u16::from_ne_bytes([k0, k1]) & NLA_TYPE_MASK,
            bytes[4..size].to_vec(),
        ));
        bytes = &bytes[size.next_multiple_of(4).min(bytes.len())..];
    }
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn attributes_survive_a_round() {
        let mut bytes = attribute(1, "table");
        bytes.extend(attribute(2, "abc"));
        let found = attributes(&bytes);
        assert_eq!(found, [(1, b"table\0".to_vec()), (2, b"abc\0".to_vec())]);
    }

    #[test]
    fn absent_things_are_no_error() {
        assert_eq!(contents("no_such_table_anywhere").unwrap(), BTreeMap::new());
        delete_table("no_such_table_anywhere").unwrap();
        delete_link("nosuchlink0").unwrap();
    }
}
