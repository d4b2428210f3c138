//! HTTP with the bounds that a registry client needs: time, redirects, where secrets go.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderMap, LOCATION};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use super::RegistryTimeouts;
use super::error::{HostError, TlsError};
use super::hosts::{TlsOptions, Verification};
use super::url::{Scheme, Url};

const MAX_REDIRECTS: usize = 10;
/// hyper's read buffer, which an answer's header must fit in.
const MAX_BUFFER: usize = 256 << 10;
/// Of an error's body, this much is read to show what the server says.
const MAX_ERROR_BODY: u64 = 8 << 10;
const USER_AGENT: &str = concat!("podwright/", env!("CARGO_PKG_VERSION"));

/// Connections, one pool for each way of TLS.
pub(super) struct Transports {
    timeouts: RegistryTimeouts,
    /// Guards the map only; building a client reads certificate files, once for each way.
    pools: Mutex<HashMap<TlsOptions, Arc<Transport>>>,
}

impl Transports {
    pub(super) fn new(timeouts: RegistryTimeouts) -> Transports {
        Transports {
            timeouts,
            pools: Mutex::default(),
        }
    }

    pub(super) fn get(&self, options: &TlsOptions) -> Result<Arc<Transport>, TlsError> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(transport) = pools.get(options) {
            return Ok(Arc::clone(transport));
        }
        let transport = Arc::new(Transport::new(tls_config(options)?, self.timeouts));
        pools.insert(options.clone(), Arc::clone(&transport));
        Ok(transport)
    }
}

/// An answer, and where it came from after redirects.
pub(super) struct Answer {
    pub(super) response: Response<Incoming>,
    pub(super) from: Url,
}

/// One connection pool.
pub(super) struct Transport {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    timeouts: RegistryTimeouts,
}

impl Transport {
    fn new(tls: rustls::ClientConfig, timeouts: RegistryTimeouts) -> Transport {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(timeouts.connect));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .http1_max_buf_size(MAX_BUFFER)
            .build(https);
        Transport { client, timeouts }
    }

    /// GET, following redirects. `headers` may hold secrets of this origin: they do not go to another.
    pub(super) async fn get(&self, url: &Url, headers: &HeaderMap) -> Result<Answer, HostError> {
        let mut from = url.clone();
        let mut hops = 0;
        loop {
            let mut headers = headers.clone();
            if !from.same_origin(url) {
                // Only what says which content is wanted goes along, never Authorization or configured headers.
                headers = ["accept", "accept-encoding", "range"]
                    .into_iter()
                    .filter_map(|name| {
                        Some((
                            http::HeaderName::from_static(name),
                            headers.get(name)?.clone(),
                        ))
                    })
                    .collect();
            }
            let response = self.send(Method::GET, &from, headers, Bytes::new()).await?;
            let redirected = matches!(
                response.status(),
                StatusCode::MOVED_PERMANENTLY
                    | StatusCode::FOUND
                    | StatusCode::SEE_OTHER
                    | StatusCode::TEMPORARY_REDIRECT
                    | StatusCode::PERMANENT_REDIRECT
            );
            if !redirected {
                return Ok(Answer { response, from });
            }
            from = next_hop(&from, &response, hops)?;
            hops += 1;
        }
    }

    /// POST of a form; redirects are not followed, because the body holds a secret.
    pub(super) async fn post_form(
        &self,
        url: &Url,
        body: String,
    ) -> Result<Response<Incoming>, HostError> {
        let mut headers = HeaderMap::new();
        let form = http::HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(http::header::CONTENT_TYPE, form);
        self.send(Method::POST, url, headers, Bytes::from(body))
            .await
    }

    async fn send(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response<Incoming>, HostError> {
        let mut request = Request::builder()
            .method(method)
            .uri(url.to_string())
            .header(http::header::USER_AGENT, USER_AGENT)
            .body(Full::new(body))
            .map_err(|source| HostError::Request {
                url: url.to_string(),
                source,
            })?;
        for (name, value) in &headers {
            request.headers_mut().append(name, value.clone());
        }
        let limit = self.timeouts.response;
        match tokio::time::timeout(limit, self.client.request(request)).await {
            Err(_) => Err(HostError::Timeout {
                what: "answer",
                limit,
            }),
            Ok(result) => result.map_err(HostError::Connect),
        }
    }

    /// The next piece of a body; `None` at its end.
    pub(super) async fn piece(&self, body: &mut Incoming) -> Result<Option<Bytes>, HostError> {
        let limit = self.timeouts.stall;
        loop {
            match tokio::time::timeout(limit, body.frame()).await {
                Err(_) => {
                    return Err(HostError::Timeout {
                        what: "data",
                        limit,
                    });
                }
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => return Err(HostError::Body(error)),
                // Trailers are of no use here.
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// A whole body of at most `most` bytes.
    pub(super) async fn body(&self, mut body: Incoming, most: u64) -> Result<Vec<u8>, HostError> {
        let mut bytes = Vec::new();
        while let Some(piece) = self.piece(&mut body).await? {
            if bytes.len() as u64 + piece.len() as u64 > most {
                return Err(HostError::TooLarge { most });
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    /// What an error's body says, in one short line. Registries answer `{"errors":[{"code":…,"message":…}]}`.
    pub(super) async fn message(&self, mut body: Incoming) -> String {
        let mut bytes = Vec::new();
        while let Ok(Some(piece)) = self.piece(&mut body).await {
            let room = usize::try_from(MAX_ERROR_BODY).unwrap_or(usize::MAX) - bytes.len();
            bytes.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.len() >= room {
                break;
            }
        }
        let parsed: Option<serde_json::Value> = serde_json::from_slice(&bytes).ok();
        let field = |name: &str| {
            Some(
                parsed
                    .as_ref()?
                    .get("errors")?
                    .get(0)?
                    .get(name)?
                    .as_str()?
                    .to_owned(),
            )
        };
        let text = match (field("code"), field("message")) {
            (Some(code), Some(message)) => format!("{code}: {message}"),
            (Some(text), None) | (None, Some(text)) => text,
            (None, None) => String::from_utf8_lossy(&bytes).into_owned(),
        };
        text.chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(200)
            .collect::<String>()
            .trim()
            .to_owned()
    }
}

fn next_hop(from: &Url, response: &Response<Incoming>, hops: usize) -> Result<Url, HostError> {
    let location = response
        .headers()
        .get(LOCATION)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let refused = |problem| HostError::Redirect {
        location: location.chars().take(200).collect(),
        problem,
    };
    if hops >= MAX_REDIRECTS {
        return Err(refused("more than 10 redirects"));
    }
    let next = from
        .join(location)
        .ok_or_else(|| refused("not an http or https URL"))?;
    if from.scheme() == Scheme::Https && next.scheme() == Scheme::Http {
        return Err(refused("it leads from https to http"));
    }
    Ok(next)
}

/// The header that carries a secret, marked so that it is never logged.
pub(super) fn authorization(value: &str) -> Option<http::HeaderValue> {
    let mut value = http::HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Adds the header when there is one.
pub(super) fn authorize(headers: &mut HeaderMap, value: Option<&http::HeaderValue>) {
    if let Some(value) = value {
        headers.insert(AUTHORIZATION, value.clone());
    }
}

fn tls_config(options: &TlsOptions) -> Result<rustls::ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = match options.verification {
        Verification::Skipped => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider))),
        Verification::Full => builder.with_root_certificates(roots(options)?),
    };
    let Some((certificate, key)) = options.clients.first() else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates(certificate)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::Pem {
        path: key.clone(),
        source,
    })?;
    Ok(builder.with_client_auth_cert(chain, key)?)
}

/// The system's authorities, and those configured for the host.
fn roots(options: &TlsOptions) -> Result<rustls::RootCertStore, TlsError> {
    let mut roots = rustls::RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::warn!(%error, "a certificate authority of the system cannot be read");
    }
    roots.add_parsable_certificates(system.certs);
    for path in &options.authorities {
        for certificate in certificates(path)? {
            roots.add(certificate)?;
        }
    }
    Ok(roots)
}

fn certificates(path: &std::path::Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::Pem {
        path: path.to_owned(),
        source,
    };
    CertificateDer::pem_file_iter(path)
        .map_err(failed)?
        .collect::<Result<_, _>>()
        .map_err(failed)
}

/// `skip_verify = true`: the user wants any certificate taken.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
