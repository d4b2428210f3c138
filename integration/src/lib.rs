//! Tests, conformance runs and benchmarks of Podwright, through its public sockets alone.

pub mod cache;
pub mod images;
pub mod registry;
pub mod tools;
