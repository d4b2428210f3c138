//! The few URLs that matter here: scheme, host with port, path with query.

use std::fmt;

/// Whether a connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Scheme {
    Http,
    Https,
}

/// An absolute http or https URL.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Url {
    scheme: Scheme,
    authority: String,
    /// Begins with `/` or is empty; no query.
    path: String,
    query: Option<String>,
}

impl Url {
    /// Parses `http://…` or `https://…`; a text without a scheme takes `default`. User information is refused.
    pub(super) fn parse(text: &str, default: Option<Scheme>) -> Option<Url> {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (Scheme::Http, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (Scheme::Https, rest),
            Some(_) => return None,
            None => (default?, text),
        };
        let rest = rest.split('#').next().unwrap_or(rest);
        let (before_query, query) = match rest.split_once('?') {
            Some((before, query)) => (before, Some(query.to_owned())),
            None => (rest, None),
        };
        let path_start = before_query.find('/').unwrap_or(before_query.len());
        let (authority, path) = before_query.split_at(path_start);
        if authority.contains('@') {
            return None;
        }
        // http's own parser decides whether the rest is well formed.
        let authority: http::uri::Authority = authority.parse().ok()?;
        let url = Url {
            scheme,
            authority: authority.as_str().to_ascii_lowercase(),
            path: path.to_owned(),
            query,
        };
        url.uri().is_some().then_some(url)
    }

    /// The URL that a `Location` header means, seen from this one.
    pub(super) fn join(&self, location: &str) -> Option<Url> {
        if let Some(rest) = location.strip_prefix("//") {
            return Url::parse(rest, Some(self.scheme));
        }
        if location
            .split(['/', '?'])
            .next()
            .is_some_and(|first| first.contains(':'))
        {
            return Url::parse(location, None);
        }
        let path = if location.starts_with('/') {
            location.to_owned()
        } else {
            let directory = self
                .path
                .rfind('/')
                .map_or("/", |slash| &self.path[..=slash]);
            format!("{directory}{location}")
        };
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        Url::parse(&format!("{scheme}://{}{path}", self.authority), None)
    }

    /// With more path and, when given, one query parameter.
    pub(super) fn child(&self, path: &str, query: Option<(&str, &str)>) -> Url {
        let query = query.map(|(key, value)| format!("{key}={}", percent_encode(value)));
        Url {
            path: format!("{}{path}", self.path),
            query,
            ..self.clone()
        }
    }

    /// Adds query parameters to those that are there.
    pub(super) fn with_parameters(mut self, parameters: &[(&str, &str)]) -> Url {
        for (key, value) in parameters {
            let pair = format!("{key}={}", percent_encode(value));
            self.query = Some(match self.query {
                Some(query) if !query.is_empty() => format!("{query}&{pair}"),
                _ => pair,
            });
        }
        self
    }

    pub(super) fn with_path(&self, path: String) -> Url {
        Url {
            path,
            ..self.clone()
        }
    }

    pub(super) fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Host and, when given, port.
    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Same scheme, host and port: who may see the same secrets.
    pub(super) fn same_origin(&self, other: &Url) -> bool {
        let port = |url: &Url| {
            let default = match url.scheme {
                Scheme::Http => 80,
                Scheme::Https => 443,
            };
            let (host, port) = split_port(&url.authority);
            (host.to_owned(), port.unwrap_or(default))
        };
        self.scheme == other.scheme && port(self) == port(other)
    }

    pub(super) fn uri(&self) -> Option<http::Uri> {
        self.to_string().parse().ok()
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        write!(f, "{scheme}://{}{}", self.authority, self.path)?;
        match &self.query {
            Some(query) => write!(f, "?{query}"),
            None => Ok(()),
        }
    }
}

/// Splits `host:port`; an IPv6 address keeps its brackets.
pub(super) fn split_port(authority: &str) -> (&str, Option<u16>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (authority, None),
        },
        _ => (authority, None),
    }
}

/// Whether a host is this machine, where plain HTTP can be read by nobody else.
pub(super) fn is_loopback(authority: &str) -> bool {
    let host = split_port(authority).0;
    if host == "localhost" {
        return true;
    }
    let address = host.trim_start_matches('[').trim_end_matches(']');
    address
        .parse::<std::net::IpAddr>()
        .is_ok_and(|address| address.is_loopback())
}

/// Everything but RFC 3986's unreserved characters and `/`, which queries may hold.
fn percent_encode(value: &str) -> String {
    let mut encoded = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/:".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn locations() {
        let from = Url::parse("https://a.io:8443/v2/x/blobs/d?ns=b", None).unwrap();
        for (location, expected) in [
            ("/other?k=v", Some("https://a.io:8443/other?k=v")),
            ("http://b.io/c", Some("http://b.io/c")),
            ("//cdn.io/c", Some("https://cdn.io/c")),
            ("e", Some("https://a.io:8443/v2/x/blobs/e")),
            ("ftp://b.io/c", None),
            ("https://user:pw@b.io/c", None),
            ("https:///c", None),
            ("javascript:1", None),
        ] {
            assert_eq!(
                from.join(location).map(|url| url.to_string()).as_deref(),
                expected,
                "{location}"
            );
        }
    }

    #[test]
    fn origins_and_loopback() {
        let url = |text| Url::parse(text, None).unwrap();
        assert!(url("https://a.io/x").same_origin(&url("https://A.io:443/y")));
        assert!(!url("https://a.io").same_origin(&url("http://a.io")));
        assert!(!url("https://a.io").same_origin(&url("https://a.io:444")));
        for (host, loopback) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.8.9.1:1", true),
            ("[::1]:5000", true),
            ("[::1]", true),
            ("10.0.0.1", false),
            ("localhost.a.io", false),
        ] {
            assert_eq!(is_loopback(host), loopback, "{host}");
        }
    }
}
