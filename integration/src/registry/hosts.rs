//! Mirror configuration in containerd's hosts.toml layout: a directory per registry host.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use super::Registry;

/// The registries that the test images come from.
pub const HOSTS: &[&str] = &["registry.k8s.io", "gcr.io", "k8s.gcr.io", "docker.io"];

/// How a client is to judge a registry's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// By the system's authorities, of which the registry's is none.
    System,
    /// By the registry's own authority: `ca`.
    Authority,
    /// Not at all: `skip_verify`.
    Anything,
}

impl Registry {
    /// Writes a `hosts.toml` for each of [`HOSTS`] below `directory`, so that pulls from them come
    /// here, and one for this registry's own address.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn write_hosts(&self, directory: &Path) -> Result<()> {
        for host in HOSTS {
            self.write_host(directory, host)?;
        }
        self.write_own(directory, Trust::System)
    }

    /// Makes this registry the mirror of `host`, with no fallback to the host itself.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_host(&self, directory: &Path, host: &str) -> Result<()> {
        let origin = self.origin();
        let text = format!(
            "server = \"{origin}\"\n\n\
             [host.\"{origin}\"]\n\
             capabilities = [\"pull\", \"resolve\"]\n"
        );
        write(&directory.join(host), "hosts.toml", &text)
    }

    /// Says how this registry's own address is reached, and what its certificate is worth.
    ///
    /// # Errors
    /// When the files cannot be written, or an authority is to be trusted that there is not.
    pub fn write_own(&self, directory: &Path, trust: Trust) -> Result<()> {
        let directory = directory.join(self.address.to_string());
        let setting = match trust {
            Trust::System => "",
            Trust::Anything => "skip_verify = true\n",
            Trust::Authority => {
                let authority = self.authority.as_deref();
                let authority = authority.context("a registry without TLS has no authority")?;
                write(&directory, "ca.pem", authority)?;
                "ca = \"ca.pem\"\n"
            }
        };
        let text = format!("server = \"{}\"\n{setting}", self.origin());
        write(&directory, "hosts.toml", &text)
    }
}

fn write(directory: &Path, name: &str, text: &str) -> Result<()> {
    let path = directory.join(name);
    fs::create_dir_all(directory)
        .and_then(|()| fs::write(&path, text))
        .with_context(|| format!("writing {}", path.display()))
}
