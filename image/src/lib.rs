//! Container images: references, registries, the layer store, unpacking.
//!
//! [`ImageStore`] is the whole of it for a caller: it pulls images from registries (or imports them
//! from an OCI layout), keeps their layers as directories that overlayfs can mount as they are, and
//! answers what is there.
//!
//! Invariants:
//! - A directory under `layers/` is whole: it was unpacked elsewhere, verified against the
//!   descriptor's digest, its size and the config's diff id, synced, and only then renamed there.
//! - An image that is listed has all its layers on disk, after power loss too.
//! - Nothing that an archive or a registry says makes us write outside the layer's own directory,
//!   or hold more than a bounded amount of memory.
//! - Credentials go to the host that they are for, and to no other.

mod credentials;
mod digest;
mod import;
mod manifest;
mod platform;
mod pull;
mod reference;
mod registry;
mod store;
mod unpack;
mod view;

pub use credentials::{Credentials, CredentialsError, Secret};
pub use digest::{ChainId, Digest, DigestError, ImageId};
pub use import::LayoutError;
pub use manifest::ManifestError;
pub use pull::{PullError, PullErrorKind};
pub use reference::{Reference, ReferenceError};
pub use registry::{HostError, HostsError, RegistryError, RegistryTimeouts, TlsError};
pub use store::{FsUsage, Image, ImageStore, ImageStoreConfig, Layer, Lease, StoreError};
pub use unpack::{PathProblem, TarError, UnpackError};
pub use view::{LayeredView, ViewError};

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;
