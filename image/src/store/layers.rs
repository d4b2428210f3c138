//! The layers' directories: how they are named, where they are made, how they become part of the store.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::db::{Change, LayerRecord};
use super::error::StoreError;
use super::lease::Lease;
use super::{Inner, io_error, trash_name};
use crate::digest::ChainId;
use crate::pull::PullError;
use crate::unpack::{Expected, Limits, Pipe, Usage, unpack_layer};

/// Digits of a layer's name: overlayfs takes 4096 bytes of options, in which all lower layers are named.
const SHORT: usize = 16;

/// A layer's usual directory name.
pub(super) fn short_name(chain: ChainId) -> String {
    chain.digest().hex()[..SHORT].to_owned()
}

/// The store's directories, held open.
pub(crate) struct Directories {
    pub(super) layers_path: PathBuf,
    pub(super) layers: OwnedFd,
    pub(super) staging: OwnedFd,
}

impl Directories {
    pub(super) fn open(root: &Path) -> Result<(Directories, OwnedFd), StoreError> {
        let layers_path = root.join("layers");
        let directories = Directories {
            layers: private_directory(&layers_path)?,
            staging: private_directory(&root.join("staging"))?,
            layers_path,
        };
        Ok((directories, private_directory(&root.join("trash"))?))
    }

    /// Whether a directory of the layer's usual name is there.
    pub(super) fn has_layer(&self, chain: ChainId) -> bool {
        rustix::fs::statat(&self.layers, short_name(chain), AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }
}

/// Makes and opens a directory that only root may enter: layers hold setuid programs of strangers.
pub(super) fn private_directory(path: &Path) -> Result<OwnedFd, StoreError> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(io_error("create", path, errno)),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::open(path, flags, Mode::empty())
        .map_err(|errno| io_error("open", path, errno))?;
    rustix::fs::fchmod(&directory, Mode::from_raw_mode(0o700))
        .map_err(|errno| io_error("set the mode of", path, errno))?;
    Ok(directory)
}

/// A layer being unpacked; dropped, it goes to the trash.
struct Staged<'a> {
    inner: &'a Inner,
    name: String,
    root: OwnedFd,
}

impl<'a> Staged<'a> {
    fn new(inner: &'a Inner) -> Result<Staged<'a>, StoreError> {
        let name = trash_name();
        let staging = &inner.directories.staging;
        let failed = |operation| {
            let path = inner.config.root.join("staging").join(&name);
            move |errno: Errno| io_error(operation, path, errno)
        };
        rustix::fs::mkdirat(staging, name.as_str(), Mode::from_raw_mode(0o700))
            .map_err(failed("create"))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::openat(staging, name.as_str(), flags, Mode::empty())
            .map_err(failed("open"))?;
        Ok(Staged { inner, name, root })
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        match self
            .inner
            .trash
            .discard(self.inner.directories.staging.as_fd(), &self.name)
        {
            // Named as a layer by now.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => {
                tracing::warn!(%error, name = self.name, "a staged layer cannot be discarded; the next start will")
            }
        }
    }
}

impl Inner {
    /// A lease of the layer, when the store has it.
    pub(crate) fn lease_layer(self: &Arc<Inner>, chain: ChainId) -> Option<Lease> {
        self.catalog()
            .pin(chain)
            .then(|| Lease::new(Arc::clone(self), vec![chain]))
    }

    /// Unpacks what comes through the pipe, verifies it and makes it a layer of the store. Blocks.
    pub(crate) fn add_layer(
        self: &Arc<Inner>,
        pipe: Pipe,
        expected: &Expected,
        chain: ChainId,
    ) -> Result<Lease, PullError> {
        let limits = Limits {
            unpacked_bytes: self.config.max_unpacked_layer_bytes,
        };
        let staged = Staged::new(self).map_err(PullError::Store)?;
        let usage = unpack_layer(
            pipe,
            expected,
            limits,
            staged.root.as_fd(),
            self.trash.directory(),
        )
        .map_err(|source| PullError::Layer {
            digest: expected.digest,
            store: self.config.root.as_path().into(),
            source,
        })?;
        self.syncer
            .sync(staged.root.as_fd())
            .map_err(|errno| PullError::Store(io_error("sync", &self.config.root, errno)))?;
        self.commit_layer(staged, expected, chain, usage)
            .map_err(PullError::Store)
    }

    fn commit_layer(
        self: &Arc<Inner>,
        staged: Staged<'_>,
        expected: &Expected,
        chain: ChainId,
        usage: Usage,
    ) -> Result<Lease, StoreError> {
        let mut db = self.db();
        if let Some(lease) = self.lease_layer(chain) {
            return Ok(lease);
        }
        let directories = &self.directories;
        let dir = self.name_layer(chain)?;
        let failed = |operation| {
            let path = directories.layers_path.join(&dir);
            move |errno: Errno| io_error(operation, path, errno)
        };
        match rustix::fs::renameat(
            &directories.staging,
            staged.name.as_str(),
            &directories.layers,
            dir.as_str(),
        ) {
            // A container's own, from before the database was lost: whole, as all that is named here.
            Err(Errno::NOTEMPTY | Errno::EXIST) if self.catalog().directories().contains(&dir) => {}
            result => result.map_err(failed("name the layer"))?,
        }
        // rename(2) alone is not durable, and the database must not know what is not there.
        rustix::fs::fsync(&directories.layers).map_err(failed("sync the directory of"))?;
        let record = LayerRecord {
            chain_id: chain,
            diff_id: expected.diff_id,
            dir: dir.clone(),
            usage,
        };
        if let Err(error) = db.commit(&Change {
            put_layers: vec![record.clone()],
            ..Change::default()
        }) {
            if let Err(error) = self.trash.discard(directories.layers.as_fd(), &dir) {
                tracing::warn!(%error, dir, "a layer that is not recorded cannot be discarded; the next start will");
            }
            return Err(error);
        }
        self.catalog().put_layer_pinned(record);
        Ok(Lease::new(Arc::clone(self), vec![chain]))
    }

    /// A directory name that no other layer has. What lies there and belongs to none is discarded.
    fn name_layer(&self, chain: ChainId) -> Result<String, StoreError> {
        let hex = chain.digest().hex();
        let catalog = self.catalog();
        let adopted = catalog.is_adopted(chain);
        let taken = catalog.directories();
        drop(catalog);
        let dir = (SHORT..=hex.len())
            .map(|length| hex[..length].to_owned())
            .find(|name| adopted || !taken.contains(name))
            .unwrap_or(hex);
        if !adopted {
            match self.trash.discard(self.directories.layers.as_fd(), &dir) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => {
                    return Err(io_error(
                        "discard",
                        self.directories.layers_path.join(&dir),
                        errno,
                    ));
                }
            }
        }
        Ok(dir)
    }

    /// Discards directories that neither the database nor a container knows: a crash came between
    /// naming a layer and recording it, or the database was lost.
    pub(super) fn sweep_layers(&self) {
        let _db = self.db();
        let known = self.catalog().directories();
        let names = match super::trash::children(self.directories.layers.as_fd()) {
            Ok(names) => names,
            Err(error) => return tracing::warn!(%error, "the layers' directory cannot be read"),
        };
        for (name, _) in names {
            let name = name.to_string_lossy();
            if known.contains(name.as_ref()) {
                continue;
            }
            tracing::info!(dir = %name, "discarding a layer's directory that belongs to no image and no container");
            if let Err(error) = self.trash.discard(self.directories.layers.as_fd(), &name) {
                tracing::warn!(%error, dir = %name, "it cannot be discarded");
            }
        }
    }

    /// Deletes the layers that nobody needs.
    pub(super) fn reclaim(&self) {
        let mut db = self.db();
        let idle = self.catalog().take_idle_layers();
        if idle.is_empty() {
            return;
        }
        let drop_layers = idle.iter().map(|(chain, _)| *chain).collect();
        self.release_reserve();
        if let Err(error) = db.commit(&Change {
            drop_layers,
            ..Change::default()
        }) {
            tracing::warn!(%error, "layers cannot be reclaimed now");
            let mut catalog = self.catalog();
            idle.into_iter()
                .for_each(|(chain, entry)| catalog.put_layer(chain, entry));
            return;
        }
        self.discard_layers(idle.into_iter().map(|(chain, entry)| match entry.record {
            Some(record) => record.dir,
            None => short_name(chain),
        }));
    }

    pub(super) fn discard_layers(&self, dirs: impl Iterator<Item = String>) {
        for dir in dirs {
            match self.trash.discard(self.directories.layers.as_fd(), &dir) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => {
                    tracing::warn!(%error, dir, "a layer cannot be discarded; the next start will")
                }
            }
        }
    }
}
