//! Where a registry's images come from: containerd's `certs.d/<host>/hosts.toml` layout
//! (containerd docs/hosts.md).

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::error::HostsError;
use super::url::{Scheme, Url, is_loopback};

/// Largest hosts.toml read, bytes.
const MAX_FILE: u64 = 1 << 20;

/// TLS as a hosts.toml wants it; paths are absolute.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct TlsOptions {
    pub(super) verification: Verification,
    pub(super) authorities: Vec<PathBuf>,
    /// Certificate and key; one path when both are in one file.
    pub(super) clients: Vec<(PathBuf, PathBuf)>,
}

/// Whether the server's certificate counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) enum Verification {
    #[default]
    Full,
    /// `skip_verify`: any certificate is taken.
    Skipped,
}

/// One host to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host {
    /// Ends with the API's `/v2` unless the path was overridden.
    pub(super) base: Url,
    /// May be asked which digest a tag means.
    pub(super) resolves: bool,
    /// May be asked for content.
    pub(super) pulls: bool,
    pub(super) headers: Vec<(String, String)>,
    pub(super) tls: TlsOptions,
}

/// The host that serves a registry when nothing is configured.
pub(super) fn default_host(domain: &str) -> &str {
    if domain == "docker.io" {
        "registry-1.docker.io"
    } else {
        domain
    }
}

/// The hosts for a registry, in the order in which they are asked; the registry itself is the last.
pub(super) fn load(config_dirs: &[PathBuf], domain: &str) -> Result<Vec<Host>, HostsError> {
    for directory in config_dirs {
        for candidate in candidates(domain) {
            let directory = directory.join(candidate);
            let path = directory.join("hosts.toml");
            let read = |source| HostsError::Read {
                path: path.clone(),
                source,
            };
            match std::fs::metadata(&path) {
                Err(error)
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                    ) =>
                {
                    continue;
                }
                Err(error) => return Err(read(error)),
                Ok(metadata) if metadata.len() > MAX_FILE => {
                    return Err(read(std::io::Error::other("larger than 1 MiB")));
                }
                Ok(_) => {}
            }
            let text = std::fs::read_to_string(&path).map_err(read)?;
            return parse(&path, &text, domain);
        }
    }
    Ok(vec![upstream(domain)?])
}

/// Directory names in the order of containerd's search.
fn candidates(domain: &str) -> Vec<String> {
    let mut names = vec![domain.to_owned()];
    if let (host, Some(port)) = super::url::split_port(domain) {
        // For file systems that take no colon.
        names.insert(0, format!("{host}_{port}_"));
    }
    names.push("_default".to_owned());
    names
}

fn upstream(domain: &str) -> Result<Host, HostsError> {
    let host = default_host(domain);
    let scheme = if is_loopback(host) && super::url::split_port(host).1 != Some(443) {
        Scheme::Http
    } else {
        Scheme::Https
    };
    let base = Url::parse(host, Some(scheme)).ok_or_else(|| HostsError::Value {
        path: PathBuf::new(),
        problem: "the registry's name is no host that can be asked",
        value: host.to_owned(),
    })?;
    Ok(Host {
        base: base.with_path("/v2".to_owned()),
        resolves: true,
        pulls: true,
        headers: Vec::new(),
        tls: TlsOptions::default(),
    })
}

#[derive(Deserialize, Default)]
struct File {
    server: Option<String>,
    #[serde(default)]
    host: toml::Table,
    #[serde(flatten)]
    settings: Settings,
}

#[derive(Deserialize, Default)]
struct Settings {
    capabilities: Option<Vec<String>>,
    skip_verify: Option<bool>,
    ca: Option<OneOrMany>,
    client: Option<Clients>,
    #[serde(default)]
    header: toml::Table,
    #[serde(default)]
    override_path: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn into_vec(self) -> Vec<String> {
        match self {
            OneOrMany::One(one) => vec![one],
            OneOrMany::Many(many) => many,
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Clients {
    One(String),
    Many(Vec<OneOrMany>),
}

/// Parses a hosts.toml that lies at `path`.
fn parse(path: &Path, text: &str, domain: &str) -> Result<Vec<Host>, HostsError> {
    let malformed = |source| HostsError::Parse {
        path: path.to_owned(),
        source: Box::new(source),
    };
    let file: File = toml::from_str(text).map_err(malformed)?;
    let mut hosts = Vec::new();
    for (url, table) in file.host {
        let settings: Settings = table.try_into().map_err(malformed)?;
        hosts.push(host(path, &url, settings)?);
    }
    let server = match &file.server {
        Some(server) => host(path, server, file.settings)?,
        None => {
            let base = upstream(domain)?.base;
            Host {
                base: base.clone(),
                ..host(path, &base.to_string(), file.settings)?
            }
        }
    };
    if !hosts.iter().any(|known: &Host| known.base == server.base) {
        hosts.push(server);
    }
    Ok(hosts)
}

fn host(path: &Path, url: &str, settings: Settings) -> Result<Host, HostsError> {
    let wrong = |problem, value: &str| HostsError::Value {
        path: path.to_owned(),
        problem,
        value: value.to_owned(),
    };
    let authority = url
        .split_once("://")
        .map_or(url, |(_, rest)| rest)
        .split('/')
        .next()
        .unwrap_or_default();
    let default = if is_loopback(authority) {
        Scheme::Http
    } else {
        Scheme::Https
    };
    let parsed =
        Url::parse(url, Some(default)).ok_or_else(|| wrong("not an http or https URL", url))?;
    let trimmed = parsed.path().trim_end_matches('/');
    let base = if settings.override_path || trimmed.ends_with("/v2") {
        parsed.with_path(trimmed.to_owned())
    } else {
        parsed.with_path(format!("{trimmed}/v2"))
    };
    let capabilities = settings
        .capabilities
        .unwrap_or_else(|| vec!["pull".to_owned(), "resolve".to_owned()]);
    for capability in &capabilities {
        if !matches!(
            capability.as_str(),
            "pull" | "resolve" | "push" | "referrers"
        ) {
            return Err(wrong("unknown capability", capability));
        }
    }
    let has = |name: &str| capabilities.iter().any(|capability| capability == name);
    Ok(Host {
        base,
        resolves: has("resolve"),
        pulls: has("pull"),
        headers: headers(&settings.header)
            .map_err(|value| wrong("not a valid HTTP header", &value))?,
        tls: tls(path, settings.skip_verify, settings.ca, settings.client)?,
    })
}

fn headers(table: &toml::Table) -> Result<Vec<(String, String)>, String> {
    let mut headers = Vec::new();
    for (name, value) in table {
        let values: Vec<&toml::Value> = match value {
            toml::Value::Array(values) => values.iter().collect(),
            one => vec![one],
        };
        for value in values {
            let text = value.as_str().ok_or_else(|| name.clone())?;
            if http::HeaderName::try_from(name).is_err()
                || http::HeaderValue::from_str(text).is_err()
            {
                return Err(name.clone());
            }
            headers.push((name.clone(), text.to_owned()));
        }
    }
    Ok(headers)
}

fn tls(
    path: &Path,
    skip_verify: Option<bool>,
    ca: Option<OneOrMany>,
    client: Option<Clients>,
) -> Result<TlsOptions, HostsError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let absolute = |text: &String| directory.join(text);
    let pair = |texts: Vec<String>| match texts.as_slice() {
        [both] => Ok((absolute(both), absolute(both))),
        [certificate, key] => Ok((absolute(certificate), absolute(key))),
        other => Err(HostsError::Value {
            path: path.to_owned(),
            problem: "client takes a file, or pairs of certificate and key",
            value: format!("{other:?}"),
        }),
    };
    let clients = match client {
        None => Vec::new(),
        Some(Clients::One(both)) => vec![pair(vec![both])?],
        Some(Clients::Many(many)) => many
            .into_iter()
            .map(|one| pair(one.into_vec()))
            .collect::<Result<_, _>>()?,
    };
    Ok(TlsOptions {
        verification: match skip_verify {
            Some(true) => Verification::Skipped,
            _ => Verification::Full,
        },
        authorities: ca
            .map(OneOrMany::into_vec)
            .unwrap_or_default()
            .iter()
            .map(absolute)
            .collect(),
        clients,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bases(text: &str, domain: &str) -> Vec<String> {
        let hosts = parse(Path::new("/c/hosts.toml"), text, domain).unwrap();
        hosts.iter().map(|host| host.base.to_string()).collect()
    }

    #[test]
    fn order_is_kept_and_the_server_is_last() {
        let text = r#"
            server = "https://up.io"
            [host."https://z.io"]
              capabilities = ["pull"]
            [host."http://a.io:5000/proxy"]
            [host."https://m.io/custom/v2"]
            [host."https://o.io/own"]
              override_path = true
        "#;
        assert_eq!(
            bases(text, "docker.io"),
            [
                "https://z.io/v2",
                "http://a.io:5000/proxy/v2",
                "https://m.io/custom/v2",
                "https://o.io/own",
                "https://up.io/v2"
            ]
        );
        assert_eq!(bases("", "docker.io"), ["https://registry-1.docker.io/v2"]);
        assert_eq!(bases("", "localhost:5000"), ["http://localhost:5000/v2"]);
        assert_eq!(
            bases("[host.\"https://a.io\"]", "a.io"),
            ["https://a.io/v2"]
        );
    }

    #[test]
    fn settings() {
        let text = r#"
            [host."https://a.io"]
              capabilities = ["pull", "push"]
              skip_verify = true
              ca = ["ca.pem", "/abs.pem"]
              client = [["c.pem", "c.key"], "both.pem"]
              [host."https://a.io".header]
                x-one = "1"
                x-two = ["2", "3"]
        "#;
        let host = parse(Path::new("/c/hosts.toml"), text, "b.io")
            .unwrap()
            .remove(0);
        assert!(host.pulls && !host.resolves);
        assert_eq!(host.tls.verification, Verification::Skipped);
        assert_eq!(
            host.tls.authorities,
            [PathBuf::from("/c/ca.pem"), PathBuf::from("/abs.pem")]
        );
        assert_eq!(host.tls.clients[0], ("/c/c.pem".into(), "/c/c.key".into()));
        assert_eq!(
            host.tls.clients[1],
            ("/c/both.pem".into(), "/c/both.pem".into())
        );
        assert_eq!(host.headers.len(), 3);
    }

    #[test]
    fn wrong_files_say_what_is_wrong() {
        for (text, part) in [
            ("server = 1", "malformed"),
            ("[host.\"ftp://a\"]", "not an http or https URL"),
            (
                "[host.\"https://a.io\"]\ncapabilities=[\"fly\"]",
                "unknown capability",
            ),
            (
                "[host.\"https://a.io\"]\nclient=[[\"a\",\"b\",\"c\"]]",
                "client takes",
            ),
            (
                "[host.\"https://a.io\".header]\n\"a b\"=\"x\"",
                "HTTP header",
            ),
            ("not toml", "malformed"),
        ] {
            let error = parse(Path::new("/c/hosts.toml"), text, "b.io")
                .unwrap_err()
                .to_string();
            assert!(
                error.contains(part) && error.contains("/c/hosts.toml"),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn directories_are_searched_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, server: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(&path).unwrap();
            std::fs::write(path.join("hosts.toml"), format!("server = {server:?}")).unwrap();
        };
        let dirs = [dir.path().to_owned()];
        let base = |domain: &str| load(&dirs, domain).unwrap()[0].base.to_string();
        assert_eq!(base("a.io:5000"), "https://a.io:5000/v2");
        write("_default", "https://default.io");
        assert_eq!(base("a.io:5000"), "https://default.io/v2");
        write("a.io:5000", "https://exact.io");
        assert_eq!(base("a.io:5000"), "https://exact.io/v2");
        assert_eq!(base("a.io"), "https://default.io/v2");
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,200}") {
            let _ = parse(Path::new("/c/hosts.toml"), &text, "a.io");
            let _ = parse(Path::new("/c/hosts.toml"), &format!("[host.{text:?}]"), "a.io");
        }
    }
}
