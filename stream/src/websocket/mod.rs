//! WebSocket, RFC 6455, after its handshake: Kubernetes' channels, and a tunnel of bytes.

/// How channels' data is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Binary messages: the channel's number, then the data.
    Binary,
    /// Text messages: the channel's number as a digit, then the data in base64.
    Base64,
}
