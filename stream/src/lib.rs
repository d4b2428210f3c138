//! The server side of CRI streaming: exec, attach and port-forward over SPDY/3.1 and WebSocket, as
//! Kubernetes' clients speak them.
//!
//! A [`Server`] listens, gives out URLs that are good for one session each, and speaks the protocols.
//! What a session does is a [`Backend`]'s affair: this crate knows nothing of containers.
//!
//! Invariants:
//! - One connection is one task, and the backend's future is polled inside it: when the client is gone, the
//!   task ends, and with it everything that the session holds.
//! - A URL's token is 256 random bits, good for one request and a short time. Connections without one cost a
//!   bounded amount, however many they are.
//! - No buffer grows without bound: what the backend does not read is not read from the socket, and what the
//!   client does not read is not taken from the backend.

mod backend;
mod config;
mod connection;
mod error;
mod http;
mod idle;
mod pipe;
mod port_forward;
mod remote_command;
mod server;
mod session;
mod spdy;
mod token;
mod websocket;

pub use backend::{Backend, Duplex, ExecEnd, SessionError, Streams, TerminalSize};
pub use config::{StreamConfig, TlsFiles};
pub use error::StreamError;
pub use pipe::{Incoming, Outgoing};
pub use server::Server;
pub use session::{AttachSession, ExecSession, PortForwardSession, Stdio, StdioChoice, Terminal};

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;
