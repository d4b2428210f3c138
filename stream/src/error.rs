//! What can go wrong before a session has a client.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why there is no server, or no URL.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The address cannot be listened on.
    #[error("cannot listen for streaming connections on {address}")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// bind(2)'s or listen(2)'s answer.
        source: io::Error,
    },
    /// The certificate or key cannot be read.
    #[error("cannot read {path} for serving streams over TLS")]
    TlsFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::pki_types::pem::Error,
    },
    /// The certificate and key do not make a TLS server.
    #[error("cannot serve streams over TLS with the certificate {certificate} and its key")]
    Tls {
        /// The certificate's file.
        certificate: PathBuf,
        /// What rustls says of the pair.
        source: rustls::Error,
    },
    /// Too many URLs were given out that nobody used.
    #[error(
        "{limit} streaming URLs wait for their clients already; use them, or wait until the oldest expires"
    )]
    TooManyUnused {
        /// The bound.
        limit: usize,
    },
    /// The kernel gave no random bytes.
    #[error("the kernel gave no random bytes for a streaming token")]
    NoRandom,
    /// None of the streams was asked for.
    #[error("one of stdin, stdout and stderr must be asked for")]
    NoStream,
    /// A terminal has one output.
    #[error(
        "stderr and a terminal were asked for; a process with a terminal has no stderr of its own"
    )]
    StderrWithTerminal,
}
