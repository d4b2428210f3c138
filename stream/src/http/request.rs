//! The one request of a connection.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming as Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::handshake::{self, Refusal, Upgrade};
use super::socket::Transport;
use crate::port_forward;
use crate::session::Session;
use crate::token::Tokens;

/// Headers of a request.
const MAX_HEADERS: usize = 64;
/// The least that hyper takes for a limit of a head's size.
const MIN_HEAD_BYTES: usize = 8 * 1024;

/// A session whose client is there, and was answered 101.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) session: Session,
    pub(crate) upgrade: Upgrade,
    /// Held while the session lasts.
    pub(crate) place: OwnedSemaphorePermit,
}

/// What requests are judged by.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) tokens: Tokens,
    /// Places for sessions.
    pub(crate) sessions: Arc<Semaphore>,
    pub(crate) max_head_bytes: usize,
}

/// Answers a connection's request. `None` when it was refused, or never came.
pub(crate) async fn serve_request(
    gate: &Gate,
    transport: Transport,
) -> Option<(Accepted, Transport)> {
    let accepted = Mutex::new(None);
    let service = service_fn(|request: Request<Body>| {
        let response = match gate.judge(&request) {
            Ok((session, response)) => {
                *accepted.lock().unwrap_or_else(PoisonError::into_inner) = Some(session);
                response
            }
            Err(refusal) => refuse(refusal),
        };
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let connection = http1::Builder::new()
        .title_case_headers(true)
        .max_headers(MAX_HEADERS)
        .max_buf_size(gate.max_head_bytes.max(MIN_HEAD_BYTES))
        .serve_connection(TokioIo::new(transport), service);
    let parts = match connection.without_shutdown().await {
        Ok(parts) => parts,
        Err(error) => {
            tracing::debug!(%error, "a streaming connection made no valid request");
            return None;
        }
    };
    let mut transport = parts.io.into_inner();
    let accepted = accepted
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    let Some(accepted) = accepted else {
        let _ = tokio::io::AsyncWriteExt::shutdown(&mut transport).await;
        return None;
    };
    Some((accepted, transport.unread(parts.read_buf)))
}

type Answer = Response<Full<Bytes>>;

impl Gate {
    fn judge(&self, request: &Request<Body>) -> Result<(Accepted, Answer), Refusal> {
        if request.method() != Method::GET && request.method() != Method::POST {
            let message = "streaming URLs are for GET and POST";
            return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, message));
        }
        let mut session = self.session(request.uri().path())?;
        let (upgrade, headers) = handshake::negotiate(&session, request.headers())?;
        if let (Session::PortForward(session), Upgrade::PortForwardWebSocket(_)) =
            (&mut session, upgrade)
        {
            port_forward::take_ports(session, request.uri().query())
                .map_err(|message| Refusal::new(StatusCode::BAD_REQUEST, message))?;
        }
        let place = self.sessions.clone().try_acquire_owned().map_err(|_| {
            let message =
                "all places for streaming sessions are taken; try again when one has ended";
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message)
        })?;
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *response.headers_mut() = headers;
        let accepted = Accepted {
            session,
            upgrade,
            place,
        };
        Ok((accepted, response))
    }

    /// The session that the path's token stands for; the token is void from now on.
    fn session(&self, path: &str) -> Result<Session, Refusal> {
        let unknown = || {
            let message = "this streaming URL is unknown, was used already, or has expired; ask the runtime for a new one";
            Refusal::new(StatusCode::NOT_FOUND, message)
        };
        let mut parts = path.strip_prefix('/').ok_or_else(unknown)?.split('/');
        let (Some(verb), Some(token), None) = (parts.next(), parts.next(), parts.next()) else {
            return Err(unknown());
        };
        let session = self.tokens.take(verb, token, Instant::now());
        session.ok_or_else(unknown)
    }
}

/// Plain text, as Go's servers answer.
fn refuse(refusal: Refusal) -> Answer {
    let mut response = Response::new(Full::from(refusal.message + "\n"));
    *response.status_mut() = refusal.status;
    let headers = response.headers_mut();
    for (name, value) in refusal.headers {
        headers.append(name, value);
    }
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    // One connection, one request.
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
