//! Who may pull: the three ways a registry of the field asks.

use http::{HeaderMap, header};

/// What a registry wants to see before it answers.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Auth {
    /// Nothing.
    #[default]
    Anonymous,
    /// A name and password with each request, RFC 7617.
    Basic {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// A token from the registry's token server, which gives one for this name and password, or to
    /// anybody when there is none.
    Bearer {
        /// Name and password for the token server.
        credentials: Option<(String, String)>,
    },
}

/// The token for a scope (`repository:NAME:pull`). It is no secret: tests have none.
pub(super) fn token(scope: &str) -> String {
    format!("token-for/{scope}")
}

impl Auth {
    /// Whether a request for `repository` may go on.
    pub(super) fn admits(&self, headers: &HeaderMap, repository: &str) -> bool {
        let given = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        match self {
            Self::Anonymous => true,
            Self::Basic { user, password } => given == Some(&basic(user, password)),
            Self::Bearer { .. } => {
                given
                    == Some(&format!(
                        "Bearer {}",
                        token(&format!("repository:{repository}:pull"))
                    ))
            }
        }
    }

    /// Whether the token server gives a token.
    pub(super) fn gives_token(&self, headers: &HeaderMap) -> bool {
        let given = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        match self {
            Self::Bearer {
                credentials: Some((user, password)),
            } => given == Some(&basic(user, password)),
            _ => true,
        }
    }

    /// The WWW-Authenticate header of a refusal by the registry at `origin`.
    pub(super) fn challenge(&self, origin: &str, repository: &str) -> String {
        match self {
            Self::Basic { .. } => "Basic realm=\"test\"".to_owned(),
            Self::Anonymous | Self::Bearer { .. } => format!(
                "Bearer realm=\"{origin}/token\",service=\"{origin}\",\
                 scope=\"repository:{repository}:pull\""
            ),
        }
    }
}

/// `Basic` and the base64 of `user:password`.
pub fn basic(user: &str, password: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("Basic ");
    for chunk in format!("{user}:{password}").as_bytes().chunks(3) {
        let mut group = [0; 3];
        group[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for index in 0..4 {
            let six = (bits >> (18 - 6 * index)) & 63;
            text.push(if index > chunk.len() {
                '='
            } else {
                char::from(ALPHABET[six as usize])
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::basic;

    #[test]
    fn base64_as_in_rfc_4648() {
        for (user, password, encoded) in [
            (
                "Aladdin",
                "open sesame",
                "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
            ),
            ("a", "bc", "Basic YTpiYw=="),
            ("a", "b", "Basic YTpi"),
            ("a", "bcd", "Basic YTpiY2Q="),
        ] {
            assert_eq!(basic(user, password), encoded);
        }
    }
}
