//! What there is, in memory: every question is answered from here.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::db::LayerRecord;
use super::image::Image;
use crate::digest::{ChainId, Digest, ImageId};
use crate::reference::{Reference, Target};
use crate::unpack::Usage;

/// Whether layers that nobody needs may be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Reclaiming {
    /// Containers of before may still be found.
    #[default]
    Held,
    Free,
}

/// A layer on disk.
#[derive(Debug, Clone)]
pub(super) struct LayerEntry {
    /// `None` for a layer that only a container's record knows.
    pub(super) record: Option<LayerRecord>,
    /// Leases that hold it.
    pins: usize,
    /// Images that it is part of.
    images: usize,
}

/// Images by id and name, layers by chain id.
#[derive(Default)]
pub(super) struct Catalog {
    images: BTreeMap<ImageId, Arc<Image>>,
    /// `name:tag` and `name@digest`.
    names: HashMap<String, ImageId>,
    layers: HashMap<ChainId, LayerEntry>,
    reclaiming: Reclaiming,
}

impl Catalog {
    pub(super) fn images(&self) -> impl Iterator<Item = &Arc<Image>> {
        self.images.values()
    }

    pub(super) fn image(&self, id: ImageId) -> Option<&Arc<Image>> {
        self.images.get(&id)
    }

    pub(super) fn by_name(&self, name: &str) -> Option<&Arc<Image>> {
        self.images.get(self.names.get(name)?)
    }

    /// As containerd's CRI: a digest is an id; then names; then the unique beginning of an id.
    pub(super) fn resolve(&self, text: &str) -> Option<Arc<Image>> {
        if let Ok(id) = text.parse::<Digest>() {
            return self.images.get(&ImageId::from(id)).cloned();
        }
        if let Ok(reference) = text.parse::<Reference>()
            && let Some(image) = self.by_reference(&reference)
        {
            return Some(image);
        }
        let prefix = text.strip_prefix("sha256:").unwrap_or(text);
        if prefix.is_empty() || !prefix.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let mut matching = self
            .images
            .iter()
            .filter(|(id, _)| id.digest().hex().starts_with(prefix));
        match (matching.next(), matching.next()) {
            (Some((_, image)), None) => Some(Arc::clone(image)),
            _ => None,
        }
    }

    fn by_reference(&self, reference: &Reference) -> Option<Arc<Image>> {
        if let Some(image) = self.by_name(&reference.to_string()) {
            return Some(Arc::clone(image));
        }
        // An index and the manifest picked from it both name the image.
        let Target::Digest(digest) = reference.target() else {
            return None;
        };
        let prefix = format!("{}@", reference.name());
        let named = |image: &&Arc<Image>| {
            image
                .repo_digests
                .iter()
                .any(|name| name.starts_with(&prefix))
        };
        self.images
            .values()
            .filter(|image| image.manifest_digest == *digest)
            .find(named)
            .cloned()
    }

    /// Adds or replaces an image; its layers must be here.
    pub(super) fn put_image(&mut self, image: Image) {
        let old = self.take_image(image.id);
        drop(old);
        for name in image.repo_tags.iter().chain(&image.repo_digests) {
            self.names.insert(name.clone(), image.id);
        }
        for layer in &image.layers {
            if let Some(entry) = self.layers.get_mut(&layer.chain_id) {
                entry.images += 1;
            }
        }
        self.images.insert(image.id, Arc::new(image));
    }

    pub(super) fn take_image(&mut self, id: ImageId) -> Option<Arc<Image>> {
        let image = self.images.remove(&id)?;
        self.names.retain(|_, named| *named != id);
        for layer in &image.layers {
            if let Some(entry) = self.layers.get_mut(&layer.chain_id) {
                entry.images = entry.images.saturating_sub(1);
            }
        }
        Some(image)
    }

    pub(super) fn layer(&self, chain: ChainId) -> Option<&LayerRecord> {
        self.layers.get(&chain)?.record.as_ref()
    }

    /// Enters a layer, with one pin more.
    pub(super) fn put_layer_pinned(&mut self, record: LayerRecord) {
        let chain = record.chain_id;
        let entry = self.layers.entry(chain).or_insert(LayerEntry {
            record: None,
            pins: 0,
            images: 0,
        });
        entry.record = Some(record);
        entry.pins += 1;
    }

    /// Enters a layer as it was taken out, or as the database has it.
    pub(super) fn put_layer(&mut self, chain: ChainId, entry: LayerEntry) {
        self.layers.insert(chain, entry);
    }

    pub(super) fn loaded(record: LayerRecord) -> LayerEntry {
        LayerEntry {
            record: Some(record),
            pins: 0,
            images: 0,
        }
    }

    /// Pins a layer that the database knows.
    pub(super) fn pin(&mut self, chain: ChainId) -> bool {
        match self.layers.get_mut(&chain) {
            Some(entry) if entry.record.is_some() => {
                entry.pins += 1;
                true
            }
            _ => false,
        }
    }

    /// Pins a layer whose directory is there though the database does not know it.
    pub(super) fn adopt(&mut self, chain: ChainId) -> bool {
        let entry = self.layers.entry(chain).or_insert(LayerEntry {
            record: None,
            pins: 0,
            images: 0,
        });
        entry.pins += 1;
        true
    }

    /// Whether only a container's record knows the layer.
    pub(super) fn is_adopted(&self, chain: ChainId) -> bool {
        self.layers
            .get(&chain)
            .is_some_and(|entry| entry.record.is_none())
    }

    /// Takes one pin from each; true when one of them is needed by nobody now and may be reclaimed.
    pub(super) fn unpin(&mut self, chains: &[ChainId]) -> bool {
        let mut idle = false;
        for chain in chains {
            if let Some(entry) = self.layers.get_mut(chain) {
                entry.pins = entry.pins.saturating_sub(1);
                idle |= entry.pins == 0 && entry.images == 0;
            }
        }
        idle && self.reclaiming == Reclaiming::Free
    }

    pub(super) fn free_reclaiming(&mut self) {
        self.reclaiming = Reclaiming::Free;
    }

    /// Takes out all layers that nobody needs, when that is allowed.
    pub(super) fn take_idle_layers(&mut self) -> Vec<(ChainId, LayerEntry)> {
        if self.reclaiming == Reclaiming::Held {
            return Vec::new();
        }
        self.layers
            .extract_if(|_, entry| entry.pins == 0 && entry.images == 0)
            .collect()
    }

    /// The directories of all layers known, those of containers' records too.
    pub(super) fn directories(&self) -> HashSet<String> {
        self.layers
            .iter()
            .map(|(chain, entry)| match &entry.record {
                Some(record) => record.dir.clone(),
                None => super::layers::short_name(*chain),
            })
            .collect()
    }

    pub(super) fn usage(&self) -> Usage {
        let records = self
            .layers
            .values()
            .filter_map(|entry| entry.record.as_ref());
        records.fold(Usage::default(), |sum, record| Usage {
            bytes: sum.bytes + record.usage.bytes,
            inodes: sum.inodes + record.usage.inodes,
        })
    }
}
