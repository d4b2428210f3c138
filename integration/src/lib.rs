//! Tests, conformance runs and benchmarks of Podwright, through its public sockets alone.

pub mod cache;
pub mod cri;
pub mod images;
pub mod log;
pub mod node;
mod packages;
pub mod patience;
pub mod peer;
pub mod percentile;
pub mod pod;
pub mod proc;
pub mod random;
pub mod registry;
pub mod stream;
pub mod tools;
pub mod vm;
