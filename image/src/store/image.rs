//! Images and layers as callers see them.

use std::path::PathBuf;
use std::sync::Arc;

use oci_spec::image::ImageConfiguration;

use crate::digest::{ChainId, Digest, ImageId};

/// An image; it does not change, a store replaces it as a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// The digest of its configuration.
    pub id: ImageId,
    /// `name:tag`, full.
    pub repo_tags: Vec<String>,
    /// `name@digest`, full; the digest is that of the manifest or index pulled.
    pub repo_digests: Vec<String>,
    /// Bytes of the compressed layers, the manifest and the configuration.
    pub size: u64,
    /// The configuration, for containers to share.
    pub config: Arc<ImageConfiguration>,
    /// The lowest first.
    pub layers: Vec<Layer>,
    /// Of the manifest for this platform.
    pub manifest_digest: Digest,
    /// Not to be removed to free space.
    pub pinned: bool,
}

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// It and all below it.
    pub chain_id: ChainId,
    /// Its archive, uncompressed.
    pub diff_id: Digest,
    /// Its directory's name under the layers' root.
    pub dir: String,
}

/// What the store occupies on its file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FsUsage {
    /// The store's directory.
    pub mountpoint: PathBuf,
    /// Bytes in blocks of the file system.
    pub used_bytes: u64,
    /// Files, directories and all else that has an inode.
    pub used_inodes: u64,
}
