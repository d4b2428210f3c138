//! What goes wrong between the runtime and its plugins.

use std::io;
use std::path::PathBuf;

/// Why the interface is not wholly at work.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The socket for external plugins.
    #[error("cannot {action} {path}")]
    Socket {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Somebody else listens there.
    #[error("another runtime listens on {path}; give each its own [nri] socket")]
    SocketTaken {
        /// The socket.
        path: PathBuf,
    },
}

/// Why a call of the runtime must fail because of plugins. Each text says which plugin, and what it did.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NriError {
    /// A plugin has refused.
    #[error("the NRI plugin {plugin} refused {event}: {reason}")]
    Refused {
        /// Its index and name.
        plugin: String,
        /// What it was asked.
        event: &'static str,
        /// Its own words, cut to a bounded length.
        reason: String,
    },
    /// Two plugins want different things.
    #[error("the NRI plugins {first} and {second} both set {field} of the container {container}")]
    Conflict {
        /// Which was called first.
        first: String,
        /// Which was called second.
        second: String,
        /// What they set.
        field: String,
        /// Of which container.
        container: String,
    },
    /// A container cannot be updated before it is there.
    #[error("the NRI plugin {plugin} asked to update the container that is being created")]
    UpdateOfNew {
        /// Its index and name.
        plugin: String,
    },
    /// A required plugin has not seen the container.
    #[error("the required NRI plugin {plugin} {why}; no container is created without it")]
    RequiredMissing {
        /// As it is required.
        plugin: String,
        /// Where it is.
        why: String,
    },
    /// An annotation cannot be understood, and could demand something.
    #[error("the pod's annotation {key} = '{value}' is {expected}")]
    Annotation {
        /// Its key.
        key: String,
        /// Its value, cut to a bounded length.
        value: String,
        /// What it is not.
        expected: &'static str,
    },
    /// The operator forbids it.
    #[error("the NRI plugin {plugin} set {what}, which this node's configuration rejects")]
    Rejected {
        /// Its index and name; several with commas.
        plugin: String,
        /// What it set.
        what: &'static str,
    },
    /// A validating plugin does not let it pass.
    #[error("the NRI plugin {plugin} rejected the container's adjustment: {reason}")]
    Invalid {
        /// Its index and name.
        plugin: String,
        /// Its own words, cut to a bounded length.
        reason: String,
    },
    /// A validating plugin did not answer: nothing passes unseen.
    #[error("the NRI plugin {plugin} did not validate the container's adjustment: {why}")]
    NotValidated {
        /// Its index and name.
        plugin: String,
        /// Why not.
        why: String,
    },
}

impl NriError {
    /// Whether it may go well when tried again: a plugin is absent or slow, not unwilling.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::RequiredMissing { .. } | Self::NotValidated { .. }
        )
    }
}

/// A plugin's text as errors and logs may show it.
pub(crate) fn shown(text: &str) -> String {
    const LONGEST: usize = 512;
    let mut cut: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(LONGEST)
        .collect();
    if text.chars().nth(LONGEST).is_some() {
        cut.push('…');
    }
    cut
}
