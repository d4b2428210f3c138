//! Kubernetes' port-forward: many connections into a pod over one connection.

mod pairs;
mod protocol;
mod spdy;
mod websocket;

pub(crate) use protocol::{
    PROTOCOL, TUNNEL_PROTOCOL, WEB_SOCKET_PROTOCOLS, WebSocketProtocol, take_ports,
};
pub(crate) use spdy::over_spdy;
pub(crate) use websocket::{channels as web_socket_channels, over_web_socket};

use crate::backend::SessionError;

/// What the client is told of a connection that could not be forwarded.
fn failure(port: u16, sandbox: &str, error: &SessionError) -> String {
    format!("error forwarding port {port} to pod {sandbox}: {error}")
}
