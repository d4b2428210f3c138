//! Devices of the Container Device Interface (<https://github.com/cncf-tags/container-device-interface>, SPEC.md).
//!
//! Vendors' files on the node say what a container needs for a device: nodes, mounts, variables, hooks. A request names
//! devices; what their files say is resolved when the container is created, kept in its record, and applied to its OCI
//! spec. Nothing of an image or a checkpoint names devices.

mod cache;
mod check;
mod inject;
mod model;
mod name;

pub(crate) use cache::Cache;
pub(crate) use inject::apply;
pub(crate) use model::Edits;
pub(crate) use name::wanted;
