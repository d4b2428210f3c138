//! The Kubernetes Container Runtime Interface, version `v1`: messages, clients and servers.
//!
//! Everything in [`v1`] is generated at build time from `proto/cri.proto`, which documents each
//! message and call. `tests/wire.rs` holds the compiled descriptor against the table of the wire
//! format, so that no field can be forgotten, renumbered or added by accident.

pub mod client;
pub mod codec;
pub mod list;

/// The version of the CRI, as `Version` reports it in `runtime_api_version`; the protobuf package
/// is `runtime.` followed by it.
pub const API_VERSION: &str = "v1";

/// The encoded `google.protobuf.FileDescriptorSet` of the API, without source locations. It serves
/// gRPC reflection and the wire test.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/cri.bin"));

/// Messages, `runtime_service_{client,server}` and `image_service_{client,server}`.
///
/// Maps are [`BTreeMap`](std::collections::BTreeMap)s, so that equal messages encode to equal bytes.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::struct_excessive_bools,
    reason = "generated; the comments come from cri.proto"
)]
pub mod v1 {
    pub use crate::list::{ListContainersResponse, ListPodSandboxResponse};

    tonic::include_proto!("runtime.v1");
}
