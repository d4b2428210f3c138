//! Mirror configuration in containerd's hosts.toml layout: a directory per registry host.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use super::Registry;

/// The registries that the test images come from.
pub const HOSTS: &[&str] = &["registry.k8s.io", "gcr.io", "k8s.gcr.io", "docker.io"];

impl Registry {
    /// Writes a `hosts.toml` for each of [`HOSTS`] below `directory`, so that pulls from them come
    /// here, and one that allows plain HTTP for this registry's own address.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn write_hosts(&self, directory: &Path) -> Result<()> {
        for host in HOSTS {
            self.write_host(directory, host)?;
        }
        let own = format!("server = \"http://{}\"\n", self.address);
        write(directory, &self.address.to_string(), &own)
    }

    /// Makes this registry the mirror of `host`, with no fallback to the host itself.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_host(&self, directory: &Path, host: &str) -> Result<()> {
        let address = self.address;
        let text = format!(
            "server = \"http://{address}\"\n\n\
             [host.\"http://{address}\"]\n\
             capabilities = [\"pull\", \"resolve\"]\n"
        );
        write(directory, host, &text)
    }
}

fn write(directory: &Path, host: &str, text: &str) -> Result<()> {
    let directory = directory.join(host);
    let path = directory.join("hosts.toml");
    fs::create_dir_all(&directory)
        .and_then(|()| fs::write(&path, text))
        .with_context(|| format!("writing {}", path.display()))
}
