//! Opening a store: it always comes up. What is damaged is dropped with a log line.

use std::collections::HashMap;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustix::fs::FallocateFlags;
use tokio::sync::Semaphore;

use super::catalog::Catalog;
use super::config::ImageStoreConfig;
use super::db::{Change, Db, OpenError};
use super::error::StoreError;
use super::layers::Directories;
use super::sync::Syncer;
use super::trash::Trash;
use super::{ImageStore, Inner, io_error};
use crate::digest::{Digest, ImageId};
use crate::pull::Pulls;
use crate::reference::Reference;
use crate::registry::Registries;

/// The database's file.
pub(super) const DATABASE: &str = "images.redb";
const RESERVE: &str = "reserve";
/// What the database may need to record removals.
const RESERVE_BYTES: u64 = 8 << 20;
/// With less than this free, the reserve is given up before a removal is recorded.
const LOW_BYTES: u64 = 32 << 20;

impl ImageStore {
    /// Opens the store, or makes a new one. Must be called within a tokio runtime, which the store uses
    /// from then on.
    pub async fn open(config: ImageStoreConfig) -> Result<ImageStore, StoreError> {
        let runtime = tokio::runtime::Handle::current();
        let opened = tokio::task::spawn_blocking(move || open(config, runtime)).await;
        let inner = opened.map_err(|_| StoreError::Interrupted)??;
        Ok(ImageStore {
            inner: Arc::new(inner),
        })
    }
}

fn open(
    mut config: ImageStoreConfig,
    runtime: tokio::runtime::Handle,
) -> Result<Inner, StoreError> {
    std::fs::create_dir_all(&config.root)
        .map_err(|error| io_error("create", &config.root, error))?;
    for name in &mut config.pinned {
        *name = name
            .parse::<Reference>()
            .map_err(StoreError::Pinned)?
            .to_string();
    }
    let (directories, trash) = Directories::open(&config.root)?;
    let db = open_database(&config.root)?;
    let root = config.root.clone();
    let trash = Trash::start(trash, move || keep_reserve(&root)).map_err(|error| {
        io_error(
            "start the thread that empties",
            config.root.join("trash"),
            error,
        )
    })?;
    let registries = Registries::new(
        config.registry_config_dirs.clone(),
        config.docker_config.clone(),
        config.timeouts,
    );
    let inner = Inner {
        downloads: Semaphore::new(config.max_concurrent_layer_downloads.max(1)),
        config,
        directories,
        registries,
        pulls: Pulls::default(),
        turns: Mutex::new(HashMap::new()),
        db: Mutex::new(db),
        catalog: Mutex::new(Catalog::default()),
        syncer: Syncer::default(),
        trash,
        runtime,
    };
    inner.discard_staged();
    inner.load()?;
    Ok(inner)
}

/// Opens the database. One that cannot be read is set aside: images can be pulled again, and a node
/// that does not start is worse.
fn open_database(root: &Path) -> Result<Db, StoreError> {
    let path = root.join(DATABASE);
    let failed = |source| StoreError::Database {
        operation: "opened",
        path: path.clone(),
        source: Box::new(source),
    };
    let error = match Db::open(&path) {
        Ok(db) => return Ok(db),
        // Its images are whole, and its layers are mounted in containers that run.
        Err(OpenError::Newer { form }) => return Err(StoreError::Newer { path, form }),
        Err(OpenError::Database(error)) => error,
    };
    match error {
        redb::Error::DatabaseAlreadyOpen => Err(StoreError::InUse {
            root: root.to_owned(),
        }),
        // The file is fine, the system is not: setting it aside would lose it for nothing.
        redb::Error::Io(_) if !is_damage(&error) => Err(failed(error)),
        redb::Error::UpgradeRequired(_) => Err(failed(error)),
        error => {
            let aside = root.join(format!("{DATABASE}.damaged"));
            tracing::error!(%error, ?aside, "the image database is damaged; it is set aside, and images must be pulled again");
            std::fs::rename(&path, &aside).map_err(|error| io_error("set aside", &path, error))?;
            Db::open(&path).map_err(|error| match error {
                OpenError::Newer { form } => StoreError::Newer {
                    path: path.clone(),
                    form,
                },
                OpenError::Database(error) => failed(error),
            })
        }
    }
}

/// redb reports a file that is none of its own, or is cut off, as these kinds.
fn is_damage(error: &redb::Error) -> bool {
    matches!(error, redb::Error::Io(error)
        if matches!(error.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof))
}

/// Makes the reserve again once there is space.
fn keep_reserve(root: &Path) {
    let path = root.join(RESERVE);
    if std::fs::metadata(&path).is_ok_and(|metadata| metadata.len() == RESERVE_BYTES)
        || free_bytes(root) < 2 * LOW_BYTES
    {
        return;
    }
    let made = std::fs::File::create(&path).and_then(|file| {
        Ok(rustix::fs::fallocate(
            &file,
            FallocateFlags::empty(),
            0,
            RESERVE_BYTES,
        )?)
    });
    if let Err(error) = made {
        tracing::debug!(%error, ?path, "no reserve for a full disk");
    }
}

fn free_bytes(root: &Path) -> u64 {
    rustix::fs::statvfs(root).map_or(0, |stat| stat.f_bavail * stat.f_frsize)
}

impl Inner {
    /// Gives up the reserve when the disk is nearly full, so that a removal can be recorded.
    pub(super) fn release_reserve(&self) {
        if free_bytes(&self.config.root) < LOW_BYTES
            && let Err(error) = std::fs::remove_file(self.config.root.join(RESERVE))
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "the image store's reserve cannot be given up");
        }
    }

    /// What was being unpacked when the last process ended.
    fn discard_staged(&self) {
        let staging = self.directories.staging.as_fd();
        for (name, _) in super::trash::children(staging).unwrap_or_default() {
            if let Err(error) = self.trash.discard(staging, &name.to_string_lossy()) {
                tracing::warn!(%error, ?name, "a half-unpacked layer cannot be discarded");
            }
        }
    }

    fn load(&self) -> Result<(), StoreError> {
        let mut db = self.db();
        let contents = db.contents().map_err(|source| StoreError::Database {
            operation: "read",
            path: self.config.root.join(DATABASE),
            source: Box::new(source),
        })?;
        let mut change = Change::default();
        let mut catalog = self.catalog();
        for record in contents.layers {
            if self.directories.layers_path.join(&record.dir).is_dir() {
                catalog.put_layer(record.chain_id, Catalog::loaded(record));
            } else {
                tracing::warn!(layer = %record.chain_id, dir = record.dir, "a layer's directory is gone; its record is dropped");
                change.drop_layers.push(record.chain_id);
            }
        }
        change.drop_images.extend(
            contents
                .damaged
                .iter()
                .filter_map(|key| key.parse::<ImageId>().ok()),
        );
        for (record, config_bytes) in contents.images {
            let id = record.id;
            let config = match crate::manifest::parse_config(id.digest(), &config_bytes) {
                Ok(config) if Digest::of(&config_bytes) == id.digest() => config,
                _ => {
                    tracing::warn!(image = %id, "an image's config is damaged; the image is dropped");
                    change.drop_images.push(id);
                    continue;
                }
            };
            match self.image_of(record, config, |chain| {
                catalog.layer(chain).map(|layer| layer.dir.clone())
            }) {
                Ok(image) => catalog.put_image(image),
                Err(layer) => {
                    tracing::warn!(image = %id, %layer, "an image lacks a layer; the image is dropped");
                    change.drop_images.push(id);
                }
            }
        }
        drop(catalog);
        if !(change.drop_images.is_empty() && change.drop_layers.is_empty())
            && let Err(error) = db.commit(&change)
        {
            // They are not in the catalog; the next start drops them again.
            tracing::warn!(%error, "damaged records cannot be dropped from the database now");
        }
        Ok(())
    }
}
