//! What registries answer when they do not answer what was asked.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::credentials::CredentialsError;
use crate::digest::Digest;

/// What went wrong with one host.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// No connection, or it broke before an answer came.
    #[error("cannot reach it: {}", chain(.0))]
    Connect(#[source] hyper_util::client::legacy::Error),
    /// It stayed silent.
    #[error("no {what} within {limit:?}")]
    Timeout {
        /// "answer" or "data".
        what: &'static str,
        /// How long was waited.
        limit: Duration,
    },
    /// The connection broke within a body.
    #[error("the connection broke: {}", chain(.0))]
    Body(#[source] hyper::Error),
    /// A status that is no success.
    #[error("it answered {status}{}", said(.message))]
    Status {
        /// The HTTP status.
        status: http::StatusCode,
        /// What its body says, shortened.
        message: String,
    },
    /// It wants credentials, or others than ours.
    #[error("it refused access ({status}){}: {hint}", said(.message))]
    Unauthorized {
        /// 401 or 403.
        status: http::StatusCode,
        /// What its body says, shortened.
        message: String,
        /// Whether credentials were sent.
        hint: &'static str,
    },
    /// Its `WWW-Authenticate` asks for nothing that we can do.
    #[error(
        "it asks for authentication in no form that is supported (WWW-Authenticate: {challenge:?})"
    )]
    Challenge {
        /// The header, shortened.
        challenge: String,
    },
    /// The token server did not give a token.
    #[error("the token server {realm} gave no token: {problem}")]
    Token {
        /// Its address.
        realm: String,
        /// What it said or did.
        problem: String,
    },
    /// A redirect that is not followed.
    #[error("it redirects to {location:?}, which is not followed: {problem}")]
    Redirect {
        /// The `Location` header, shortened.
        location: String,
        /// Why not.
        problem: &'static str,
    },
    /// More bytes than asked for or than the bound.
    #[error("it sends more than {most} bytes")]
    TooLarge {
        /// What was expected at most.
        most: u64,
    },
    /// The body ended early.
    #[error("its answer ended after {received} of {expected} bytes")]
    Truncated {
        /// Bytes received.
        received: u64,
        /// Bytes promised by the descriptor.
        expected: u64,
    },
    /// Content that is not what its digest says.
    #[error("it sent content of digest {found} for {expected}")]
    Digest {
        /// What was asked for.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// A partial answer to another range than asked for.
    #[error("it answered the range from byte {offset} with {content_range:?}")]
    Range {
        /// Where the range should begin.
        offset: u64,
        /// Its `Content-Range`.
        content_range: String,
    },
    /// The request cannot be written, such as for a header value from hosts.toml.
    #[error("the request to {url:?} is invalid")]
    Request {
        /// Where it should go.
        url: String,
        /// What is wrong with it.
        #[source]
        source: http::Error,
    },
}

/// The causes of an HTTP library's error, whose own text says only "client error".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.ends_with(&part) {
            text = format!("{text}: {part}");
        }
        cause = error.source();
    }
    text
}

fn said(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(" saying {message:?}")
    }
}

impl HostError {
    /// Whether the same host may well answer if it is asked again a little later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            HostError::Body(_) | HostError::Truncated { .. } => true,
            HostError::Status { status, .. } => {
                status.is_server_error() || *status == http::StatusCode::TOO_MANY_REQUESTS
            }
            HostError::Connect(error) => !error.is_connect(),
            _ => false,
        }
    }

    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, HostError::Status { status, .. } if *status == http::StatusCode::NOT_FOUND)
    }

    pub(crate) fn is_unauthorized(&self) -> bool {
        matches!(
            self,
            HostError::Unauthorized { .. } | HostError::Challenge { .. } | HostError::Token { .. }
        )
    }
}

/// Why something cannot be had from any host of a registry.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Every host failed.
    #[error("cannot get {what} of {repository}: {}", tried(.failures))]
    Failed {
        /// "manifest latest", "blob sha256:…".
        what: String,
        /// The repository's full name.
        repository: String,
        /// Each host that was asked, in order, and what it said.
        failures: Vec<(String, HostError)>,
    },
    /// The registry's hosts.toml cannot be used.
    #[error("the host configuration for registry {registry} cannot be used")]
    Hosts {
        /// The registry as in the image's name.
        registry: String,
        /// File, and what is wrong.
        #[source]
        source: HostsError,
    },
    /// TLS cannot be set up as configured.
    #[error("TLS for {host} cannot be set up")]
    Tls {
        /// The host's URL.
        host: String,
        /// What is wrong.
        #[source]
        source: TlsError,
    },
    /// docker's configuration cannot be used.
    #[error(transparent)]
    Credentials(CredentialsError),
}

fn tried(failures: &[(String, HostError)]) -> String {
    let each: Vec<String> = failures
        .iter()
        .map(|(host, error)| format!("{host}: {error}"))
        .collect();
    if each.is_empty() {
        "no host is configured that may be asked for it".to_owned()
    } else {
        each.join("; ")
    }
}

/// What is wrong with a hosts.toml.
#[derive(Debug, thiserror::Error)]
pub enum HostsError {
    /// It cannot be read.
    #[error("cannot read {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is no TOML of the known form.
    #[error("{path:?} is malformed")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line and reason.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A value cannot be used.
    #[error("{path:?}: {problem}: {value:?}")]
    Value {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
        /// The value.
        value: String,
    },
}

/// What is wrong with a TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate or key file cannot be read.
    #[error("cannot read the certificate or key file {path:?}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// rustls does not take what was configured.
    #[error("the certificates configured are refused")]
    Rustls(#[from] rustls::Error),
}
