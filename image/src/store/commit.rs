//! Images come and go.

use std::sync::Arc;

use oci_spec::image::ImageConfiguration;

use super::Inner;
use super::db::{Change, Documents, ImageRecord};
use super::error::StoreError;
use super::image::{Image, Layer};
use crate::digest::{ChainId, Digest, ImageId};
use crate::reference::{Reference, Target};

/// A pulled image whose layers are all in the store and leased.
#[derive(Debug)]
pub(crate) struct NewImage {
    pub(crate) id: ImageId,
    pub(crate) manifest_digest: Digest,
    /// Of the index, when there was one.
    pub(crate) pulled_digest: Digest,
    pub(crate) size: u64,
    pub(crate) diff_ids: Vec<Digest>,
    pub(crate) config: ImageConfiguration,
    pub(crate) config_bytes: Vec<u8>,
    pub(crate) manifest_bytes: Vec<u8>,
}

impl Inner {
    /// Names an image as pulled by `reference`. A tag that another image had moves to this one.
    pub(crate) fn commit_image(
        &self,
        new: NewImage,
        reference: &Reference,
    ) -> Result<ImageId, StoreError> {
        let mut db = self.db();
        let id = new.id;
        let (old, loser) = {
            let catalog = self.catalog();
            let loser = catalog
                .by_name(&reference.to_string())
                .filter(|image| image.id != id)
                .cloned();
            (catalog.image(id).cloned(), loser)
        };
        let mut record = ImageRecord {
            id,
            manifest_digest: new.manifest_digest,
            size: new.size,
            repo_tags: old
                .as_ref()
                .map(|image| image.repo_tags.clone())
                .unwrap_or_default(),
            repo_digests: old
                .as_ref()
                .map(|image| image.repo_digests.clone())
                .unwrap_or_default(),
            diff_ids: new.diff_ids,
        };
        let repo_digest = format!("{}@{}", reference.name(), new.pulled_digest);
        add(&mut record.repo_digests, repo_digest.clone());
        if let Target::Tag(_) = reference.target() {
            add(&mut record.repo_tags, reference.to_string());
        }
        let mut put_images = vec![record.clone()];
        let mut loser_image = None;
        if let Some(loser) = loser {
            let mut changed = Image::clone(&loser);
            changed
                .repo_tags
                .retain(|tag| *tag != reference.to_string());
            changed.repo_digests.retain(|name| *name != repo_digest);
            changed.pinned = self.is_pinned(&changed.repo_tags);
            put_images.push(record_of(&changed));
            loser_image = Some(changed);
        }
        let documents = Documents {
            id,
            config: new.config_bytes,
            manifest: new.manifest_bytes,
        };
        db.commit(&Change {
            put_images,
            documents: Some(documents),
            ..Change::default()
        })?;
        let mut catalog = self.catalog();
        if let Some(image) = loser_image {
            catalog.put_image(image);
        }
        let image = self.image_of(record, new.config, |chain| {
            catalog.layer(chain).map(|layer| layer.dir.clone())
        });
        match image {
            Ok(image) => catalog.put_image(image),
            // The pull's leases keep them, so this cannot be; if it is, the image must not be listed.
            Err(chain) => return Err(StoreError::LayerGone { image: id, chain }),
        }
        Ok(id)
    }

    /// Builds an image; `Err` names a layer that is not there.
    pub(super) fn image_of(
        &self,
        record: ImageRecord,
        config: ImageConfiguration,
        dir: impl Fn(ChainId) -> Option<String>,
    ) -> Result<Image, ChainId> {
        let chains = ChainId::stack(&record.diff_ids);
        let layers = chains.into_iter().zip(record.diff_ids);
        let layers = layers
            .map(|(chain_id, diff_id)| {
                Ok(Layer {
                    chain_id,
                    diff_id,
                    dir: dir(chain_id).ok_or(chain_id)?,
                })
            })
            .collect::<Result<_, ChainId>>()?;
        Ok(Image {
            id: record.id,
            pinned: self.is_pinned(&record.repo_tags),
            repo_tags: record.repo_tags,
            repo_digests: record.repo_digests,
            size: record.size,
            config: Arc::new(config),
            layers,
            manifest_digest: record.manifest_digest,
        })
    }

    fn is_pinned(&self, tags: &[String]) -> bool {
        tags.iter().any(|tag| self.config.pinned.contains(tag))
    }

    pub(super) fn remove_image(self: &Arc<Inner>, id: ImageId) -> Result<(), StoreError> {
        let mut db = self.db();
        let (image, idle) = {
            let mut catalog = self.catalog();
            let Some(image) = catalog.take_image(id) else {
                return Ok(());
            };
            (image, catalog.take_idle_layers())
        };
        self.release_reserve();
        let drop_layers = idle.iter().map(|(chain, _)| *chain).collect();
        let result = db.commit(&Change {
            drop_images: vec![id],
            drop_layers,
            ..Change::default()
        });
        if let Err(error) = result {
            let mut catalog = self.catalog();
            idle.into_iter()
                .for_each(|(chain, entry)| catalog.put_layer(chain, entry));
            catalog.put_image(Image::clone(&image));
            return Err(error);
        }
        self.discard_layers(
            idle.into_iter()
                .filter_map(|(_, entry)| Some(entry.record?.dir)),
        );
        Ok(())
    }
}

fn record_of(image: &Image) -> ImageRecord {
    ImageRecord {
        id: image.id,
        manifest_digest: image.manifest_digest,
        size: image.size,
        repo_tags: image.repo_tags.clone(),
        repo_digests: image.repo_digests.clone(),
        diff_ids: image.layers.iter().map(|layer| layer.diff_id).collect(),
    }
}

fn add(names: &mut Vec<String>, name: String) {
    if !names.contains(&name) {
        names.push(name);
    }
}
