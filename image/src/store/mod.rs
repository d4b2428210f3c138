//! What is on disk: images and their layers.
//!
//! ```text
//! <root>/images.redb     what there is (db)
//! <root>/layers/<name>/  one directory for each layer, whole and ready to mount (layers)
//! <root>/staging/        layers being unpacked; of no worth after a restart
//! <root>/trash/          on its way out (trash)
//! <root>/reserve         space for the database to record a removal on a full disk
//! ```

mod catalog;
mod commit;
mod config;
mod db;
mod error;
mod image;
mod layers;
mod lease;
mod open;
mod sync;
mod trash;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Semaphore;

use crate::digest::ChainId;
use crate::pull::Pulls;
use crate::registry::Registries;
use catalog::Catalog;
pub(crate) use commit::NewImage;
pub use config::ImageStoreConfig;
use db::Db;
pub use error::StoreError;
pub use image::{FsUsage, Image, Layer};
use layers::Directories;
pub use lease::Lease;
use sync::Syncer;
use trash::Trash;
pub(crate) use trash::trash_name;

/// All images of a node. Clones are the same store.
#[derive(Clone)]
pub struct ImageStore {
    pub(crate) inner: Arc<Inner>,
}

/// What the store's clones, leases and tasks share.
///
/// Lock order: `db` before `catalog`. Nobody waits for I/O while holding `catalog`.
pub(crate) struct Inner {
    pub(crate) config: ImageStoreConfig,
    pub(crate) directories: Directories,
    pub(crate) registries: Registries,
    pub(crate) pulls: Pulls,
    /// Downloads at once; held from a layer's first byte to its commit.
    pub(crate) downloads: Semaphore,
    /// One pull at a time fetches a layer; the others wait and then find it there.
    turns: Mutex<HashMap<ChainId, Weak<tokio::sync::Mutex<()>>>>,
    /// Also makes commits, removals and reclaiming follow one another.
    db: Mutex<Db>,
    catalog: Mutex<Catalog>,
    syncer: Syncer,
    trash: Trash,
    runtime: tokio::runtime::Handle,
}

impl Inner {
    fn catalog(&self) -> MutexGuard<'_, Catalog> {
        self.catalog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn db(&self) -> MutexGuard<'_, Db> {
        self.db.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the right to fetch a layer.
    pub(crate) async fn turn(&self, chain: ChainId) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| turn.strong_count() > 0);
            match turns.get(&chain).and_then(Weak::upgrade) {
                Some(turn) => turn,
                None => {
                    let turn = Arc::default();
                    turns.insert(chain, Arc::downgrade(&turn));
                    turn
                }
            }
        };
        turn.lock_owned().await
    }
}

impl ImageStore {
    /// The image of this name, id or unique beginning of an id.
    pub fn resolve(&self, name_or_id: &str) -> Option<Arc<Image>> {
        self.inner.catalog().resolve(name_or_id)
    }

    /// All images, by id.
    pub fn list(&self) -> Vec<Arc<Image>> {
        self.inner.catalog().images().cloned().collect()
    }

    /// The directory that holds the layers' directories.
    pub fn layers_root(&self) -> &Path {
        &self.inner.directories.layers_path
    }

    /// The store's directory, as [`fs_usage`](Self::fs_usage) names it.
    pub fn root(&self) -> &Path {
        &self.inner.config.root
    }

    /// What the store occupies.
    pub fn fs_usage(&self) -> FsUsage {
        let layers = self.inner.catalog().usage();
        // The database's own size is known without walking anything.
        let own = std::fs::metadata(self.inner.config.root.join(open::DATABASE))
            .map_or(0, |metadata| {
                std::os::unix::fs::MetadataExt::blocks(&metadata) * 512
            });
        FsUsage {
            mountpoint: self.inner.config.root.clone(),
            used_bytes: layers.bytes + own,
            used_inodes: layers.inodes + 1,
        }
    }

    /// Reads files of an image without mounting it; the layers stay while the view lives.
    pub fn view(&self, image: &Image) -> Result<crate::view::LayeredView, StoreError> {
        let lease = self.lease(image)?;
        let names = image
            .layers
            .iter()
            .rev()
            .map(|layer| layer.dir.clone())
            .collect();
        crate::view::LayeredView::open(&self.inner.directories.layers_path, names, lease)
    }

    /// Keeps an image's layers on disk while the lease lives, though the image is removed.
    pub fn lease(&self, image: &Image) -> Result<Lease, StoreError> {
        let chains: Vec<ChainId> = image.layers.iter().map(|layer| layer.chain_id).collect();
        let mut catalog = self.inner.catalog();
        for (pinned, chain) in chains.iter().enumerate() {
            if !catalog.pin(*chain) {
                catalog.unpin(&chains[..pinned]);
                return Err(StoreError::LayerGone {
                    image: image.id,
                    chain: *chain,
                });
            }
        }
        drop(catalog);
        Ok(Lease::new(Arc::clone(&self.inner), chains))
    }

    /// Keeps these layers on disk, known to the database or not: for what container records name at
    /// recovery. Layers of which nothing is there are passed over with a log line.
    pub fn lease_chains(&self, chains: &[ChainId]) -> Lease {
        let mut kept = Vec::with_capacity(chains.len());
        for chain in chains {
            let mut catalog = self.inner.catalog();
            let pinned = catalog.pin(*chain)
                || self.inner.directories.has_layer(*chain) && catalog.adopt(*chain);
            drop(catalog);
            if pinned {
                kept.push(*chain);
            } else {
                tracing::warn!(%chain, "a container needs a layer that is not there");
            }
        }
        Lease::new(Arc::clone(&self.inner), kept)
    }

    /// All leases of earlier containers are taken: from now on layers that nobody needs are reclaimed.
    pub fn recovery_done(&self) {
        self.inner.catalog().free_reclaiming();
        let inner = Arc::clone(&self.inner);
        self.inner.runtime.spawn_blocking(move || {
            inner.sweep_layers();
            inner.reclaim();
        });
    }

    /// Removes an image with all its names; its layers follow as soon as nobody needs them. What is not
    /// there is removed already.
    pub async fn remove(&self, name_or_id: &str) -> Result<(), StoreError> {
        let Some(image) = self.resolve(name_or_id) else {
            return Ok(());
        };
        self.blocking(move |inner| inner.remove_image(image.id))
            .await
    }

    /// Waits until nothing is left to delete.
    #[cfg(test)]
    pub(crate) fn wait_until_reclaimed(&self) {
        self.inner.reclaim();
        self.inner.trash.wait_until_empty();
    }

    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Inner>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.inner);
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(result) => result,
            Err(_) => Err(StoreError::Interrupted),
        }
    }
}

/// A system call that failed on a path.
pub(crate) fn io_error(
    operation: &'static str,
    path: impl Into<PathBuf>,
    source: impl Into<std::io::Error>,
) -> StoreError {
    StoreError::Io {
        operation,
        path: path.into(),
        source: source.into(),
    }
}
