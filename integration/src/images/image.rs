//! Layers, configuration and manifest put together as blobs, as a registry holds them.

use std::{collections::BTreeMap, io::Write as _};

use anyhow::{Context as _, Result};
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::layer::Layer;

/// `sha256:` and 64 hex digits.
pub fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().fold(String::from("sha256:"), |text, byte| {
        text + &format!("{byte:02x}")
    })
}

/// How a layer is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    Plain,
    /// gzip, RFC 1952.
    Gzip,
    /// Zstandard, RFC 8878. The Docker vocabulary has no name for it.
    Zstd,
}

/// Which names for media types a manifest uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vocabulary {
    /// The OCI image specification's.
    Oci,
    /// Docker's image manifest, version 2, schema 2.
    Docker,
}

impl Vocabulary {
    const fn manifest(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.manifest.v1+json",
            Self::Docker => "application/vnd.docker.distribution.manifest.v2+json",
        }
    }

    const fn index(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.index.v1+json",
            Self::Docker => "application/vnd.docker.distribution.manifest.list.v2+json",
        }
    }

    const fn config(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.config.v1+json",
            Self::Docker => "application/vnd.docker.container.image.v1+json",
        }
    }

    const fn layer(self, compression: Compression) -> &'static str {
        match (self, compression) {
            (Self::Oci, Compression::Plain) => "application/vnd.oci.image.layer.v1.tar",
            (Self::Oci, Compression::Gzip) => "application/vnd.oci.image.layer.v1.tar+gzip",
            (_, Compression::Zstd) => "application/vnd.oci.image.layer.v1.tar+zstd",
            (Self::Docker, Compression::Plain) => "application/vnd.docker.image.rootfs.diff.tar",
            (Self::Docker, Compression::Gzip) => {
                "application/vnd.docker.image.rootfs.diff.tar.gzip"
            }
        }
    }
}

/// A blob by media type, digest and size in bytes, as manifests name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The format of the content.
    pub media_type: String,
    /// `sha256:…` of the content.
    pub digest: String,
    /// The content's length.
    pub size: u64,
}

/// An image or an index of images: a top descriptor and all blobs below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The manifest or index.
    pub top: Descriptor,
    /// The content by digest.
    pub blobs: BTreeMap<String, Vec<u8>>,
}

impl Image {
    /// Packs `layers`, lowest first, with `config`, the object of that name in the image
    /// configuration (`Cmd`, `Env`, `User` …).
    pub fn new(
        vocabulary: Vocabulary,
        layers: &[(Layer, Compression)],
        config: &Value,
    ) -> Result<Self> {
        Self::for_architecture(architecture(), vocabulary, layers, config)
    }

    /// An image for another machine than this; the content is what the caller gives.
    pub fn for_architecture(
        architecture: &str,
        vocabulary: Vocabulary,
        layers: &[(Layer, Compression)],
        config: &Value,
    ) -> Result<Self> {
        let mut blobs = BTreeMap::new();
        let (mut descriptors, mut diff_ids) = (Vec::new(), Vec::new());
        for (layer, compression) in layers {
            let tar = layer.tar();
            diff_ids.push(sha256(&tar));
            let packed = compress(&tar, *compression)?;
            descriptors.push(add(&mut blobs, vocabulary.layer(*compression), packed));
        }
        let config = json!({
            "created": "1970-01-01T00:00:00Z",
            "architecture": architecture,
            "os": "linux",
            "config": config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = add(
            &mut blobs,
            vocabulary.config(),
            config.to_string().into_bytes(),
        );
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": vocabulary.manifest(),
            "config": config,
            "layers": descriptors,
        });
        let top = add(
            &mut blobs,
            vocabulary.manifest(),
            manifest.to_string().into_bytes(),
        );
        Ok(Self { top, blobs })
    }

    /// An index that offers each image for its architecture.
    pub fn index(vocabulary: Vocabulary, images: &[(&str, &Image)]) -> Self {
        let mut blobs = BTreeMap::new();
        let mut manifests = Vec::new();
        for (architecture, image) in images {
            blobs.extend(image.blobs.clone());
            manifests.push(json!({
                "mediaType": image.top.media_type,
                "digest": image.top.digest,
                "size": image.top.size,
                "platform": { "architecture": architecture, "os": "linux" },
            }));
        }
        let index = json!({
            "schemaVersion": 2,
            "mediaType": vocabulary.index(),
            "manifests": manifests,
        });
        let top = add(
            &mut blobs,
            vocabulary.index(),
            index.to_string().into_bytes(),
        );
        Self { top, blobs }
    }

    /// The digest by which the image can be pulled.
    pub fn digest(&self) -> &str {
        &self.top.digest
    }
}

/// This machine's architecture as images name it (Go's names).
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn add(blobs: &mut BTreeMap<String, Vec<u8>>, media_type: &str, content: Vec<u8>) -> Descriptor {
    let (digest, size) = (sha256(&content), content.len() as u64);
    blobs.insert(digest.clone(), content);
    Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size,
    }
}

fn compress(tar: &[u8], compression: Compression) -> Result<Vec<u8>> {
    let pack = || match compression {
        Compression::Plain => Ok(tar.to_vec()),
        Compression::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(tar).and_then(|()| encoder.finish())
        }
        Compression::Zstd => zstd::encode_all(tar, zstd::DEFAULT_COMPRESSION_LEVEL),
    };
    pack().with_context(|| format!("compressing a layer ({compression:?})"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::images::Entry;

    #[test]
    fn every_descriptor_leads_to_its_blob() {
        let layer = Layer::new([Entry::file("a", 0o644, "content")]);
        for (vocabulary, compression) in [
            (Vocabulary::Oci, Compression::Plain),
            (Vocabulary::Oci, Compression::Zstd),
            (Vocabulary::Docker, Compression::Gzip),
        ] {
            let image =
                Image::new(vocabulary, &[(layer.clone(), compression)], &json!({})).unwrap();
            let index = Image::index(vocabulary, &[("amd64", &image)]);
            for (digest, content) in &index.blobs {
                assert_eq!(*digest, sha256(content));
            }
            let manifest: Value = serde_json::from_slice(&index.blobs[image.digest()]).unwrap();
            let named = &manifest["layers"][0];
            let packed = &index.blobs[named["digest"].as_str().unwrap()];
            assert_eq!(named["size"], packed.len());
            let config = &index.blobs[manifest["config"]["digest"].as_str().unwrap()];
            let config: Value = serde_json::from_slice(config).unwrap();
            assert_eq!(config["rootfs"]["diff_ids"][0], sha256(&layer.tar()));
        }
    }
}
