//! Ids of sandboxes and containers: 64 hex characters, made at random.

use std::fmt;
use std::io::Read;

use podwright_pause::wire::Bytes;

/// Why a string is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{shown}' is not an id: 64 lower-case hex characters are")]
pub(crate) struct InvalidId {
    /// The string, cut where it is long.
    pub(crate) shown: String,
}

fn parse(text: &str) -> Result<Box<str>, InvalidId> {
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() == 64 && text.bytes().all(hex) {
        Ok(text.into())
    } else {
        Err(InvalidId {
            shown: text.chars().take(80).collect(),
        })
    }
}

fn random() -> std::io::Result<Box<str>> {
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(hex(&bytes).into())
}

/// Lower-case hex digits of `bytes`.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
            // Writing to a String does not fail.
            let _ = write!(out, "{byte:02x}");
            out
        })
}

macro_rules! id {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub(crate) struct $name(Box<str>);

        impl $name {
            /// A new one; fails only when /dev/urandom does.
            pub(crate) fn random() -> std::io::Result<Self> {
                random().map(Self)
            }
            /// Checks the form.
            pub(crate) fn parse(text: &str) -> Result<Self, InvalidId> {
                parse(text).map(Self)
            }
            /// The 64 characters.
            pub(crate) fn as_str(&self) -> &str {
                &self.0
            }
            /// As it travels to pause.
            pub(crate) fn wire(&self) -> Bytes {
                Bytes(self.0.as_bytes().to_vec())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

id! {
    /// A pod sandbox's id.
    SandboxId
}
id! {
    /// A container's id.
    ContainerId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_64_lower_case_hex_characters_are_an_id() {
        let good = "0123456789abcdef".repeat(4);
        assert_eq!(
            SandboxId::parse(&good).map(|id| id.to_string()),
            Ok(good.clone())
        );
        for bad in [
            "",
            "abc",
            &good[1..],
            &good.to_uppercase(),
            &format!("{good}0"),
            &format!("../{}", &good[3..]),
        ] {
            assert!(ContainerId::parse(bad).is_err(), "{bad}");
        }
        let long = "x".repeat(64 * 1024);
        assert!(SandboxId::parse(&long).is_err_and(|error| error.to_string().len() < 200));
    }

    #[test]
    fn random_ids_are_ids_and_differ() {
        let (one, two) = (SandboxId::random().unwrap(), SandboxId::random().unwrap());
        assert_ne!(one, two);
        assert!(SandboxId::parse(one.as_str()).is_ok());
    }
}
