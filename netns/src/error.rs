//! What can go wrong, and what to do about it.

use std::io;
use std::path::PathBuf;

use crate::address::Subnet;
use crate::config::LinkName;
use crate::netlink::NetlinkError;
use crate::port::PortMapping;

/// Why the pod network could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The configuration does not describe a network.
    #[error("pod network configuration: {problem}")]
    Config {
        /// What is wrong, and what to write instead.
        problem: String,
    },
    /// The bridge's name belongs to a link that is no bridge.
    #[error(
        "the link {link} is a {kind:?} device, not a bridge; choose another bridge name or remove that link"
    )]
    NotABridge {
        /// The configured name.
        link: LinkName,
        /// What the link is.
        kind: String,
    },
    /// Another process has the state directory open.
    #[error("the network state in {} is in use by another daemon; give each its own state directory", path.display())]
    StateInUse {
        /// The lock file.
        path: PathBuf,
    },
    /// A file of the state directory could not be read or written.
    #[error("{action} {}", path.display())]
    State {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A kernel setting of the host could not be read or written.
    #[error("{action} the kernel setting {}", path.display())]
    Sysctl {
        /// What was tried.
        action: String,
        /// The file below `/proc/sys`.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a change of links, addresses, routes or rules.
    #[error("{action}")]
    Kernel {
        /// What was tried, for whom.
        action: String,
        /// What the kernel said.
        #[source]
        source: NetlinkError,
    },
    /// A pod's network namespace could not be made.
    #[error("{action} a network namespace")]
    Namespace {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        #[source]
        errno: nix::errno::Errno,
    },
    /// Whether a link is there could not be found out.
    #[error("look for the link {link}")]
    Link {
        /// The link.
        link: LinkName,
        /// What the system said.
        #[source]
        errno: nix::errno::Errno,
    },
    /// A later version has written the record of a pod.
    #[error(
        "the network record {path} has a form that this version of podwright does not know: start the newer version that wrote \
         it, and remove the pod before you go back; pods run on meanwhile"
    )]
    NewerRecord {
        /// The record.
        path: PathBuf,
    },
    /// The text is no pod id.
    #[error("{pod:?} is no pod id: 64 lower-case hexadecimal digits are wanted")]
    PodId {
        /// The text.
        pod: String,
    },
    /// The pod is attached already.
    #[error("pod {pod} is attached to the network already; detach it first")]
    AlreadyAttached {
        /// The pod.
        pod: String,
    },
    /// The pod is not attached.
    #[error("pod {pod} is not attached to the network")]
    NotAttached {
        /// The pod.
        pod: String,
    },
    /// All addresses of a subnet are given.
    #[error(
        "no free address in the pod subnet {subnet}: all {in_use} are in use; remove pods or configure a larger subnet"
    )]
    Exhausted {
        /// The subnet.
        subnet: Subnet,
        /// Addresses that pods have.
        in_use: usize,
    },
    /// A host port belongs to another pod, or was asked for twice.
    #[error("host port {port} is taken by pod {holder}; choose another port or remove that pod")]
    PortTaken {
        /// The port.
        port: PortMapping,
        /// Who has it.
        holder: String,
    },
    /// A new subnet overlaps one of which pods have addresses.
    #[error(
        "the pod subnet {subnet} overlaps {kept}, of which pods still have addresses; remove those pods first"
    )]
    SubnetInUse {
        /// The new one.
        subnet: Subnet,
        /// The one in use.
        kept: Subnet,
    },
    /// The network still has pods.
    #[error("{pods} pods are attached to the network; detach them before it is removed")]
    HasPods {
        /// How many.
        pods: usize,
    },
}

impl NetworkError {
    /// Adds what was tried to the kernel's refusal.
    pub(crate) fn kernel(action: impl Into<String>) -> impl FnOnce(NetlinkError) -> Self {
        let action = action.into();
        move |source| Self::Kernel { action, source }
    }

    pub(crate) fn state(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::State {
            action,
            path,
            source,
        }
    }
}
