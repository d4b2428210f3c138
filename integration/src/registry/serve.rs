//! Accepts connections and routes requests.

use std::{
    io,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::{
    Request, Shared,
    answer::{Answer, Body},
    auth,
    fault::{Action, Program},
    lock,
};

/// What the connections carry.
#[derive(Clone)]
pub(super) enum Transport {
    Plain,
    Tls(TlsAcceptor),
}

impl Transport {
    pub(super) fn scheme(&self) -> &'static str {
        match self {
            Self::Plain => "http",
            Self::Tls(_) => "https",
        }
    }
}

/// Serves until it is aborted; connections end with it.
pub(super) async fn accept(
    listener: TcpListener,
    transport: Transport,
    shared: Arc<Mutex<Shared>>,
) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (transport, shared) = (transport.clone(), Arc::clone(&shared));
        connections.spawn(async move {
            match transport {
                Transport::Plain => converse(stream, shared).await,
                Transport::Tls(acceptor) => {
                    // A client that does not trust the certificate goes away within the handshake.
                    if let Ok(stream) = acceptor.accept(stream).await {
                        converse(stream, shared).await;
                    }
                }
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    shared: Arc<Mutex<Shared>>,
) {
    let service = service_fn(move |request| respond(request, Arc::clone(&shared)));
    // An error here is a client that went away, or a fault that closes the connection.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn respond(
    request: hyper::Request<Incoming>,
    shared: Arc<Mutex<Shared>>,
) -> io::Result<hyper::Response<Body>> {
    let (action, answer) = {
        let mut shared = lock(&shared);
        let action = shared.observe(&request);
        (action, shared.answer(&request))
    };
    let answer = answer.unwrap_or_else(|error| {
        Answer::status(StatusCode::INTERNAL_SERVER_ERROR).body(error.to_string())
    });
    answer.send(action, request.method() == Method::HEAD).await
}

/// What a path of the API asks for.
enum Route<'a> {
    Base,
    Token,
    Manifest { name: &'a str, reference: &'a str },
    Blob { name: &'a str, digest: &'a str },
    Unknown,
}

fn route(path: &str) -> Route<'_> {
    let Some(rest) = path.strip_prefix("/v2/") else {
        return if path == "/token" {
            Route::Token
        } else {
            Route::Unknown
        };
    };
    if rest.is_empty() {
        return Route::Base;
    }
    if let Some((name, reference)) = rest.rsplit_once("/manifests/") {
        return Route::Manifest { name, reference };
    }
    match rest.rsplit_once("/blobs/") {
        Some((name, digest)) => Route::Blob { name, digest },
        None => Route::Unknown,
    }
}

fn query(uri: &http::Uri, key: &str) -> Option<String> {
    let pairs = uri.query()?.split('&');
    let value = pairs
        .filter_map(|pair| pair.split_once('='))
        .find(|(name, _)| *name == key)?
        .1;
    Some(
        value
            .replace("%3A", ":")
            .replace("%2F", "/")
            .replace("%3a", ":")
            .replace("%2f", "/"),
    )
}

impl Shared {
    /// Records a request, and takes the fault that is due for it.
    fn observe<B>(&mut self, request: &hyper::Request<B>) -> Action {
        let text = |name| {
            let value = request.headers().get(name)?;
            value.to_str().ok().map(str::to_owned)
        };
        self.requests.push(Request {
            method: request.method().to_string(),
            path: request.uri().path().to_owned(),
            namespace: query(request.uri(), "ns"),
            range: text(header::RANGE),
            authorization: text(header::AUTHORIZATION),
        });
        let path = request.uri().path();
        let applies = |(part, _): &&mut (String, Program)| path.contains(part.as_str());
        match self.rules.iter_mut().find(applies) {
            Some((_, program)) => program.take(),
            None => Action::Off,
        }
    }

    fn answer<B>(&self, request: &hyper::Request<B>) -> io::Result<Answer> {
        let namespace = query(request.uri(), "ns");
        let (name, found) = match route(request.uri().path()) {
            Route::Token => return Ok(self.token(request)),
            Route::Base => {
                return Ok(self.admit(request.headers(), "", Answer::found(Bytes::new())));
            }
            Route::Unknown => return Ok(Answer::status(StatusCode::NOT_FOUND)),
            Route::Manifest { name, reference } => {
                let found = self.content.manifest(namespace.as_deref(), name, reference);
                (
                    name,
                    found.map(|(media_type, digest)| (Some(media_type), digest)),
                )
            }
            Route::Blob { name, digest } => (name, Some((None, digest.to_owned()))),
        };
        let mut answer = Answer::status(StatusCode::NOT_FOUND).body(
            r#"{"errors":[{"code":"NAME_UNKNOWN","message":"the test registry has no such"}]}"#,
        );
        if let Some((media_type, digest)) = found
            && let Some(content) = self.content.blob(&digest)?
        {
            answer = Answer::found(content).header("docker-content-digest", &digest);
            answer = match media_type {
                Some(media_type) => answer.header("content-type", &media_type),
                None => answer
                    .header("content-type", "application/octet-stream")
                    .range(request),
            };
        }
        Ok(self.admit(request.headers(), name, answer))
    }

    fn admit(&self, headers: &HeaderMap, name: &str, answer: Answer) -> Answer {
        let challenge = self.auth.challenge(&self.origin, name);
        if self.auth.admits(headers, name) {
            // Kept for the fault that challenges whatever is sent.
            return answer.challenge(challenge);
        }
        Answer::status(StatusCode::UNAUTHORIZED)
            .header("www-authenticate", &challenge)
            .challenge(challenge)
    }

    fn token<B>(&self, request: &hyper::Request<B>) -> Answer {
        if !self.auth.gives_token(request.headers()) {
            return Answer::status(StatusCode::UNAUTHORIZED);
        }
        let scope = query(request.uri(), "scope").unwrap_or_default();
        let token = serde_json::json!({ "token": auth::token(&scope), "expires_in": 300 });
        Answer::found(token.to_string().into()).header("content-type", "application/json")
    }
}
