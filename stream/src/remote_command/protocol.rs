//! The versions of the protocol, and what they are called.

use crate::websocket::Encoding;

/// What is spoken over SPDY, the newest first.
pub(crate) const SPDY_PROTOCOLS: &[&str] = &[
    "v4.channel.k8s.io",
    "v3.channel.k8s.io",
    "v2.channel.k8s.io",
    "channel.k8s.io",
];

/// What is spoken over WebSocket, the newest first.
pub(crate) const WEB_SOCKET_PROTOCOLS: &[&str] = &[
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "v3.channel.k8s.io",
    "v2.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
];

/// Each can what those before it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    V1,
    V2,
    /// Terminals have sizes.
    V3,
    /// The error stream carries a status object, and so exit codes.
    V4,
    /// Over WebSocket, channels can be half-closed.
    V5,
}

impl Version {
    /// The version that a client names over SPDY.
    pub(crate) fn spdy(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|version| version.name() == name && *version < Self::V5)
    }

    const ALL: [Self; 5] = [Self::V1, Self::V2, Self::V3, Self::V4, Self::V5];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V1 => "channel.k8s.io",
            Self::V2 => "v2.channel.k8s.io",
            Self::V3 => "v3.channel.k8s.io",
            Self::V4 => "v4.channel.k8s.io",
            Self::V5 => "v5.channel.k8s.io",
        }
    }
}

/// A version and how its channels are written over WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WebSocketProtocol {
    /// As the client named it; empty when it named none.
    pub(crate) name: &'static str,
    pub(crate) version: Version,
    pub(crate) encoding: Encoding,
}

impl WebSocketProtocol {
    pub(crate) fn named(name: &str) -> Option<Self> {
        let spoken = |name, version, encoding| {
            Some(Self {
                name,
                version,
                encoding,
            })
        };
        match name {
            "" => spoken("", Version::V1, Encoding::Binary),
            "v4.base64.channel.k8s.io" => {
                spoken("v4.base64.channel.k8s.io", Version::V4, Encoding::Base64)
            }
            "base64.channel.k8s.io" => {
                spoken("base64.channel.k8s.io", Version::V1, Encoding::Base64)
            }
            _ => {
                let version = Version::ALL.into_iter().find(|v| v.name() == name)?;
                spoken(version.name(), version, Encoding::Binary)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_told_is_spoken() {
        for name in SPDY_PROTOCOLS {
            assert_eq!(Version::spdy(name).unwrap().name(), *name);
        }
        for name in WEB_SOCKET_PROTOCOLS {
            assert_eq!(WebSocketProtocol::named(name).unwrap().name, *name);
        }
        assert_eq!(Version::spdy("v5.channel.k8s.io"), None);
        assert_eq!(Version::spdy(""), None);
        assert_eq!(WebSocketProtocol::named("v6.channel.k8s.io"), None);
        assert_eq!(WebSocketProtocol::named("").unwrap().version, Version::V1);
    }
}
