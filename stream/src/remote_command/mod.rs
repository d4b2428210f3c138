//! Kubernetes' remotecommand: one process's streams over a connection.

mod protocol;

pub(crate) use protocol::{SPDY_PROTOCOLS, Version, WEB_SOCKET_PROTOCOLS, WebSocketProtocol};
