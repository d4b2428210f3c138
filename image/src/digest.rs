//! Content digests (OCI image-spec, "Digests"): SHA-256 only, the one that every registry must know.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest as _, Sha256};

/// Why a text is not a digest that we take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// Registered in the specification, but nothing in the field uses it.
    #[error("digest {text:?}: algorithm {algorithm:?} is not supported, only sha256 is")]
    Algorithm {
        /// The text given.
        text: String,
        /// What stands before the colon.
        algorithm: String,
    },
    /// Not `algorithm:hex`.
    #[error("digest {text:?} is malformed: expected sha256: and 64 lower-case hex digits")]
    Malformed {
        /// The text given.
        text: String,
    },
}

/// A SHA-256 digest; its text is `sha256:` and 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }

    /// Takes the result of a running hash.
    pub(crate) fn from_hasher(hasher: Sha256) -> Digest {
        Digest(hasher.finalize().into())
    }

    /// The 64 hex digits without the algorithm.
    pub fn hex(&self) -> String {
        use fmt::Write as _;
        let mut text = String::with_capacity(64);
        for byte in self.0 {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Digest, DigestError> {
        let malformed = || DigestError::Malformed {
            text: shorten(text),
        };
        let (algorithm, hex) = text.split_once(':').ok_or_else(malformed)?;
        if algorithm != "sha256" {
            let known = matches!(algorithm, "sha512" | "sha384" | "blake3");
            return Err(if known {
                DigestError::Algorithm {
                    text: shorten(text),
                    algorithm: algorithm.to_owned(),
                }
            } else {
                malformed()
            });
        }
        parse_hex(hex).map(Digest).ok_or_else(malformed)
    }
}

fn parse_hex(hex: &str) -> Option<[u8; 32]> {
    let digits = hex.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

/// Texts from outside are quoted in errors only so far.
fn shorten(text: &str) -> String {
    text.chars().take(96).collect()
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

/// Makes a newtype around [`Digest`] with the same text forms.
macro_rules! digest_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Digest);

        impl $name {
            /// The digest itself.
            pub fn digest(&self) -> Digest {
                self.0
            }
        }

        impl From<Digest> for $name {
            fn from(digest: Digest) -> $name {
                $name(digest)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = DigestError;

            fn from_str(text: &str) -> Result<$name, DigestError> {
                text.parse().map($name)
            }
        }
    };
}

digest_newtype! {
    /// An image's id: the digest of its configuration.
    ImageId
}
digest_newtype! {
    /// A layer together with all layers below it (OCI image-spec config.md, "Layer ChainID").
    ChainId
}

impl ChainId {
    /// The chain ids of a stack of layers, lowest first.
    pub(crate) fn stack(diff_ids: &[Digest]) -> Vec<ChainId> {
        let mut chains: Vec<ChainId> = Vec::with_capacity(diff_ids.len());
        for diff_id in diff_ids {
            let chain = match chains.last() {
                None => *diff_id,
                Some(parent) => Digest::of(format!("{parent} {diff_id}").as_bytes()),
            };
            chains.push(ChainId(chain));
        }
        chains
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn text_and_back() {
        let digest = Digest::of(b"");
        assert_eq!(digest.to_string(), EMPTY);
        assert_eq!(EMPTY.parse::<Digest>().unwrap(), digest);
    }

    #[test]
    fn refuses_what_is_no_sha256() {
        for text in [
            "",
            "sha256",
            "sha256:",
            "sha256:abcd",
            &EMPTY.to_uppercase(),
            &EMPTY[7..],
        ] {
            assert!(
                matches!(text.parse::<Digest>(), Err(DigestError::Malformed { .. })),
                "{text}"
            );
        }
        assert!(matches!(
            "sha512:00".parse::<Digest>(),
            Err(DigestError::Algorithm { .. })
        ));
    }

    #[test]
    fn chain_ids_follow_the_specification() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let chains = ChainId::stack(&[a, b]);
        assert_eq!(chains[0].digest(), a);
        assert_eq!(
            chains[1].digest(),
            Digest::of(format!("{a} {b}").as_bytes())
        );
    }
}
