//! Credentials for registries: from a CRI request, or from docker's `config.json`.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// Largest `config.json` read, bytes.
const MAX_DOCKER_CONFIG: u64 = 4 << 20;

/// Why credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// `auth` must be base64 of `user:password`.
    #[error("the auth field of the credentials for {server:?} is not base64 of user:password")]
    Auth {
        /// The registry that they are for, if any was named.
        server: String,
    },
    /// docker's configuration file cannot be read.
    #[error("cannot read docker's configuration {path:?}")]
    Read {
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// docker's configuration file is no JSON of its form.
    #[error("docker's configuration {path:?} is malformed")]
    Parse {
        /// The file.
        path: std::path::PathBuf,
        /// Where and what.
        #[source]
        source: serde_json::Error,
    },
}

/// What proves who we are. Its `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Secret {
    /// User name and password.
    Basic {
        /// The user's name.
        username: String,
        /// The password, or an access token in its place.
        password: String,
    },
    /// An OAuth2 refresh token, exchanged at the registry's token server.
    IdentityToken(String),
    /// A bearer token, sent to the registry as it is.
    RegistryToken(String),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Secret::Basic { .. } => "Basic(…)",
            Secret::IdentityToken(_) => "IdentityToken(…)",
            Secret::RegistryToken(_) => "RegistryToken(…)",
        })
    }
}

/// A secret and the registry that it is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// The registry's host as the user wrote it; `None`: the host in the image's name.
    pub server: Option<String>,
    /// What is sent there.
    pub secret: Secret,
}

impl Credentials {
    /// From the fields of CRI's `AuthConfig` as they come; all empty means none.
    pub fn from_cri(
        username: &str,
        password: &str,
        auth: &str,
        server_address: &str,
        identity_token: &str,
        registry_token: &str,
    ) -> Result<Option<Credentials>, CredentialsError> {
        let server = (!server_address.is_empty()).then(|| server_address.to_owned());
        let secret = if !registry_token.is_empty() {
            Secret::RegistryToken(registry_token.to_owned())
        } else if !identity_token.is_empty() {
            Secret::IdentityToken(identity_token.to_owned())
        } else if !username.is_empty() || !password.is_empty() {
            Secret::Basic {
                username: username.to_owned(),
                password: password.to_owned(),
            }
        } else if !auth.is_empty() {
            decode_auth(auth).ok_or_else(|| CredentialsError::Auth {
                server: server_address.to_owned(),
            })?
        } else {
            return Ok(None);
        };
        Ok(Some(Credentials { server, secret }))
    }

    /// Whether they may be sent to `host`, an endpoint for images of the registry `domain`.
    pub(crate) fn are_for(&self, domain: &str, host: &str) -> bool {
        match &self.server {
            // Without a server named they are for the registry that the image's name says.
            None => same_registry(domain, host),
            Some(server) => same_registry(server_host(server), host),
        }
    }
}

/// `user:password` in base64; some tools pad the password with zero bytes.
fn decode_auth(auth: &str) -> Option<Secret> {
    let text = String::from_utf8(STANDARD.decode(auth.trim()).ok()?).ok()?;
    let (username, password) = text.split_once(':')?;
    Some(Secret::Basic {
        username: username.to_owned(),
        password: password.trim_end_matches('\0').to_owned(),
    })
}

/// Host and port of what may be a URL, such as `https://index.docker.io/v1/`.
fn server_host(server: &str) -> &str {
    let rest = server.split_once("://").map_or(server, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

/// Docker's registry has three names.
fn same_registry(a: &str, b: &str) -> bool {
    let canonical = |host: &str| match host {
        "docker.io" | "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        other => other.to_ascii_lowercase(),
    };
    canonical(a) == canonical(b)
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: HashMap<String, DockerAuth>,
}

#[derive(Deserialize)]
struct DockerAuth {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    identitytoken: String,
    #[serde(default)]
    registrytoken: String,
}

/// Looks up `host` in docker's `config.json`; the file is read anew, so changes count at once.
pub(crate) fn from_docker_config(
    path: &Path,
    host: &str,
) -> Result<Option<Secret>, CredentialsError> {
    let read = |source| CredentialsError::Read {
        path: path.to_owned(),
        source,
    };
    let bytes = match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(read(error)),
        Ok(metadata) if metadata.len() > MAX_DOCKER_CONFIG => {
            return Err(read(std::io::Error::other("larger than 4 MiB")));
        }
        Ok(_) => std::fs::read(path).map_err(read)?,
    };
    let config: DockerConfig =
        serde_json::from_slice(&bytes).map_err(|source| CredentialsError::Parse {
            path: path.to_owned(),
            source,
        })?;
    let Some((server, entry)) = config
        .auths
        .iter()
        .find(|(server, _)| same_registry(server_host(server), host))
    else {
        return Ok(None);
    };
    let found = Credentials::from_cri(
        &entry.username,
        &entry.password,
        &entry.auth,
        server,
        &entry.identitytoken,
        &entry.registrytoken,
    )?;
    Ok(found.map(|credentials| credentials.secret))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn cri_fields() {
        let basic = |u: &str, p: &str| Secret::Basic {
            username: u.to_owned(),
            password: p.to_owned(),
        };
        let secret = |f: [&str; 5]| {
            Credentials::from_cri(f[0], f[1], f[2], "", f[3], f[4])
                .unwrap()
                .map(|c| c.secret)
        };
        assert_eq!(secret(["", "", "", "", ""]), None);
        assert_eq!(secret(["u", "p", "", "", ""]), Some(basic("u", "p")));
        assert_eq!(
            secret(["", "", "dTpwOnE=", "", ""]),
            Some(basic("u", "p:q"))
        );
        assert_eq!(
            secret(["", "", "", "i", ""]),
            Some(Secret::IdentityToken("i".to_owned()))
        );
        assert_eq!(
            secret(["u", "p", "", "", "r"]),
            Some(Secret::RegistryToken("r".to_owned()))
        );
        assert!(Credentials::from_cri("", "", "%%%", "", "", "").is_err());
        assert!(!format!("{:?}", basic("u", "secret")).contains("secret"));
    }

    #[test]
    fn go_to_the_host_they_are_for() {
        let of = |server: Option<&str>| Credentials {
            server: server.map(str::to_owned),
            secret: Secret::RegistryToken(String::new()),
        };
        for (server, domain, host, sent) in [
            (None, "docker.io", "registry-1.docker.io", true),
            (None, "docker.io", "mirror.local", false),
            (None, "a.io", "a.io", true),
            (
                Some("https://index.docker.io/v1/"),
                "docker.io",
                "registry-1.docker.io",
                true,
            ),
            (Some("a.io"), "b.io", "b.io", false),
            (
                Some("mirror.local:5000"),
                "docker.io",
                "mirror.local:5000",
                true,
            ),
        ] {
            assert_eq!(
                of(server).are_for(domain, host),
                sent,
                "{server:?} {domain} {host}"
            );
        }
    }

    #[test]
    fn docker_config_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        assert_eq!(from_docker_config(&path, "a.io").unwrap(), None);
        std::fs::write(&path, r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"},"a.io":{"identitytoken":"t"}},"credsStore":"x"}"#).unwrap();
        assert!(matches!(
            from_docker_config(&path, "registry-1.docker.io").unwrap(),
            Some(Secret::Basic { .. })
        ));
        assert_eq!(
            from_docker_config(&path, "a.io").unwrap(),
            Some(Secret::IdentityToken("t".to_owned()))
        );
        assert_eq!(from_docker_config(&path, "b.io").unwrap(), None);
        std::fs::write(&path, "{").unwrap();
        assert!(from_docker_config(&path, "a.io").is_err());
    }
}
