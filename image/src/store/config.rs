//! What a store is made with.

use std::path::PathBuf;

use crate::registry::RegistryTimeouts;

/// Where a store lies and how it pulls.
#[derive(Debug, Clone)]
pub struct ImageStoreConfig {
    /// The store's directory; made when it is missing. One process at a time may use it.
    pub root: PathBuf,
    /// Directories in containerd's `certs.d` layout; the first that knows a registry counts.
    pub registry_config_dirs: Vec<PathBuf>,
    /// docker's `config.json`, for credentials that the request does not give.
    pub docker_config: Option<PathBuf>,
    /// Layers that are downloaded and unpacked at once, over all pulls.
    pub max_concurrent_layer_downloads: usize,
    /// Largest layer after decompression, bytes.
    pub max_unpacked_layer_bytes: u64,
    /// References whose images are marked as pinned: the kubelet does not remove them.
    pub pinned: Vec<String>,
    /// How long registries may stay silent.
    pub timeouts: RegistryTimeouts,
}

impl ImageStoreConfig {
    /// The defaults for a store in `root`.
    pub fn new(root: impl Into<PathBuf>) -> ImageStoreConfig {
        ImageStoreConfig {
            root: root.into(),
            registry_config_dirs: Vec::new(),
            docker_config: None,
            max_concurrent_layer_downloads: 3,
            max_unpacked_layer_bytes: 64 << 30,
            pinned: Vec::new(),
            timeouts: RegistryTimeouts::default(),
        }
    }
}
