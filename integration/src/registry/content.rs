//! What a registry holds: names with tags, and blobs.

use std::{collections::BTreeMap, fs, io};

use anyhow::{Context as _, Result};
use bytes::Bytes;

use crate::images::{Descriptor, Image, Store};

/// Images by full reference, and all content by digest. Every repository sees every blob.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// By repository with its host (`registry.k8s.io/pause`), then by tag.
    tags: BTreeMap<String, BTreeMap<String, Descriptor>>,
    manifests: BTreeMap<String, Descriptor>,
    blobs: BTreeMap<String, Bytes>,
    store: Option<Store>,
}

impl Content {
    pub(super) fn add_store(&mut self, store: Store) {
        for (reference, top) in store.images() {
            self.tag(reference, top);
        }
        self.store = Some(store);
    }

    pub(super) fn add(&mut self, reference: &str, image: &Image) -> Result<()> {
        for (digest, content) in &image.blobs {
            self.blobs.insert(digest.clone(), content.clone().into());
        }
        split_tag(reference).with_context(|| format!("{reference:?} has no tag"))?;
        self.tag(reference, &image.top);
        Ok(())
    }

    fn tag(&mut self, reference: &str, top: &Descriptor) {
        if let Some((repository, tag)) = split_tag(reference) {
            self.manifests.insert(top.digest.clone(), top.clone());
            let tags = self.tags.entry(repository.to_owned()).or_default();
            tags.insert(tag.to_owned(), top.clone());
        }
    }

    /// The media type and digest of a manifest by tag or digest.
    pub(super) fn manifest(
        &self,
        namespace: Option<&str>,
        name: &str,
        reference: &str,
    ) -> Option<(String, String)> {
        if reference.starts_with("sha256:") {
            let known = self
                .manifests
                .get(reference)
                .map(|top| top.media_type.clone());
            // A manifest below an index tells its own media type.
            let media_type = known.or_else(|| media_type_within(&self.blob(reference).ok()??))?;
            return Some((media_type, reference.to_owned()));
        }
        let top = self.repository(namespace, name)?.get(reference)?;
        Some((top.media_type.clone(), top.digest.clone()))
    }

    fn repository(
        &self,
        namespace: Option<&str>,
        name: &str,
    ) -> Option<&BTreeMap<String, Descriptor>> {
        if let Some(namespace) = namespace {
            return self.tags.get(&format!("{namespace}/{name}"));
        }
        let ends_so = |full: &str| full.split_once('/').is_some_and(|(_, path)| path == name);
        self.tags.get(name).or_else(|| {
            self.tags
                .iter()
                .find(|(full, _)| ends_so(full))
                .map(|(_, tags)| tags)
        })
    }

    /// A blob's content, read from the store where it is large.
    pub(super) fn blob(&self, digest: &str) -> io::Result<Option<Bytes>> {
        if let Some(content) = self.blobs.get(digest) {
            return Ok(Some(content.clone()));
        }
        match self.store.as_ref().and_then(|store| store.blob(digest)) {
            Some(path) => Ok(Some(fs::read(path)?.into())),
            None => Ok(None),
        }
    }
}

/// The colon of a port is no tag's.
fn split_tag(reference: &str) -> Option<(&str, &str)> {
    reference
        .rsplit_once(':')
        .filter(|(_, tag)| !tag.contains('/'))
}

fn media_type_within(manifest: &[u8]) -> Option<String> {
    let manifest: serde_json::Value = serde_json::from_slice(manifest).ok()?;
    manifest["mediaType"].as_str().map(str::to_owned)
}
