//! A registry for tests: the pull half of the OCI distribution API over HTTP or HTTPS on the loopback.
//!
//! It plays any registry at once: as a mirror it is told the host it stands for (`?ns=registry.k8s.io`),
//! and without that every image is found under its path. Faults are injected by rules ([`fault`]),
//! and each request is recorded, so that a test can ask what was sent.

mod answer;
pub mod auth;
mod content;
pub mod fault;
mod hosts;
mod serve;
#[cfg(test)]
mod tests;
mod tls;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result};
use tokio::{net::TcpListener, task::JoinHandle};

pub use self::{
    auth::Auth,
    hosts::{HOSTS, Trust},
};
use self::{content::Content, fault::Program, serve::Transport, tls::Identity};
use crate::images::{Image, Store};

/// One request as the registry saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `GET` or `HEAD`.
    pub method: String,
    /// The path without the query.
    pub path: String,
    /// The mirror's `ns`, if it was given.
    pub namespace: Option<String>,
    /// The Range header, if there was one.
    pub range: Option<String>,
    /// The Authorization header, if there was one.
    pub authorization: Option<String>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Scheme, address and port.
    origin: String,
    content: Content,
    auth: Auth,
    rules: Vec<(String, Program)>,
    requests: Vec<Request>,
}

/// A running registry. It stops when this is dropped.
#[derive(Debug)]
pub struct Registry {
    address: SocketAddr,
    /// The certificate of the authority behind its own, when it serves HTTPS.
    authority: Option<String>,
    shared: Arc<Mutex<Shared>>,
    server: JoinHandle<()>,
}

impl Registry {
    /// Starts a registry without images on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start() -> Result<Self> {
        Self::serve(Transport::Plain, None).await
    }

    /// Starts one that speaks HTTPS, with a certificate for 127.0.0.1 by an authority that was made for it.
    ///
    /// # Errors
    /// When no port can be had, or no certificate be made.
    pub async fn start_https() -> Result<Self> {
        let Identity {
            acceptor,
            authority,
        } = Identity::new()?;
        Self::serve(Transport::Tls(acceptor), Some(authority)).await
    }

    async fn serve(transport: Transport, authority: Option<String>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .context("binding a test registry")?;
        let address = listener.local_addr()?;
        let shared = Shared {
            origin: format!("{}://{address}", transport.scheme()),
            ..Shared::default()
        };
        let shared = Arc::new(Mutex::new(shared));
        let server = tokio::spawn(serve::accept(listener, transport, Arc::clone(&shared)));
        Ok(Self {
            address,
            authority,
            shared,
            server,
        })
    }

    /// Starts a registry that holds all test images.
    ///
    /// # Errors
    /// When the images cannot be built, or no port can be had.
    pub async fn with_test_images() -> Result<Self> {
        let store = tokio::task::spawn_blocking(Store::open).await??;
        let registry = Self::start().await?;
        registry.lock().content.add_store(store);
        Ok(registry)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Scheme, address and port.
    pub fn origin(&self) -> String {
        self.lock().origin.clone()
    }

    /// Adds `image` under `reference`, which is a full one with a tag (`example.test/a/b:1`).
    ///
    /// # Errors
    /// When the reference has no tag.
    pub fn add(&self, reference: &str, image: &Image) -> Result<()> {
        self.lock().content.add(reference, image)
    }

    /// The reference that pulls `path` (`a/b:1`, `a/b@sha256:…`) from this registry without any
    /// mirror configuration. Images added under `path` at any host are found.
    pub fn reference(&self, path: &str) -> String {
        format!("{}/{path}", self.address)
    }

    /// Demands this from every request on.
    pub fn require(&self, auth: Auth) {
        self.lock().auth = auth;
    }

    /// From now on, requests whose path contains `part` follow `program`; see [`fault`].
    ///
    /// # Errors
    /// When the program has a mistake.
    pub fn inject(&self, part: &str, program: &str) -> Result<()> {
        let program = program.parse()?;
        self.lock().rules.push((part.to_owned(), program));
        Ok(())
    }

    /// Takes all faults back.
    pub fn heal(&self) {
        self.lock().rules.clear();
    }

    /// All requests so far, oldest first.
    pub fn requests(&self) -> Vec<Request> {
        self.lock().requests.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        lock(&self.shared)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A panic in another test's assertion leaves nothing half-changed here.
fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
