//! Why the store cannot do something.

use std::io;
use std::path::PathBuf;

use crate::digest::{ChainId, ImageId};

/// Why the store cannot do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A system call failed.
    #[error("cannot {operation} {path:?}")]
    Io {
        /// What was tried, such as "create".
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The database cannot be used.
    #[error("the image database {path:?} cannot be {operation}")]
    Database {
        /// "opened", "read" or "written".
        operation: &'static str,
        /// Its file.
        path: PathBuf,
        /// What it said.
        #[source]
        source: Box<redb::Error>,
    },
    /// A later version has written the database.
    #[error(
        "the image database {path:?} has form {form}, and this version of podwright reads forms up to {known}: start the newer \
         version that wrote it, or move the database away and pull the images again",
        known = super::db::FORM
    )]
    Newer {
        /// Its file.
        path: PathBuf,
        /// The number of its form.
        form: u32,
    },
    /// Another process has the store open.
    #[error("the image store {root:?} is in use by another process")]
    InUse {
        /// The store's directory.
        root: PathBuf,
    },
    /// The image was removed since it was looked up.
    #[error("image {image} was removed: its layer {chain} is gone")]
    LayerGone {
        /// The image.
        image: ImageId,
        /// The layer.
        chain: ChainId,
    },
    /// A name in `pinned` is no reference.
    #[error("the list of pinned images is invalid")]
    Pinned(#[source] crate::reference::ReferenceError),
    /// The runtime is shutting down, or the work panicked.
    #[error("the work was interrupted")]
    Interrupted,
}

impl StoreError {
    /// Whether the disk is full.
    pub fn is_no_space(&self) -> bool {
        let full = |error: &io::Error| {
            matches!(
                error.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            )
        };
        match self {
            StoreError::Io { source, .. } => full(source),
            StoreError::Database { source, .. } => {
                matches!(source.as_ref(), redb::Error::Io(error) if full(error))
            }
            _ => false,
        }
    }
}
