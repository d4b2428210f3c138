//! Netlink: building messages, sending them in batches, and reading the kernel's answers.
//!
//! Sources: netlink(7), RFC 3549, and the kernel's `include/uapi/linux/netlink.h`.

mod attribute;
mod message;
mod socket;

pub(crate) use attribute::{Attributes, read_u32, read_u64};
pub(crate) use message::{Message, Reply};
pub(crate) use socket::{
    LinkNotices, Protocol, Socket, await_notice, dump, exchange, join_ipv6_routes,
    leave_ipv6_routes, prepare,
};

use nix::errno::Errno;

/// Why a netlink exchange failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No socket, or an option of it was refused.
    #[error("open a netlink socket ({what})")]
    Open {
        /// The call that failed.
        what: &'static str,
        /// What the system said.
        #[source]
        errno: Errno,
    },
    /// The request did not reach the kernel, or its answer could not be read.
    #[error("{direction} netlink messages to {what}")]
    Transport {
        /// `send` or `receive`.
        direction: &'static str,
        /// What was asked for.
        what: String,
        /// What the system said.
        #[source]
        errno: Errno,
    },
    /// The kernel refused the request.
    #[error("{what}{}", .detail.as_ref().map(|text| format!(" (the kernel says: {text})")).unwrap_or_default())]
    Refused {
        /// What was asked for.
        what: String,
        /// The kernel's extended-ack text, where it gave one.
        detail: Option<String>,
        /// The kernel's answer.
        #[source]
        errno: Errno,
    },
    /// The kernel's answer is missing or does not have the form that netlink(7) gives it.
    #[error("{what}: unexpected answer from the kernel: {problem}")]
    Answer {
        /// What was asked for.
        what: String,
        /// What is wrong with the answer.
        problem: &'static str,
    },
}

impl NetlinkError {
    /// Whether the kernel refused with this errno.
    pub(crate) fn is(&self, wanted: Errno) -> bool {
        matches!(self, Self::Refused { errno, .. } if *errno == wanted)
    }
}
