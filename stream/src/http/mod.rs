//! Connections up to the answer to their one request: TLS, the request's head, its token, and the protocol to upgrade to.

mod handshake;
mod pending;
mod request;
mod socket;
mod tls;

pub(crate) use handshake::Upgrade;
pub(crate) use pending::PendingHeads;
pub(crate) use request::{Accepted, Gate, serve_request};
pub(crate) use socket::{Socket, Transport};
pub(crate) use tls::acceptor;
