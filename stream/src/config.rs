//! What a server is told, and the bounds of what clients can make it hold.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// How a [`Server`](crate::Server) listens, and what its clients may cost.
#[derive(Clone, Debug)]
pub struct StreamConfig {
    /// The address to listen on; port 0 lets the kernel choose one.
    pub listen: SocketAddr,
    /// Serve over TLS with this certificate.
    pub tls: Option<TlsFiles>,
    /// The host, or host and port, that URLs name instead of the bound address.
    pub advertise: Option<String>,
    /// A session without a byte in either direction for so long is ended.
    pub idle_timeout: Duration,
    /// A URL that was not used for so long is void.
    pub token_lifetime: Duration,
    /// A client that was answered 101 must have opened its streams within this time.
    pub stream_creation_timeout: Duration,
    /// A request's head must be complete within this time after the connection is made, TLS included.
    pub head_timeout: Duration,
    /// URLs that are given out and neither used nor expired. More are refused.
    pub max_unused_tokens: usize,
    /// Sessions at a time. More are answered 503.
    pub max_sessions: usize,
    /// Connections at a time whose request is not complete yet. A further one takes the place of the oldest.
    pub max_pending_heads: usize,
    /// Bytes of a request's head.
    pub max_head_bytes: usize,
    /// SPDY streams at a time of one connection; a forwarded connection takes two. More are refused.
    pub max_streams: usize,
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            tls: None,
            advertise: None,
            // The kubelet's streaming-connection-idle-timeout.
            idle_timeout: Duration::from_secs(4 * 60 * 60),
            token_lifetime: Duration::from_secs(60),
            stream_creation_timeout: Duration::from_secs(30),
            head_timeout: Duration::from_secs(10),
            max_unused_tokens: 1_000,
            max_sessions: 2_048,
            max_pending_heads: 256,
            max_head_bytes: 16 * 1024,
            max_streams: 2_048,
        }
    }
}

/// A server's certificate chain and private key, as PEM files.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate, followed by those that lead to its root.
    pub certificate: PathBuf,
    /// The private key: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}
