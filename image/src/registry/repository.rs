//! One repository at a registry: asks host after host until one answers well.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use tokio::sync::mpsc;

use super::RegistryTimeouts;
use super::blob::{Download, Stopped};
use super::endpoint::Endpoint;
use super::error::{HostError, RegistryError};
use crate::digest::Digest;
use crate::manifest::{ACCEPT, MAX_MANIFEST};
use crate::reference::Target;

/// Times that a host is asked again after a failure that may pass.
const RETRIES: u32 = 3;

/// A manifest or index as it came.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) digest: Digest,
    pub(crate) content_type: Option<String>,
    pub(crate) bytes: Vec<u8>,
}

/// A repository with the hosts that serve it.
pub(crate) struct Repository {
    name: String,
    endpoints: Vec<Endpoint>,
    timeouts: RegistryTimeouts,
}

impl Repository {
    pub(super) fn new(
        name: String,
        endpoints: Vec<Endpoint>,
        timeouts: RegistryTimeouts,
    ) -> Repository {
        Repository {
            name,
            endpoints,
            timeouts,
        }
    }

    /// The manifest or index that a tag or digest names; checked against the digest.
    pub(crate) async fn manifest(&self, target: &Target) -> Result<Fetched, RegistryError> {
        let (text, expected) = match target {
            Target::Tag(tag) => (tag.clone(), None),
            Target::Digest(digest) => (digest.to_string(), Some(*digest)),
        };
        let mut failures = Vec::new();
        for endpoint in &self.endpoints {
            // A host that may not say what a tag means still serves what a digest names.
            let allowed = if expected.is_some() {
                endpoint.host.pulls
            } else {
                endpoint.host.resolves
            };
            if !allowed {
                continue;
            }
            let path = format!("manifests/{text}");
            match self
                .retried(endpoint, || {
                    self.fetch(endpoint, &path, ACCEPT, MAX_MANIFEST, expected)
                })
                .await
            {
                Ok(fetched) => return Ok(fetched),
                Err(error) => self.note(&mut failures, endpoint, error),
            }
        }
        Err(self.failed(format!("manifest {text}"), failures))
    }

    /// A small blob, whole and checked.
    pub(crate) async fn blob(&self, digest: Digest, size: u64) -> Result<Vec<u8>, RegistryError> {
        let path = format!("blobs/{digest}");
        let mut failures = Vec::new();
        for endpoint in self.endpoints.iter().filter(|endpoint| endpoint.host.pulls) {
            match self
                .retried(endpoint, || {
                    self.fetch(endpoint, &path, "*/*", size, Some(digest))
                })
                .await
            {
                Ok(fetched) => return Ok(fetched.bytes),
                Err(error) => self.note(&mut failures, endpoint, error),
            }
        }
        Err(self.failed(format!("blob {digest}"), failures))
    }

    /// Sends a blob's `size` bytes to `sink` in order. A broken download goes on where it stopped, at the
    /// same host or the next. Ends early and well when nobody listens any more: the listener knows why.
    pub(crate) async fn stream_blob(
        &self,
        digest: Digest,
        size: u64,
        sink: &mpsc::Sender<bytes::Bytes>,
    ) -> Result<(), RegistryError> {
        let mut download = Download {
            digest,
            size,
            offset: 0,
            sink,
        };
        let mut failures = Vec::new();
        for endpoint in self.endpoints.iter().filter(|endpoint| endpoint.host.pulls) {
            let mut tries = 0;
            loop {
                let before = download.offset;
                let error = match download.go_on(endpoint).await {
                    Ok(()) | Err(Stopped::NobodyListens) => return Ok(()),
                    Err(Stopped::Failed(error)) => error,
                };
                // Progress earns new tries, but a host that drips and breaks must not hold us for ever.
                tries = if download.offset - before > size / 16 {
                    1
                } else {
                    tries + 1
                };
                let passes = error.is_transient()
                    || matches!(error, HostError::Timeout { what: "data", .. });
                if !passes || tries > RETRIES {
                    self.note(&mut failures, endpoint, error);
                    break;
                }
                self.pause(endpoint, tries, &error, download.offset).await;
            }
        }
        Err(self.failed(format!("blob {digest}"), failures))
    }

    async fn fetch(
        &self,
        endpoint: &Endpoint,
        path: &str,
        accept: &'static str,
        most: u64,
        expected: Option<Digest>,
    ) -> Result<Fetched, HostError> {
        let response = endpoint.get(path, accept, 0).await?;
        let content_type = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        let content_type =
            content_type.map(|text| text.split(';').next().unwrap_or(text).trim().to_owned());
        let bytes = endpoint.transport.body(response.into_body(), most).await?;
        let digest = Digest::of(&bytes);
        match expected {
            Some(expected) if expected != digest => Err(HostError::Digest {
                expected,
                found: digest,
            }),
            _ => Ok(Fetched {
                digest,
                content_type,
                bytes,
            }),
        }
    }

    async fn retried<T, F: Future<Output = Result<T, HostError>>>(
        &self,
        endpoint: &Endpoint,
        ask: impl Fn() -> F,
    ) -> Result<T, HostError> {
        let mut tries = 0;
        loop {
            match ask().await {
                Err(error) if error.is_transient() && tries < RETRIES => {
                    tries += 1;
                    self.pause(endpoint, tries, &error, 0).await;
                }
                result => return result,
            }
        }
    }

    async fn pause(&self, endpoint: &Endpoint, tries: u32, error: &HostError, offset: u64) {
        let wait: Duration = self.timeouts.backoff * 2u32.pow(tries.saturating_sub(1));
        tracing::warn!(host = endpoint.name(), repository = self.name, %error, offset, ?wait, "registry request failed, trying again");
        tokio::time::sleep(wait).await;
    }

    fn note(&self, failures: &mut Vec<(String, HostError)>, endpoint: &Endpoint, error: HostError) {
        tracing::debug!(host = endpoint.name(), repository = self.name, %error, "registry host failed");
        failures.push((endpoint.name(), error));
    }

    fn failed(&self, what: String, failures: Vec<(String, HostError)>) -> RegistryError {
        RegistryError::Failed {
            what,
            repository: self.name.clone(),
            failures,
        }
    }
}
