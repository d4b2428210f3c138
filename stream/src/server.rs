//! The listener, and a task for each connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::backend::Backend;
use crate::config::StreamConfig;
use crate::connection;
use crate::error::StreamError;
use crate::http::{Accepted, Gate, PendingHeads, Socket, Transport, acceptor, serve_request};
use crate::session::{AttachSession, ExecSession, PortForwardSession, Session};
use crate::token::Tokens;

/// After accept(2) failed, usually for want of descriptors: they come back when connections end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves sessions to clients that show their tokens.
#[derive(Debug)]
pub struct Server<B> {
    listener: TcpListener,
    /// What URLs begin with.
    base: String,
    shared: Arc<Shared<B>>,
}

#[derive(Debug)]
struct Shared<B> {
    config: StreamConfig,
    backend: Arc<B>,
    gate: Gate,
    heads: PendingHeads,
    tls: Option<Tls>,
}

struct Tls(TlsAcceptor);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl<B: Backend> Server<B> {
    /// Reads the certificate, if there is one, and listens. Connections wait until [`Server::serve`] is called.
    ///
    /// # Errors
    /// When the address or the certificate cannot be used.
    pub async fn bind(config: StreamConfig, backend: Arc<B>) -> Result<Self, StreamError> {
        let tls = config.tls.as_ref().map(acceptor).transpose()?.map(Tls);
        let cannot_listen = |source| StreamError::Listen {
            address: config.listen,
            source,
        };
        let listener = TcpListener::bind(config.listen)
            .await
            .map_err(cannot_listen)?;
        let address = listener.local_addr().map_err(cannot_listen)?;
        if tls.is_none() && !address.ip().is_loopback() {
            tracing::warn!(%address, "streams are served without TLS to other hosts; set a certificate, or listen on loopback");
        }
        let base = base_url(&config, address);
        let gate = Gate {
            tokens: Tokens::new(config.token_lifetime, config.max_unused_tokens),
            sessions: Arc::new(Semaphore::new(
                config.max_sessions.min(Semaphore::MAX_PERMITS),
            )),
            max_head_bytes: config.max_head_bytes,
        };
        let heads = PendingHeads::new(config.max_pending_heads);
        let shared = Arc::new(Shared {
            config,
            backend,
            gate,
            heads,
            tls,
        });
        Ok(Self {
            listener,
            base,
            shared,
        })
    }

    /// Registers a command to run and gives its URL: good for one request, within the token's lifetime.
    ///
    /// # Errors
    /// When the choice of streams is none, or too many URLs wait already.
    pub fn exec_url(&self, session: ExecSession) -> Result<String, StreamError> {
        session.stdio.check()?;
        self.url(Session::Exec(session))
    }

    /// Registers a process to attach to and gives its URL: good for one request, within the token's lifetime.
    ///
    /// # Errors
    /// When the choice of streams is none, or too many URLs wait already.
    pub fn attach_url(&self, session: AttachSession) -> Result<String, StreamError> {
        session.stdio.check()?;
        self.url(Session::Attach(session))
    }

    /// Registers a pod to forward connections into and gives the URL: good for one request, within the token's lifetime.
    ///
    /// # Errors
    /// When too many URLs wait already.
    pub fn port_forward_url(&self, session: PortForwardSession) -> Result<String, StreamError> {
        self.url(Session::PortForward(session))
    }

    fn url(&self, session: Session) -> Result<String, StreamError> {
        let verb = session.verb();
        let token = self.shared.gate.tokens.insert(session, Instant::now())?;
        Ok(format!("{}/{verb}/{token}", self.base))
    }

    /// Serves until `shutdown` completes; open sessions end then.
    pub async fn serve(&self, shutdown: impl Future<Output = ()> + Send) {
        let mut connections = JoinSet::new();
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(self.shared.clone().serve_connection(stream));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a streaming connection; trying again");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(ended) = connections.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a streaming connection ended in disorder");
                    }
                }
                () = &mut shutdown => break,
            }
        }
        connections.shutdown().await;
    }
}

impl<B: Backend> Shared<B> {
    async fn serve_connection(self: Arc<Self>, stream: TcpStream) {
        let Ok(socket) = Socket::new(stream) else {
            return; // It is gone already.
        };
        let Some((accepted, transport)) = self.request(socket.clone()).await else {
            return;
        };
        // In a box of its own: connections that never get here should not be as big as those that do.
        Box::pin(connection::run(
            &self.config,
            &*self.backend,
            accepted,
            transport,
            socket,
        ))
        .await;
    }

    /// Reads and answers the connection's request, in bounded time.
    async fn request(&self, socket: Socket) -> Option<(Accepted, Transport)> {
        let mut ticket = self.heads.enter();
        let answer = async {
            let transport = match &self.tls {
                None => Transport::plain(socket),
                Some(Tls(tls)) => match tls.accept(socket).await {
                    Ok(stream) => Transport::tls(stream),
                    Err(error) => {
                        tracing::debug!(%error, "TLS with a streaming client failed");
                        return None;
                    }
                },
            };
            serve_request(&self.gate, transport).await
        };
        tokio::select! {
            answer = tokio::time::timeout(self.config.head_timeout, answer) => answer.ok().flatten(),
            () = ticket.evicted() => None,
        }
    }
}

fn base_url(config: &StreamConfig, bound: SocketAddr) -> String {
    let scheme = if config.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let authority = match &config.advertise {
        None => bound.to_string(),
        Some(host) if has_port(host) => host.clone(),
        Some(host) if host.contains(':') && !host.starts_with('[') => {
            format!("[{host}]:{}", bound.port())
        }
        Some(host) => format!("{host}:{}", bound.port()),
    };
    format!("{scheme}://{authority}")
}

/// Whether it is `host:port` or `[address]:port`. A bare IPv6 address has colons, and no port.
fn has_port(host: &str) -> bool {
    let Some((name, port)) = host.rsplit_once(':') else {
        return false;
    };
    let whole = !name.contains(':') || (name.starts_with('[') && name.ends_with(']'));
    whole && port.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_the_advertised_host() {
        let bound = SocketAddr::from(([127, 0, 0, 1], 4321));
        let base = |advertise: Option<&str>| {
            let config = StreamConfig {
                advertise: advertise.map(str::to_owned),
                ..StreamConfig::default()
            };
            base_url(&config, bound)
        };
        assert_eq!(base(None), "http://127.0.0.1:4321");
        assert_eq!(base(Some("node-1")), "http://node-1:4321");
        assert_eq!(base(Some("node-1:80")), "http://node-1:80");
        assert_eq!(base(Some("fd00::1")), "http://[fd00::1]:4321");
        assert_eq!(base(Some("[fd00::1]")), "http://[fd00::1]:4321");
        assert_eq!(base(Some("[fd00::1]:80")), "http://[fd00::1]:80");
    }
}
