//! A layer's archive becomes a directory that overlayfs can use as a lower one.
//!
//! The stream is read once: compressed digest, decompression, diff id and unpacking go along together
//! ([`layer`]). The archive is parsed by [`tar`] with bounds, its names are made plain by [`path`], and
//! [`tree`] writes them beneath one directory descriptor that nothing can leave.

mod error;
mod layer;
mod path;
mod pax;
mod stream;
mod tar;
mod tree;

pub use error::UnpackError;
pub(crate) use layer::{Expected, Limits, unpack_layer};
pub use path::PathProblem;
pub(crate) use stream::Pipe;
pub use tar::TarError;
pub(crate) use tree::Usage;

#[cfg(test)]
pub(crate) mod testtar;
