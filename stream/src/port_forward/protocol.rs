//! What the protocol's forms are called, and the ports that a request names.

use crate::session::PortForwardSession;
use crate::websocket::Encoding;

/// Over SPDY, the only one.
pub(crate) const PROTOCOL: &str = "portforward.k8s.io";

/// The same, with SPDY's bytes in WebSocket's messages.
pub(crate) const TUNNEL_PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";

/// Over WebSocket, the newest first.
pub(crate) const WEB_SOCKET_PROTOCOLS: &[&str] = &[
    TUNNEL_PROTOCOL,
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
];

/// Two channels for each port and no new connections: as many as one byte can number.
pub(crate) const MAX_CHANNEL_PORTS: usize = 127;

/// The older form over WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WebSocketProtocol {
    /// As the client named it; empty when it named none.
    pub(crate) name: &'static str,
    pub(crate) encoding: Encoding,
}

impl WebSocketProtocol {
    pub(crate) fn named(name: &str) -> Option<Self> {
        let (name, encoding) = match name {
            "" => ("", Encoding::Binary),
            "v4.channel.k8s.io" => ("v4.channel.k8s.io", Encoding::Binary),
            "v4.base64.channel.k8s.io" => ("v4.base64.channel.k8s.io", Encoding::Base64),
            _ => return None,
        };
        Some(Self { name, encoding })
    }
}

/// The channels of the older form stand for the session's ports, or else for those of the query (`port=80,443`).
pub(crate) fn take_ports(
    session: &mut PortForwardSession,
    query: Option<&str>,
) -> Result<(), String> {
    if session.ports.is_empty() {
        let values = query
            .unwrap_or_default()
            .split('&')
            .filter_map(|parameter| parameter.strip_prefix("port="));
        // A comma may be written as %2C; digits need no escape.
        for value in values
            .flat_map(|value| value.split(','))
            .flat_map(|v| v.split("%2C"))
        {
            session.ports.push(parse_port(value)?);
            if session.ports.len() > MAX_CHANNEL_PORTS {
                break;
            }
        }
    }
    match session.ports.len() {
        0 => Err("query parameter \"port\" is required".to_owned()),
        1..=MAX_CHANNEL_PORTS => Ok(()),
        _ => Err(format!(
            "more than {MAX_CHANNEL_PORTS} ports over one WebSocket; use the protocol {TUNNEL_PROTOCOL}"
        )),
    }
}

/// A port as a client writes it.
pub(crate) fn parse_port(text: &str) -> Result<u16, String> {
    let port: u16 = text
        .parse()
        .map_err(|error| format!("unable to parse {text:?} as a port: {error}"))?;
    if port == 0 {
        return Err(format!("port {text:?} must be > 0"));
    }
    Ok(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(given: &[u16], query: Option<&str>) -> Result<Vec<u16>, String> {
        let mut session = PortForwardSession {
            sandbox: "s".into(),
            ports: given.to_vec(),
        };
        take_ports(&mut session, query).map(|()| session.ports)
    }

    #[test]
    fn ports_come_from_the_session_or_the_query() {
        assert_eq!(ports(&[80], Some("port=81")), Ok(vec![80]));
        assert_eq!(
            ports(&[], Some("x=1&port=80,443&port=8080%2C9")),
            Ok(vec![80, 443, 8080, 9])
        );
        for bad in ["", "port=", "port=0", "port=65536", "port=x", "ports=1"] {
            assert!(ports(&[], Some(bad)).is_err(), "{bad}");
        }
        assert!(ports(&[], None).is_err());
        let many = format!("port={}", vec!["1"; 128].join(","));
        assert!(ports(&[], Some(&many)).is_err());
        assert!(ports(&[], Some(&many[..many.len() - 2])).is_ok());
    }
}
