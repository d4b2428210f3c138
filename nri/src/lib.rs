//! The Node Resource Interface (<https://github.com/containerd/nri>), version 0.x as of v0.12.1: the runtime's side.
//!
//! Plugins are programs beside the runtime that are told what happens to pods and containers, and may change how containers
//! are made and what they are limited to. [`Nri`] holds the connected ones; the runtime calls it where something happens, and
//! is called back through [`Host`].
//!
//! From the socket upwards: `mux` carries several connections on one socket, `ttrpc` calls and answers on each,
//! `connection` runs both for one plugin, `plugin` is a registered plugin and its turn, `adaptation` calls all of them in
//! their order, and `merge` puts together what they answer and finds who contradicts whom.
//!
//! A plugin is a privileged program, but not a trusted one: whatever it sends, or fails to send, is bounded in memory by the
//! constants of `mux`, `ttrpc` and `connection`, and in time by [`Config`]'s timeouts.

mod adaptation;
pub mod api;
mod config;
mod connection;
mod error;
mod external;
mod identity;
mod merge;
mod mux;
mod plugin;
mod preinstalled;
mod ttrpc;
mod validator;

#[cfg(test)]
mod tests;

pub use adaptation::{Creation, Gate, Host, HostFuture, Inventory, Nri, PodUpdate};
pub use api::EventSet;
pub use config::{Config, ExternalPlugins, Rejection};
pub use error::{NriError, StartError};
pub use identity::{InvalidIdentity, PluginName};

/// The encoded `google.protobuf.FileDescriptorSet` of the API, without source locations, for the wire test.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/nri.bin"));
