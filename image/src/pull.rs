//! Pulling: manifest → config → layers in parallel → commit.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared, join_all};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::credentials::Credentials;
use crate::digest::{ChainId, Digest, ImageId};
use crate::import::Layout;
use crate::manifest::{self, Document, LayerDescriptor, Manifest, ManifestError};
use crate::platform::Platform;
use crate::reference::{Reference, ReferenceError, Target};
use crate::registry::{RegistryError, Repository};
use crate::store::{ImageStore, Inner, Lease, NewImage, StoreError};
use crate::unpack::{Expected, Pipe, UnpackError};

/// Indexes opened one inside the other.
const MAX_INDEX_DEPTH: usize = 3;
/// Pieces of a body that wait for the unpacker: with hyper's buffer, a few MiB for each layer.
const PIPE_PIECES: usize = 16;

/// Why an image cannot be pulled or imported.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The name is no reference.
    #[error(transparent)]
    Reference(ReferenceError),
    /// No host of the registry gave it.
    #[error(transparent)]
    Registry(RegistryError),
    /// The OCI layout cannot be used.
    #[error(transparent)]
    Layout(crate::import::LayoutError),
    /// The manifest or configuration cannot be used.
    #[error("image {reference} cannot be used")]
    Manifest {
        /// What was pulled.
        reference: String,
        /// Which document, and why.
        #[source]
        source: ManifestError,
    },
    /// A layer cannot be unpacked.
    #[error("layer {digest} cannot be unpacked into {store:?}")]
    Layer {
        /// The compressed layer's digest.
        digest: Digest,
        /// The image store's directory.
        store: Box<Path>,
        /// Why.
        #[source]
        source: UnpackError,
    },
    /// The store failed.
    #[error(transparent)]
    Store(StoreError),
    /// Another layer of the image failed first, or the runtime is shutting down.
    #[error("the pull was cancelled")]
    Cancelled,
}

/// What kind of failure it is, for the caller's own codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullErrorKind {
    /// The name is wrong.
    InvalidReference,
    /// There is no such image.
    NotFound,
    /// The registry wants other credentials.
    Unauthorized,
    /// The registry cannot be reached or does not work; later it may.
    Unavailable,
    /// The image itself is broken or hostile, or not for this machine.
    BadImage,
    /// The disk is full.
    NoSpace,
    /// Something here is wrong: configuration, disk, shutdown.
    Internal,
}

impl PullError {
    /// What kind of failure it is.
    pub fn kind(&self) -> PullErrorKind {
        match self {
            PullError::Reference(_) => PullErrorKind::InvalidReference,
            PullError::Registry(RegistryError::Failed { failures, .. }) => {
                if failures.iter().any(|(_, error)| error.is_unauthorized()) {
                    PullErrorKind::Unauthorized
                } else if !failures.is_empty()
                    && failures.iter().all(|(_, error)| error.is_not_found())
                {
                    PullErrorKind::NotFound
                } else {
                    PullErrorKind::Unavailable
                }
            }
            PullError::Manifest { .. } | PullError::Layout(_) => PullErrorKind::BadImage,
            PullError::Layer { source, .. } if source.is_no_space() => PullErrorKind::NoSpace,
            PullError::Layer {
                source: UnpackError::Io { .. },
                ..
            } => PullErrorKind::Internal,
            PullError::Layer { .. } => PullErrorKind::BadImage,
            PullError::Store(error) if error.is_no_space() => PullErrorKind::NoSpace,
            PullError::Registry(_) | PullError::Store(_) | PullError::Cancelled => {
                PullErrorKind::Internal
            }
        }
    }
}

type PullResult = Result<ImageId, Arc<PullError>>;
type SharedPull = Shared<BoxFuture<'static, PullResult>>;
type PullKey = (Reference, Option<Credentials>);

/// The pulls under way, so that another one of the same can join. The map holds no pull alive: when the
/// last caller goes away, so does the pull.
#[derive(Default)]
pub(crate) struct Pulls {
    under_way: Mutex<HashMap<PullKey, WeakShared<BoxFuture<'static, PullResult>>>>,
}

impl Pulls {
    fn join_or_start(
        &self,
        key: PullKey,
        start: impl FnOnce() -> BoxFuture<'static, PullResult>,
    ) -> SharedPull {
        let mut under_way = self
            .under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        under_way.retain(|_, pull| pull.upgrade().is_some_and(|pull| pull.peek().is_none()));
        if let Some(pull) = under_way.get(&key).and_then(WeakShared::upgrade) {
            return pull;
        }
        let pull = start().shared();
        if let Some(weak) = pull.downgrade() {
            under_way.insert(key, weak);
        }
        pull
    }
}

impl ImageStore {
    /// Pulls an image by tag or digest. A pull of the same reference with the same credentials that is
    /// under way is joined. Dropping the future is safe: the pull ends when nobody waits for it.
    pub async fn pull(&self, reference: &str, credentials: Option<Credentials>) -> PullResult {
        let reference: Reference = reference
            .parse()
            .map_err(|error| Arc::new(PullError::Reference(error)))?;
        let pull = self
            .inner
            .pulls
            .join_or_start((reference.clone(), credentials.clone()), || {
                let inner = Arc::clone(&self.inner);
                async move {
                    let repository = inner
                        .registries
                        .repository(&reference, credentials.as_ref());
                    let source = Source::Registry(repository.map_err(PullError::Registry)?);
                    Pull {
                        inner: &inner,
                        source,
                        reference: &reference,
                    }
                    .run(reference.target())
                    .await
                }
                .map(|result| result.map_err(Arc::new))
                .boxed()
            });
        pull.await
    }

    /// Imports an image of an OCI image layout directory (OCI image-spec image-layout.md) under the name
    /// `reference`: the one that the layout's index gives that name, or the one for this machine.
    pub async fn import_oci_layout(&self, layout: &Path, reference: &str) -> PullResult {
        let imported = async {
            let reference: Reference = reference.parse().map_err(PullError::Reference)?;
            let layout = Layout::open(layout, &reference).map_err(PullError::Layout)?;
            let target = Target::Digest(layout.target());
            let source = Source::Layout(layout);
            Pull {
                inner: &self.inner,
                source,
                reference: &reference,
            }
            .run(&target)
            .await
        };
        imported.await.map_err(Arc::new)
    }
}

/// Where an image comes from.
enum Source {
    Registry(Repository),
    Layout(Layout),
}

struct Fetched {
    digest: Digest,
    content_type: Option<String>,
    bytes: Vec<u8>,
}

impl Source {
    async fn manifest(&self, target: &Target) -> Result<Fetched, PullError> {
        match (self, target) {
            (Source::Registry(repository), _) => {
                let fetched = repository
                    .manifest(target)
                    .await
                    .map_err(PullError::Registry)?;
                Ok(Fetched {
                    digest: fetched.digest,
                    content_type: fetched.content_type,
                    bytes: fetched.bytes,
                })
            }
            (Source::Layout(layout), Target::Digest(digest)) => {
                let bytes = layout
                    .blob(*digest, manifest::MAX_MANIFEST)
                    .map_err(PullError::Layout)?;
                Ok(Fetched {
                    digest: *digest,
                    content_type: None,
                    bytes,
                })
            }
            (Source::Layout(_), Target::Tag(_)) => Err(PullError::Cancelled),
        }
    }

    async fn blob(&self, digest: Digest, size: u64) -> Result<Vec<u8>, PullError> {
        match self {
            Source::Registry(repository) => repository
                .blob(digest, size)
                .await
                .map_err(PullError::Registry),
            Source::Layout(layout) => layout.blob(digest, size).map_err(PullError::Layout),
        }
    }

    async fn stream(
        &self,
        layer: &LayerDescriptor,
        sink: &mpsc::Sender<bytes::Bytes>,
    ) -> Result<(), PullError> {
        match self {
            Source::Registry(repository) => repository
                .stream_blob(layer.digest, layer.size, sink)
                .await
                .map_err(PullError::Registry),
            Source::Layout(layout) => layout
                .stream_blob(layer.digest, sink)
                .await
                .map_err(PullError::Layout),
        }
    }
}

/// One pull.
struct Pull<'a> {
    inner: &'a Arc<Inner>,
    source: Source,
    reference: &'a Reference,
}

impl Pull<'_> {
    async fn run(&self, target: &Target) -> Result<ImageId, PullError> {
        let began = std::time::Instant::now();
        let (pulled_digest, fetched, manifest) = self.find_manifest(target).await?;
        let config_bytes = self
            .source
            .blob(manifest.config.digest, manifest.config.size)
            .await?;
        let config_digest = manifest.config.digest;
        let config = manifest::parse_config(config_digest, &config_bytes)
            .map_err(|source| self.bad(source))?;
        let diff_ids = manifest::diff_ids(config_digest, &config, manifest.layers.len())
            .map_err(|source| self.bad(source))?;
        // They keep the layers until the image is committed.
        let _leases = self.layers(&manifest.layers, &diff_ids).await?;
        let layers: u64 = manifest
            .layers
            .iter()
            .map(|layer| layer.size)
            .fold(0, u64::saturating_add);
        let new = NewImage {
            id: ImageId::from(config_digest),
            manifest_digest: fetched.digest,
            pulled_digest,
            size: layers.saturating_add((config_bytes.len() + fetched.bytes.len()) as u64),
            diff_ids,
            config,
            config_bytes,
            manifest_bytes: fetched.bytes,
        };
        let inner = Arc::clone(self.inner);
        let reference = self.reference.clone();
        let committed =
            tokio::task::spawn_blocking(move || inner.commit_image(new, &reference)).await;
        let id = committed
            .map_err(|_| PullError::Cancelled)?
            .map_err(PullError::Store)?;
        tracing::info!(reference = %self.reference, image = %id, layers = manifest.layers.len(), elapsed = ?began.elapsed(), "image pulled");
        Ok(id)
    }

    fn bad(&self, source: ManifestError) -> PullError {
        PullError::Manifest {
            reference: self.reference.to_string(),
            source,
        }
    }

    /// Follows indexes to the manifest for this machine; also returns the digest that was pulled first.
    async fn find_manifest(
        &self,
        target: &Target,
    ) -> Result<(Digest, Fetched, Manifest), PullError> {
        let host = Platform::host();
        let mut fetched = self.source.manifest(target).await?;
        let pulled = fetched.digest;
        for _ in 0..=MAX_INDEX_DEPTH {
            let document = manifest::parse(
                fetched.digest,
                &fetched.bytes,
                fetched.content_type.as_deref(),
            );
            match document.map_err(|source| self.bad(source))? {
                Document::Manifest(manifest) => return Ok((pulled, fetched, manifest)),
                Document::Index(entries) => {
                    let entry = manifest::pick(fetched.digest, &entries, &host)
                        .map_err(|source| self.bad(source))?;
                    fetched = self.source.manifest(&Target::Digest(entry.digest)).await?;
                }
            }
        }
        Err(self.bad(ManifestError::TooDeep {
            digest: fetched.digest,
            depth: MAX_INDEX_DEPTH + 1,
        }))
    }

    /// All layers at once, as many as the store's limit lets through. The first failure ends the others;
    /// when this returns, none is left that writes.
    async fn layers(
        &self,
        layers: &[LayerDescriptor],
        diff_ids: &[Digest],
    ) -> Result<Vec<Lease>, PullError> {
        let cancelled = CancellationToken::new();
        let chains = ChainId::stack(diff_ids);
        let each = layers
            .iter()
            .zip(diff_ids)
            .zip(chains)
            .map(|((layer, diff_id), chain)| {
                let cancelled = &cancelled;
                async move {
                    let result = self.layer(layer, *diff_id, chain, cancelled).await;
                    if result.is_err() {
                        cancelled.cancel();
                    }
                    result
                }
            });
        let mut leases = Vec::with_capacity(layers.len());
        let mut failure = None;
        for result in join_all(each).await {
            match (result, &failure) {
                (Ok(lease), _) => leases.push(lease),
                (Err(error), None | Some(PullError::Cancelled)) => failure = Some(error),
                (Err(_), Some(_)) => {}
            }
        }
        failure.map_or(Ok(leases), Err)
    }

    async fn layer(
        &self,
        layer: &LayerDescriptor,
        diff_id: Digest,
        chain: ChainId,
        cancelled: &CancellationToken,
    ) -> Result<Lease, PullError> {
        if let Some(lease) = self.inner.lease_layer(chain) {
            return Ok(lease);
        }
        let turns = async {
            let turn = self.inner.turn(chain).await;
            (turn, self.inner.downloads.acquire().await)
        };
        let Some((_turn, permit)) = cancelled.run_until_cancelled(turns).await else {
            return Err(PullError::Cancelled);
        };
        let _permit = permit.map_err(|_| PullError::Cancelled)?;
        // Another pull may have brought it while we waited.
        if let Some(lease) = self.inner.lease_layer(chain) {
            return Ok(lease);
        }
        let expected = Expected {
            digest: layer.digest,
            size: layer.size,
            diff_id,
            compression: layer.compression,
        };
        let (sender, receiver) = mpsc::channel(PIPE_PIECES);
        let inner = Arc::clone(self.inner);
        let unpacking = tokio::task::spawn_blocking(move || {
            inner.add_layer(Pipe::new(receiver), &expected, chain)
        });
        let downloaded = cancelled
            .run_until_cancelled(self.source.stream(layer, &sender))
            .await;
        // The unpacker sees the end of the stream, whether it is the layer's or not.
        drop(sender);
        let unpacked = unpacking.await.map_err(|_| PullError::Cancelled)?;
        match (downloaded, unpacked) {
            (_, Ok(lease)) => Ok(lease),
            (None, Err(_)) => Err(PullError::Cancelled),
            (Some(Err(error)), Err(_)) => Err(error),
            (Some(Ok(())), Err(error)) => Err(error),
        }
    }
}
