//! Manifests, indexes and image configurations: parsed with bounds, OCI's and Docker's media types.

use oci_spec::image::ImageConfiguration;
use serde::Deserialize;

use crate::digest::Digest;
use crate::platform::Platform;

/// Largest manifest or index, bytes (the distribution specification asks for at least 4 MiB).
pub(crate) const MAX_MANIFEST: u64 = 4 << 20;
/// Largest image configuration, bytes.
pub(crate) const MAX_CONFIG: u64 = 8 << 20;
/// Most entries of an index that are looked at.
const MAX_INDEX_ENTRIES: usize = 4096;
/// Most layers: overlayfs takes no more than 500 lower directories (fs/overlayfs/params.h, `OVL_MAX_STACK`).
const MAX_LAYERS: usize = 500;

/// What we ask a registry for.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json, */*";

/// Why a manifest or configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not the JSON that the specification asks for.
    #[error("{what} {digest} is malformed")]
    Malformed {
        /// "manifest", "index" or "config".
        what: &'static str,
        /// Its digest.
        digest: Digest,
        /// Where and what.
        #[source]
        source: serde_json::Error,
    },
    /// Docker's format of before 2016, which names no digest of what it runs.
    #[error(
        "manifest {digest} is of Docker's schema 1, which is not supported: push the image again with a current tool"
    )]
    Schema1 {
        /// Its digest.
        digest: Digest,
    },
    /// Neither a manifest nor an index.
    #[error("manifest {digest} has media type {media_type:?}, which is no image")]
    MediaType {
        /// Its digest.
        digest: Digest,
        /// The media type found.
        media_type: String,
    },
    /// One document with the fields of two kinds (CVE-2021-41190).
    #[error(
        "manifest {digest} has fields of a manifest and of an index: it could be read in two ways"
    )]
    Ambiguous {
        /// Its digest.
        digest: Digest,
    },
    /// More entries or layers than we take.
    #[error("manifest {digest} has {found} {what}, at most {most} are taken")]
    TooMany {
        /// Its digest.
        digest: Digest,
        /// "entries" or "layers".
        what: &'static str,
        /// How many it has.
        found: usize,
        /// The bound.
        most: usize,
    },
    /// No entry of an index is for this machine.
    #[error("index {digest} has no image for {wanted}; it has: {offered}")]
    NoPlatform {
        /// Its digest.
        digest: Digest,
        /// This machine.
        wanted: String,
        /// What the index offers.
        offered: String,
    },
    /// Indexes that point to indexes, too often.
    #[error("index {digest} lies {depth} indexes deep, deeper than is followed")]
    TooDeep {
        /// The index that is not opened any more.
        digest: Digest,
        /// How deep it lies.
        depth: usize,
    },
    /// A layer of a kind that cannot be unpacked.
    #[error(
        "layer {digest} has media type {media_type:?}: only tar layers, plain or compressed by gzip or zstd, are supported"
    )]
    LayerMediaType {
        /// The layer's digest.
        digest: Digest,
        /// The media type found.
        media_type: String,
    },
    /// The configuration describes another number of layers than the manifest has.
    #[error("config {digest} has {diff_ids} diff ids, but the manifest has {layers} layers")]
    LayerCount {
        /// The configuration's digest.
        digest: Digest,
        /// In the configuration.
        diff_ids: usize,
        /// In the manifest.
        layers: usize,
    },
    /// A diff id of the configuration is no digest.
    #[error("config {digest} has an invalid diff id")]
    DiffId {
        /// The configuration's digest.
        digest: Digest,
        /// What is wrong with it.
        #[source]
        source: crate::digest::DigestError,
    },
    /// A document larger than the bound.
    #[error("{what} {digest} has {size} bytes, at most {most} are taken")]
    TooLarge {
        /// "manifest" or "config".
        what: &'static str,
        /// Its digest.
        digest: Digest,
        /// Its size in bytes, as its descriptor says.
        size: u64,
        /// The bound in bytes.
        most: u64,
    },
}

/// Points to content by digest (OCI image-spec descriptor.md).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) platform: Option<Platform>,
    #[serde(default)]
    pub(crate) annotations: Option<std::collections::HashMap<String, String>>,
}

/// How a layer's tar archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// A layer to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LayerDescriptor {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) compression: Compression,
}

/// An image manifest, checked.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<LayerDescriptor>,
}

/// What a manifest request can answer.
#[derive(Debug)]
pub(crate) enum Document {
    Index(Vec<Descriptor>),
    Manifest(Manifest),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    fs_layers: Option<serde::de::IgnoredAny>,
}

/// Parses an index or manifest; `content_type` counts only when the document does not say its type itself.
pub(crate) fn parse(
    digest: Digest,
    bytes: &[u8],
    content_type: Option<&str>,
) -> Result<Document, ManifestError> {
    let raw: RawDocument =
        serde_json::from_slice(bytes).map_err(|source| ManifestError::Malformed {
            what: "manifest",
            digest,
            source,
        })?;
    let media_type = raw
        .media_type
        .as_deref()
        .or(content_type)
        .unwrap_or_default();
    if raw.fs_layers.is_some()
        || raw.schema_version == 1
        || media_type.contains("manifest.v1+") && media_type.contains("docker")
    {
        return Err(ManifestError::Schema1 { digest });
    }
    let foreign = || ManifestError::MediaType {
        digest,
        media_type: media_type.chars().take(128).collect(),
    };
    match (raw.manifests, raw.config, raw.layers) {
        (Some(_), Some(_), _) | (Some(_), _, Some(_)) => Err(ManifestError::Ambiguous { digest }),
        (Some(_), None, None) if is_manifest_type(media_type) => {
            Err(ManifestError::Ambiguous { digest })
        }
        (Some(entries), None, None) => {
            check_count(digest, "entries", entries.len(), MAX_INDEX_ENTRIES)?;
            Ok(Document::Index(entries))
        }
        (None, Some(_), _) if is_index_type(media_type) => Err(ManifestError::Ambiguous { digest }),
        (None, Some(config), Some(layers)) => {
            check_count(digest, "layers", layers.len(), MAX_LAYERS)?;
            if config.size > MAX_CONFIG {
                return Err(ManifestError::TooLarge {
                    what: "config",
                    digest: config.digest,
                    size: config.size,
                    most: MAX_CONFIG,
                });
            }
            let layers = layers.into_iter().map(layer).collect::<Result<_, _>>()?;
            Ok(Document::Manifest(Manifest { config, layers }))
        }
        _ => Err(foreign()),
    }
}

fn is_index_type(media_type: &str) -> bool {
    media_type.contains("image.index") || media_type.contains("manifest.list")
}

fn is_manifest_type(media_type: &str) -> bool {
    media_type.contains("image.manifest") || media_type.contains("distribution.manifest.v2")
}

fn check_count(
    digest: Digest,
    what: &'static str,
    found: usize,
    most: usize,
) -> Result<(), ManifestError> {
    if found > most {
        Err(ManifestError::TooMany {
            digest,
            what,
            found,
            most,
        })
    } else {
        Ok(())
    }
}

fn layer(descriptor: Descriptor) -> Result<LayerDescriptor, ManifestError> {
    let compression = match descriptor.media_type.as_str() {
        "application/vnd.oci.image.layer.v1.tar"
        | "application/vnd.docker.image.rootfs.diff.tar" => Compression::None,
        "application/vnd.oci.image.layer.v1.tar+gzip"
        | "application/vnd.docker.image.rootfs.diff.tar.gzip" => Compression::Gzip,
        "application/vnd.oci.image.layer.v1.tar+zstd"
        | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Compression::Zstd,
        other => {
            return Err(ManifestError::LayerMediaType {
                digest: descriptor.digest,
                media_type: other.chars().take(128).collect(),
            });
        }
    };
    Ok(LayerDescriptor {
        digest: descriptor.digest,
        size: descriptor.size,
        compression,
    })
}

/// Picks the entry of an index for `host`; without any platform given, the only entry.
pub(crate) fn pick<'a>(
    digest: Digest,
    entries: &'a [Descriptor],
    host: &Platform,
) -> Result<&'a Descriptor, ManifestError> {
    let best = entries
        .iter()
        .filter_map(|entry| Some((host.distance(entry.platform.as_ref()?)?, entry)))
        .min_by_key(|(distance, _)| *distance);
    match (best, entries) {
        (Some((_, entry)), _) => Ok(entry),
        (None, [only]) if only.platform.is_none() => Ok(only),
        // Nested indexes carry no platform: follow the first.
        (None, _) => entries
            .iter()
            .find(|entry| entry.platform.is_none() && is_index_type(&entry.media_type))
            .ok_or_else(|| {
                let offered: Vec<String> = entries
                    .iter()
                    .filter_map(|entry| entry.platform.as_ref())
                    .take(32)
                    .map(Platform::to_string)
                    .collect();
                ManifestError::NoPlatform {
                    digest,
                    wanted: host.to_string(),
                    offered: if offered.is_empty() {
                        "nothing with a platform".to_owned()
                    } else {
                        offered.join(", ")
                    },
                }
            }),
    }
}

/// Parses an image configuration. `null` counts as absent, as Docker writes it for empty fields.
pub(crate) fn parse_config(
    digest: Digest,
    bytes: &[u8],
) -> Result<ImageConfiguration, ManifestError> {
    let malformed = |source| ManifestError::Malformed {
        what: "config",
        digest,
        source,
    };
    let mut value: serde_json::Value = serde_json::from_slice(bytes).map_err(malformed)?;
    drop_nulls(&mut value);
    serde_json::from_value(value).map_err(malformed)
}

/// serde_json nests at most 128 deep, so this recursion is bounded.
fn drop_nulls(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// The configuration's diff ids, as many as the manifest has layers.
pub(crate) fn diff_ids(
    digest: Digest,
    config: &ImageConfiguration,
    layers: usize,
) -> Result<Vec<Digest>, ManifestError> {
    let texts = config.rootfs().diff_ids();
    if texts.len() != layers {
        return Err(ManifestError::LayerCount {
            digest,
            diff_ids: texts.len(),
            layers,
        });
    }
    texts
        .iter()
        .map(|text| {
            text.parse()
                .map_err(|source| ManifestError::DiffId { digest, source })
        })
        .collect()
}
