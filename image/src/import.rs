//! OCI image layouts on disk (OCI image-spec image-layout.md).

use std::io::Read as _;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;

use crate::digest::Digest;
use crate::manifest::{self, Descriptor, Document, ManifestError};
use crate::platform::Platform;
use crate::reference::{Reference, Target};

/// Bytes read at a time.
const CHUNK: usize = 256 << 10;

/// Why an OCI layout cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// A file cannot be read.
    #[error("cannot read {path:?} of the OCI layout")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The layout's index cannot be used.
    #[error("the OCI layout {path:?} has no usable index.json")]
    Index {
        /// The layout's directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: ManifestError,
    },
    /// index.json is a manifest itself.
    #[error("index.json of the OCI layout {path:?} is no index")]
    NoIndex {
        /// The layout's directory.
        path: PathBuf,
    },
    /// A blob that is not what its name says, or is larger than its descriptor.
    #[error("blob {digest} of the OCI layout is damaged: {problem}")]
    Blob {
        /// Its digest.
        digest: Digest,
        /// What is wrong.
        problem: &'static str,
    },
}

/// An open layout and the image chosen in it.
pub(crate) struct Layout {
    root: PathBuf,
    target: Digest,
}

impl Layout {
    /// Chooses the image that the index names as `reference`, or else the one for this machine.
    pub(crate) fn open(root: &Path, reference: &Reference) -> Result<Layout, LayoutError> {
        let path = root.join("index.json");
        let bytes = read(&path, manifest::MAX_MANIFEST)?;
        let index = |source| LayoutError::Index {
            path: root.to_owned(),
            source,
        };
        let digest = Digest::of(&bytes);
        let Document::Index(entries) = manifest::parse(digest, &bytes, None).map_err(index)? else {
            return Err(LayoutError::NoIndex {
                path: root.to_owned(),
            });
        };
        let named: Vec<Descriptor> = entries
            .iter()
            .filter(|entry| is_named(entry, reference))
            .cloned()
            .collect();
        let candidates = if named.is_empty() { entries } else { named };
        let chosen = match candidates.as_slice() {
            [only] => only,
            several => manifest::pick(digest, several, &Platform::host()).map_err(index)?,
        };
        Ok(Layout {
            root: root.to_owned(),
            target: chosen.digest,
        })
    }

    /// The manifest or index chosen.
    pub(crate) fn target(&self) -> Digest {
        self.target
    }

    /// A small blob, whole and checked.
    pub(crate) fn blob(&self, digest: Digest, most: u64) -> Result<Vec<u8>, LayoutError> {
        let bytes = read(&self.path(digest), most)?;
        if Digest::of(&bytes) == digest {
            Ok(bytes)
        } else {
            Err(LayoutError::Blob {
                digest,
                problem: "its content has another digest",
            })
        }
    }

    /// Sends a blob piece by piece; who listens checks it.
    pub(crate) async fn stream_blob(
        &self,
        digest: Digest,
        sink: &mpsc::Sender<Bytes>,
    ) -> Result<(), LayoutError> {
        let path = self.path(digest);
        let failed = |source| LayoutError::Read {
            path: path.clone(),
            source,
        };
        let mut file = tokio::fs::File::open(&path).await.map_err(failed)?;
        loop {
            let mut piece = BytesMut::with_capacity(CHUNK);
            if file.read_buf(&mut piece).await.map_err(failed)? == 0
                || sink.send(piece.freeze()).await.is_err()
            {
                return Ok(());
            }
        }
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }
}

fn is_named(entry: &Descriptor, reference: &Reference) -> bool {
    let Some(annotations) = &entry.annotations else {
        return false;
    };
    let tag = match reference.target() {
        Target::Tag(tag) => Some(tag.as_str()),
        Target::Digest(_) => None,
    };
    [
        "io.containerd.image.name",
        "org.opencontainers.image.ref.name",
    ]
    .iter()
    .any(|key| {
        annotations.get(*key).is_some_and(|name| {
            Some(name.as_str()) == tag
                || name
                    .parse::<Reference>()
                    .is_ok_and(|named| named == *reference)
        })
    })
}

fn read(path: &Path, most: u64) -> Result<Vec<u8>, LayoutError> {
    let failed = |source| LayoutError::Read {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > most {
        return Err(failed(std::io::Error::other(format!(
            "larger than {most} bytes"
        ))));
    }
    Ok(bytes)
}
