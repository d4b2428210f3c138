//! Image references, `[domain/]path[:tag][@digest]`, by the grammar of distribution/reference and
//! normalised as docker and containerd do: `busybox` is `docker.io/library/busybox:latest`.

use std::fmt;
use std::str::FromStr;

use crate::digest::{Digest, DigestError};

/// Longest repository name with its domain (distribution/reference, `NameTotalLengthMax`).
const MAX_NAME: usize = 255;
/// Longest tag.
const MAX_TAG: usize = 128;
const DEFAULT_DOMAIN: &str = "docker.io";

/// Why a text is no image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// The name before the tag or digest breaks the grammar.
    #[error("image reference {reference:?} is invalid: {problem}")]
    Invalid {
        /// The text given, shortened.
        reference: String,
        /// Which rule it breaks.
        problem: &'static str,
    },
    /// What stands behind the `@` is no digest.
    #[error("image reference {reference:?} has an invalid digest")]
    Digest {
        /// The text given, shortened.
        reference: String,
        /// What is wrong with the digest.
        #[source]
        source: DigestError,
    },
}

/// What a reference picks in its repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// A tag; it may move.
    Tag(String),
    /// One manifest for ever.
    Digest(Digest),
}

/// A normalised image reference.
///
/// A reference with a tag and a digest means the digest; the tag is dropped, as containerd does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    domain: String,
    path: String,
    target: Target,
}

impl Reference {
    /// The registry's host and port as users write it (`docker.io`, `localhost:5000`).
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository's path at the registry (`library/busybox`).
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Tag or digest.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Domain and path: the repository's full name.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Target::Tag(tag) => write!(f, "{}/{}:{tag}", self.domain, self.path),
            Target::Digest(digest) => write!(f, "{}/{}@{digest}", self.domain, self.path),
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Reference, ReferenceError> {
        let quoted = || text.chars().take(300).collect::<String>();
        let invalid = |problem| ReferenceError::Invalid {
            reference: quoted(),
            problem,
        };
        let (rest, digest) = match text.split_once('@') {
            None => (text, None),
            Some((rest, digest)) => {
                let digest = digest.parse().map_err(|source| ReferenceError::Digest {
                    reference: quoted(),
                    source,
                })?;
                (rest, Some(digest))
            }
        };
        // A colon after the last slash starts the tag; one before it is a port's.
        let name_end = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[name_end..].find(':') {
            None => (rest, None),
            Some(colon) => {
                let colon = name_end + colon;
                (&rest[..colon], Some(&rest[colon + 1..]))
            }
        };
        if is_hex_id(name) {
            return Err(invalid("64 hex digits are an image id, not a name"));
        }
        let (domain, path) = split_domain(name);
        check_domain(domain).map_err(invalid)?;
        check_path(&path).map_err(invalid)?;
        if domain.len() + 1 + path.len() > MAX_NAME {
            return Err(invalid("the name is longer than 255 characters"));
        }
        if let Some(tag) = tag {
            check_tag(tag).map_err(invalid)?;
        }
        let target = match digest {
            Some(digest) => Target::Digest(digest),
            None => Target::Tag(tag.unwrap_or("latest").to_owned()),
        };
        Ok(Reference {
            domain: domain.to_owned(),
            path,
            target,
        })
    }
}

fn is_hex_id(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Splits off the domain: the first component is one when it could not be a path's.
fn split_domain(name: &str) -> (&str, String) {
    let (domain, path) = match name.split_once('/') {
        Some((first, path))
            if first.contains(['.', ':', '['])
                || first == "localhost"
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (first, path)
        }
        _ => (DEFAULT_DOMAIN, name),
    };
    match domain {
        "docker.io" | "index.docker.io" if !path.contains('/') => {
            (DEFAULT_DOMAIN, format!("library/{path}"))
        }
        "index.docker.io" => (DEFAULT_DOMAIN, path.to_owned()),
        _ => (domain, path.to_owned()),
    }
}

fn check_domain(domain: &str) -> Result<(), &'static str> {
    let (host, port) = match domain.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest
                .split_once(']')
                .ok_or("the address's bracket is not closed")?;
            if !host.bytes().all(|b| b.is_ascii_hexdigit() || b == b':') || host.is_empty() {
                return Err("the address in brackets is no IPv6 address");
            }
            (
                None,
                if port.is_empty() {
                    None
                } else {
                    Some(port.strip_prefix(':').ok_or("text after the bracket")?)
                },
            )
        }
        None => match domain.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(domain), None),
        },
    };
    if let Some(host) = host {
        let label = |label: &str| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if !host.split('.').all(label) {
            return Err("the registry's host name is malformed");
        }
    }
    match port.map(str::parse::<u16>) {
        Some(Err(_)) => Err("the registry's port is no number up to 65535"),
        Some(Ok(_)) if port.is_some_and(|p| p.starts_with('+')) => {
            Err("the registry's port is no number up to 65535")
        }
        _ => Ok(()),
    }
}

fn check_path(path: &str) -> Result<(), &'static str> {
    if path.is_empty() {
        return Err("the repository's name is empty");
    }
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("the repository's name must be lower case");
    }
    if path.split('/').all(is_path_component) {
        Ok(())
    } else {
        Err(
            "a repository's path is lower-case letters and digits, separated by one . _ __ or dashes",
        )
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9');
    let bytes = component.as_bytes();
    let mut words = bytes.split(|&b| alphanumeric(b)).peekable();
    // Splitting by the letters leaves the separators; the outer ones are empty when a word is outside.
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    alphanumeric(*first)
        && alphanumeric(*last)
        && words.all(|separator| match separator {
            b"" | b"." | b"_" | b"__" => true,
            dashes => dashes.iter().all(|&b| b == b'-'),
        })
}

/// `[\w][\w.-]{0,127}`
fn check_tag(tag: &str) -> Result<(), &'static str> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    match tag.as_bytes() {
        [] => Err("the tag is empty"),
        bytes if bytes.len() > MAX_TAG => Err("the tag is longer than 128 characters"),
        [first, rest @ ..]
            if word(*first) && rest.iter().all(|&b| word(b) || b == b'.' || b == b'-') =>
        {
            Ok(())
        }
        _ => Err("a tag is letters, digits, _ . and -, and starts with neither . nor -"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn normalises_as_docker_does() {
        let by_digest = format!("a.io/b@sha256:{HEX}");
        let both = format!("a.io/b:tag@sha256:{HEX}");
        for (given, normal) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1", "docker.io/library/busybox:1"),
            ("user/app", "docker.io/user/app:latest"),
            ("docker.io/busybox", "docker.io/library/busybox:latest"),
            (
                "index.docker.io/busybox",
                "docker.io/library/busybox:latest",
            ),
            ("index.docker.io/a/b", "docker.io/a/b:latest"),
            ("localhost/a", "localhost/a:latest"),
            ("localhost:5000/a:b", "localhost:5000/a:b"),
            (
                "127.0.0.1:5000/a/b_c/d__e/f--g.h:V1.0_x-y",
                "127.0.0.1:5000/a/b_c/d__e/f--g.h:V1.0_x-y",
            ),
            ("[::1]:5000/a", "[::1]:5000/a:latest"),
            ("[::1]/a", "[::1]/a:latest"),
            ("Registry/a", "Registry/a:latest"),
            (&by_digest, &by_digest),
            (&both, &by_digest),
        ] {
            assert_eq!(
                given.parse::<Reference>().unwrap().to_string(),
                normal,
                "{given}"
            );
        }
    }

    #[test]
    fn refuses_what_the_grammar_refuses() {
        let long = format!("a.io/{}", "a".repeat(251));
        let long_tag = format!("a:{}", "a".repeat(129));
        for given in [
            "",
            ":",
            "/",
            "a//b",
            "a/",
            "A",
            "a.io/B",
            "a:",
            "a:-b",
            "a:.b",
            "a b",
            "a@",
            "a@sha256:12",
            "a@sha512:00",
            "a.io:port/b",
            "a.io:99999/b",
            "-a.io/b",
            "a..io/b",
            "[::1/b",
            "[g]/b",
            "a___b",
            "a._b",
            "_a",
            "a_",
            "a/../b",
            "https://a.io/b",
            HEX,
            &long,
            &long_tag,
            "a.io:+80/b",
            "ä",
        ] {
            assert!(given.parse::<Reference>().is_err(), "{given:?} was taken");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_is_stable(text in "\\PC{0,80}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
            }
        }

        #[test]
        fn well_formed_is_taken(text in "([a-z0-9]{1,8}\\.io(:[0-9]{1,4})?/)?[a-z0-9]{1,8}(/[a-z0-9]{1,8}(-[a-z0-9]+)?){0,2}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,20})?") {
            let reference: Reference = text.parse().unwrap();
            prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
        }
    }
}
