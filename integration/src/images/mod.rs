//! The test images: what critest and our own tests pull, built on this machine from Debian's packages.
//!
//! Nothing is installed: packages are downloaded and unpacked into a scratch directory, two small
//! C programs are compiled, and the results are kept as an OCI image layout in the cache
//! ([`crate::cache`]). The layers cover every compression, and the manifests both vocabularies, so
//! that each test of a pull is one of the formats too.

mod image;
mod layer;
mod programs;
mod recipes;
mod store;
mod tar;

use crate::packages;

pub use image::{Compression, Descriptor, Image, Vocabulary, sha256};
pub use layer::{Entry, Kind, Layer};
pub use recipes::{BUSYBOX, HTTPD, NGINX, PAUSE};
pub use store::Store;
