//! Kubernetes' port-forward: many connections into a pod over one connection.

mod protocol;

pub(crate) use protocol::{
    PROTOCOL, TUNNEL_PROTOCOL, WEB_SOCKET_PROTOCOLS, WebSocketProtocol, take_ports,
};
