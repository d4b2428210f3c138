//! nf_tables by netlink: tables, chains, rules, sets and their elements, taken or left as one transaction.
//!
//! Source: `include/uapi/linux/netfilter/nf_tables.h`. Numbers are in network order there, unlike rtnetlink's.

mod element;
mod expression;
mod matches;
mod ruleset;

pub(crate) use element::{Element, Set, add, count, pod_elements, remove};
pub(crate) use ruleset::{PodFilter, Ruleset};

use crate::netlink::Message;

/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 16;
const NFNL_MSG_BATCH_END: u16 = 17;

/// The address families of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// Frames that cross a bridge.
    Bridge,
}

impl Family {
    fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Bridge => 7,
        }
    }
}

/// A request of the nf_tables subsystem.
fn request(kind: libc::c_int, flags: i32, family: Family, what: impl Into<String>) -> Message {
    // `struct nfgenmsg`: family, version, resource id.
    let header = [family.number(), 0, 0, 0];
    // NFT_MSG_* are below 256.
    Message::new((SUBSYSTEM << 8) | kind as u16, flags, &header, what)
}

/// Frames requests so that the kernel takes all of them or none.
pub(crate) fn transaction(requests: Vec<Message>) -> Vec<Message> {
    let [high, low] = SUBSYSTEM.to_be_bytes();
    let header = [0, 0, high, low];
    let mut batch = vec![Message::frame(
        NFNL_MSG_BATCH_BEGIN,
        &header,
        "begin an nftables transaction",
    )];
    batch.extend(requests);
    batch.push(Message::frame(
        NFNL_MSG_BATCH_END,
        &header,
        "end an nftables transaction",
    ));
    batch
}
