//! The daemon's and pause's common language: the versioned protocol on a pod's socket, and launch plans.
//!
//! pause (the binary of this crate) is the one process that Podwright keeps per pod. It holds the pod's namespaces,
//! starts, reaps and logs its containers, and lives on while the daemon is away. This library is what both sides
//! share, and nothing else: no allocation after decoding, no async runtime, no dependency.

pub mod birth;
pub mod mapping;
pub mod overlay;
pub mod plan;
pub mod protocol;
pub mod version;
pub mod wire;
