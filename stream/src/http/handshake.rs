//! Which protocol a request is upgraded to, or why not.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::port_forward;
use crate::remote_command;
use crate::session::Session;

/// The client's list of Kubernetes' stream protocols, and the server's choice.
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// The server's list, when there is nothing to choose.
const ACCEPTED_PROTOCOLS: HeaderName =
    HeaderName::from_static("x-accepted-stream-protocol-versions");
const SPDY: &str = "SPDY/3.1";

/// What RFC 6455, section 4.2.2 appends to the client's key.
const WEBSOCKET_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The protocols that are spoken after the answer 101.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upgrade {
    RemoteCommandSpdy(remote_command::Version),
    RemoteCommandWebSocket(remote_command::WebSocketProtocol),
    PortForwardSpdy,
    PortForwardTunnel,
    PortForwardWebSocket(port_forward::WebSocketProtocol),
}

/// A request that is not upgraded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            headers: Vec::new(),
        }
    }

    fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }
}

/// Chooses the protocol: the first of the client's that is spoken here. The headers are those of the answer 101.
pub(crate) fn negotiate(
    session: &Session,
    request: &HeaderMap,
) -> Result<(Upgrade, HeaderMap), Refusal> {
    let upgrades = tokens(request, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"));
    if upgrades && tokens(request, &UPGRADE).any(|to| to.eq_ignore_ascii_case("websocket")) {
        return web_socket(session, request);
    }
    if upgrades && tokens(request, &UPGRADE).any(|to| to.eq_ignore_ascii_case(SPDY)) {
        return spdy(session, request);
    }
    Err(Refusal::bad(format!(
        "unable to upgrade: this URL is for streaming; the request must have the headers \
         \"Connection: Upgrade\" and \"Upgrade: {SPDY}\" or \"Upgrade: websocket\""
    )))
}

fn spdy(session: &Session, request: &HeaderMap) -> Result<(Upgrade, HeaderMap), Refusal> {
    let offered: Vec<_> = tokens(request, &STREAM_PROTOCOL).collect();
    if offered.is_empty() {
        return Err(Refusal::bad(format!(
            "unable to upgrade: the request must name the protocols that the client speaks in the header {STREAM_PROTOCOL}"
        )));
    }
    let (accepted, chosen) = match session {
        Session::PortForward(_) => (
            &[port_forward::PROTOCOL][..],
            first(&offered, |name| {
                (name == port_forward::PROTOCOL)
                    .then_some((port_forward::PROTOCOL, Upgrade::PortForwardSpdy))
            }),
        ),
        Session::Exec(_) | Session::Attach(_) => (
            remote_command::SPDY_PROTOCOLS,
            first(&offered, |name| {
                let version = remote_command::Version::spdy(name)?;
                Some((version.name(), Upgrade::RemoteCommandSpdy(version)))
            }),
        ),
    };
    let Some((name, upgrade)) = chosen else {
        let mut refusal = not_spoken(&offered, accepted);
        refusal.headers = accepted
            .iter()
            .map(|name| (ACCEPTED_PROTOCOLS, HeaderValue::from_static(name)))
            .collect();
        return Err(refusal);
    };
    let mut headers = switching(HeaderValue::from_static(SPDY));
    headers.insert(STREAM_PROTOCOL, HeaderValue::from_static(name));
    Ok((upgrade, headers))
}

fn web_socket(session: &Session, request: &HeaderMap) -> Result<(Upgrade, HeaderMap), Refusal> {
    if request
        .get(SEC_WEBSOCKET_VERSION)
        .map(HeaderValue::as_bytes)
        != Some(b"13")
    {
        let mut refusal = Refusal::bad("unable to upgrade: WebSocket's version must be 13");
        refusal
            .headers
            .push((SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")));
        return Err(refusal);
    }
    let key = request.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
    let key = key.filter(|key| STANDARD.decode(key).is_ok_and(|key| key.len() == 16));
    let key = key.ok_or_else(|| {
        Refusal::bad("unable to upgrade: the header Sec-WebSocket-Key must be 16 bytes in base64")
    })?;
    let offered: Vec<_> = tokens(request, &SEC_WEBSOCKET_PROTOCOL).collect();
    // A client that names none gets the oldest.
    let candidates = if offered.is_empty() {
        &[""][..]
    } else {
        &offered
    };
    let (accepted, chosen) = match session {
        Session::PortForward(_) => (
            port_forward::WEB_SOCKET_PROTOCOLS,
            first(candidates, port_forward_web_socket),
        ),
        Session::Exec(_) | Session::Attach(_) => (
            remote_command::WEB_SOCKET_PROTOCOLS,
            first(candidates, |name| {
                let protocol = remote_command::WebSocketProtocol::named(name)?;
                Some((protocol.name, Upgrade::RemoteCommandWebSocket(protocol)))
            }),
        ),
    };
    let Some((name, upgrade)) = chosen else {
        return Err(not_spoken(candidates, accepted));
    };
    let mut headers = switching(HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept(key));
    if !name.is_empty() {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
    }
    Ok((upgrade, headers))
}

fn port_forward_web_socket(name: &str) -> Option<(&'static str, Upgrade)> {
    if name == port_forward::TUNNEL_PROTOCOL {
        return Some((port_forward::TUNNEL_PROTOCOL, Upgrade::PortForwardTunnel));
    }
    let protocol = port_forward::WebSocketProtocol::named(name)?;
    Some((protocol.name, Upgrade::PortForwardWebSocket(protocol)))
}

/// The server's proof that it has read the key: RFC 6455, section 4.2.2.
fn accept(key: &[u8]) -> HeaderValue {
    let mut digest = ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY);
    digest.update(key);
    digest.update(WEBSOCKET_GUID.as_bytes());
    let text = STANDARD.encode(digest.finish());
    // Base64 has no character that a header may not have.
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn switching(protocol: HeaderValue) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, protocol);
    headers
}

fn not_spoken(offered: &[&str], accepted: &[&str]) -> Refusal {
    let message = format!(
        "unable to upgrade: unable to negotiate protocol: client supports {offered:?}, server accepts {accepted:?}"
    );
    Refusal::new(StatusCode::FORBIDDEN, message)
}

fn first<T>(offered: &[&str], spoken: impl Fn(&str) -> Option<T>) -> Option<T> {
    offered.iter().find_map(|name| spoken(name))
}

/// The comma-separated values of all headers of a name.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}
