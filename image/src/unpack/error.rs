//! Why a layer cannot be unpacked.

use std::io;

use super::path::PathProblem;
use super::tar::TarError;
use crate::digest::Digest;

/// Names from archives are shown lossily and only so far.
const SHOWN: usize = 256;

/// Why a layer cannot be unpacked. What was unpacked so far is gone when this is returned.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The compressed stream cannot be read: broken, or it ended early.
    #[error("cannot read the layer's stream")]
    Stream(#[source] io::Error),
    /// The archive breaks its format or a bound.
    #[error("the layer's archive is malformed after {entries} entries")]
    Tar {
        /// How many entries were read before.
        entries: u64,
        /// What is wrong.
        #[source]
        source: TarError,
    },
    /// A name that does not stay in the layer.
    #[error("the layer's entry {entry:?} is refused")]
    Path {
        /// The name as it stands in the archive.
        entry: String,
        /// Why.
        #[source]
        source: PathProblem,
    },
    /// The target of a hard link cannot be used.
    #[error("the layer's hard link {entry:?} to {target:?} is refused: {problem}")]
    HardLink {
        /// The link's name.
        entry: String,
        /// What it points to.
        target: String,
        /// Why.
        problem: &'static str,
    },
    /// A file, symlink that leads nowhere, or device stands where a directory is needed.
    #[error("the layer's entry {entry:?} needs {parent:?} to be a directory, which it is not")]
    Parent {
        /// The entry.
        entry: String,
        /// The part of its path that is no directory.
        parent: String,
    },
    /// An attribute that would change how overlayfs reads the layer.
    #[error(
        "the layer's entry {entry:?} sets the attribute {attribute:?}, which belongs to overlayfs"
    )]
    Attribute {
        /// The entry.
        entry: String,
        /// The attribute's name.
        attribute: String,
    },
    /// A system call failed.
    #[error("cannot {operation} {entry:?} of the layer")]
    Io {
        /// What was tried, such as "create".
        operation: &'static str,
        /// The entry.
        entry: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// More than the store's bound, as an archive bomb would need.
    #[error("the layer is larger than {most} bytes unpacked (max_unpacked_layer_bytes)")]
    TooLarge {
        /// The bound in bytes.
        most: u64,
    },
    /// More names than the bounds allow.
    #[error("the layer has more than {most} {what}")]
    TooMany {
        /// "entries" or "bytes of directory names".
        what: &'static str,
        /// The bound.
        most: u64,
    },
    /// The bytes received are not those that the manifest names.
    #[error("the layer's digest is {found}, but its manifest says {expected}")]
    DigestMismatch {
        /// In the manifest.
        expected: Digest,
        /// Of what was received.
        found: Digest,
    },
    /// The stream has another length than the manifest says.
    #[error("the layer has {found} bytes, but its manifest says {expected}")]
    SizeMismatch {
        /// In the manifest.
        expected: u64,
        /// Received.
        found: u64,
    },
    /// The archive is not the one that the configuration names.
    #[error("the unpacked layer's diff id is {found}, but the image's config says {expected}")]
    DiffIdMismatch {
        /// In the configuration.
        expected: Digest,
        /// Of what was unpacked.
        found: Digest,
    },
}

impl UnpackError {
    /// Whether the disk is full (or a quota or the inodes are used up).
    pub(crate) fn is_no_space(&self) -> bool {
        match self {
            UnpackError::Io { source, .. } => {
                matches!(
                    source.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                )
            }
            _ => false,
        }
    }

    pub(super) fn io(
        operation: &'static str,
        entry: &[u8],
        errno: rustix::io::Errno,
    ) -> UnpackError {
        UnpackError::Io {
            operation,
            entry: shown(entry),
            source: errno.into(),
        }
    }
}

/// A name from an archive for a message.
pub(super) fn shown(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(&name[..name.len().min(SHOWN)]);
    if name.len() > SHOWN {
        format!("{text}…")
    } else {
        text.into_owned()
    }
}
