//! Talking to registries (OCI distribution-spec): where to ask ([`hosts`]), how ([`transport`]),
//! who we are ([`auth`]), and what to do when it goes wrong ([`repository`], [`blob`]).

mod auth;
mod blob;
mod challenge;
mod endpoint;
mod error;
mod hosts;
mod repository;
mod transport;
mod url;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use error::{HostError, HostsError, RegistryError, TlsError};
pub(crate) use repository::Repository;

use crate::credentials::Credentials;
use crate::reference::Reference;

/// How long a registry may stay silent.
#[derive(Debug, Clone, Copy)]
pub struct RegistryTimeouts {
    /// Until the connection stands (name resolution, TCP).
    pub connect: Duration,
    /// Until an answer's header is there.
    pub response: Duration,
    /// Between two pieces of a body.
    pub stall: Duration,
    /// Before the first retry; each further one waits twice as long.
    pub backoff: Duration,
}

impl Default for RegistryTimeouts {
    fn default() -> RegistryTimeouts {
        RegistryTimeouts {
            connect: Duration::from_secs(10),
            response: Duration::from_secs(30),
            stall: Duration::from_secs(30),
            backoff: Duration::from_millis(250),
        }
    }
}

/// The client for all registries: configuration, connections, tokens.
pub(crate) struct Registries {
    config_dirs: Vec<PathBuf>,
    docker_config: Option<PathBuf>,
    timeouts: RegistryTimeouts,
    transports: transport::Transports,
    tokens: Arc<auth::Tokens>,
}

impl Registries {
    pub(crate) fn new(
        config_dirs: Vec<PathBuf>,
        docker_config: Option<PathBuf>,
        timeouts: RegistryTimeouts,
    ) -> Registries {
        Registries {
            config_dirs,
            docker_config,
            timeouts,
            transports: transport::Transports::new(timeouts),
            tokens: Arc::default(),
        }
    }

    /// The repository of a reference, with the hosts that are configured for its registry.
    pub(crate) fn repository(
        &self,
        reference: &Reference,
        credentials: Option<&Credentials>,
    ) -> Result<Repository, RegistryError> {
        let domain = reference.domain();
        let hosts =
            hosts::load(&self.config_dirs, domain).map_err(|source| RegistryError::Hosts {
                registry: domain.to_owned(),
                source,
            })?;
        let mut endpoints = Vec::with_capacity(hosts.len());
        for host in hosts {
            let transport =
                self.transports
                    .get(&host.tls)
                    .map_err(|source| RegistryError::Tls {
                        host: host.base.to_string(),
                        source,
                    })?;
            let name = host.base.authority().to_owned();
            let secret = match credentials {
                Some(credentials) if credentials.are_for(domain, &name) => {
                    Some(credentials.secret.clone())
                }
                _ => self.docker_credentials(&name)?,
            };
            // containerd's proxies learn from `ns` which registry is meant.
            let namespace = (name != hosts::default_host(domain)).then(|| domain.to_owned());
            endpoints.push(endpoint::Endpoint {
                host,
                namespace,
                secret,
                transport,
                tokens: Arc::clone(&self.tokens),
                repository: reference.path().to_owned(),
            });
        }
        Ok(Repository::new(reference.name(), endpoints, self.timeouts))
    }

    fn docker_credentials(
        &self,
        host: &str,
    ) -> Result<Option<crate::credentials::Secret>, RegistryError> {
        match &self.docker_config {
            None => Ok(None),
            Some(path) => crate::credentials::from_docker_config(path, host)
                .map_err(RegistryError::Credentials),
        }
    }
}
