//! Where the demo's images come from: their public registry, or images of Debian packages from a registry on loopback.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use podwright_integration::registry::{HOSTS, Registry};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::progress::step;

/// The host of the images, and how long it may take to answer before it counts as unreachable.
const PUBLIC: (&str, u16) = ("registry.k8s.io", 443);
const PATIENCE: Duration = Duration::from_secs(3);

/// Where pulls go.
#[derive(Debug)]
pub(crate) enum Source {
    /// To the public registry; the private one here is empty and not used.
    Public(Registry),
    /// To images that this machine built.
    Private(Registry),
}

impl Source {
    /// Prefers the public registry, so that the first pod is made from images that everybody knows.
    ///
    /// # Errors
    /// When the registry cannot be reached and the images cannot be built either.
    pub(crate) async fn choose() -> Result<Self> {
        let reached = step("looking for registry.k8s.io", async {
            timeout(PATIENCE, TcpStream::connect(PUBLIC)).await?
        });
        if reached.await.is_ok() {
            return Ok(Self::Public(Registry::start().await?));
        }
        println!(
            "      no public registry can be reached: a registry on 127.0.0.1 serves images made from Debian packages"
        );
        let registry = step(
            "opening those images; building them takes a minute, once",
            Registry::with_test_images(),
        );
        let registry = registry.await.context(
            "neither registry.k8s.io nor Debian's packages can be had; the demo needs network access to one of them",
        )?;
        Ok(Self::Private(registry))
    }

    /// The registry that the harness points the daemon to.
    pub(crate) fn registry(&self) -> &Registry {
        match self {
            Self::Public(registry) | Self::Private(registry) => registry,
        }
    }

    /// For public images, takes the harness's mirror configuration away again; it is read at each pull.
    ///
    /// # Errors
    /// When the files cannot be removed.
    pub(crate) fn configure(&self, hosts: &Path) -> Result<()> {
        if let Self::Public(_) = self {
            for host in HOSTS {
                let directory = hosts.join(host);
                std::fs::remove_dir_all(&directory)
                    .with_context(|| format!("removing {}", directory.display()))?;
            }
        }
        Ok(())
    }
}
