//! Which manifest of an index fits this machine.

use serde::Deserialize;

/// `platform` of an index entry (OCI image-spec image-index.md).
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub(crate) struct Platform {
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) os: String,
    #[serde(default)]
    pub(crate) variant: Option<String>,
}

impl Platform {
    /// The platform of this build, in Go's names.
    pub(crate) fn host() -> Platform {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "aarch64" => ("arm64", Some("v8")),
            "arm" => ("arm", Some("v7")),
            "x86" => ("386", None),
            "powerpc64" => ("ppc64le", None),
            other => (other, None),
        };
        Platform {
            architecture: architecture.to_owned(),
            os: "linux".to_owned(),
            variant: variant.map(str::to_owned),
        }
    }

    /// How well an entry for `offered` runs on this platform: `None` not at all, else smaller is better.
    ///
    /// An amd64 variant above v1 may need instructions that this machine lacks, so only the plain one
    /// is taken; 32- and 64-bit arm run their own and lower variants, the nearest first.
    pub(crate) fn distance(&self, offered: &Platform) -> Option<u32> {
        if self.os != offered.os || self.architecture != offered.architecture {
            return None;
        }
        let number = |platform: &Platform| -> Option<u32> {
            let default = match platform.architecture.as_str() {
                "amd64" => "v1",
                "arm64" => "v8",
                "arm" => "v7",
                _ => "v0",
            };
            let variant = platform
                .variant
                .as_deref()
                .filter(|v| !v.is_empty())
                .unwrap_or(default);
            let number = variant.strip_prefix('v')?;
            number.split('.').next()?.parse().ok()
        };
        number(self)?.checked_sub(number(offered)?)
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match self.variant.as_deref() {
            Some(variant) if !variant.is_empty() => write!(f, "/{variant}"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        let mut parts = text.split('/').map(str::to_owned);
        Platform {
            os: parts.next().unwrap_or_default(),
            architecture: parts.next().unwrap_or_default(),
            variant: parts.next(),
        }
    }

    #[test]
    fn nearest_variant_wins_and_foreign_ones_never() {
        for (host, offered, distance) in [
            ("linux/amd64", "linux/amd64", Some(0)),
            ("linux/amd64", "linux/amd64/v1", Some(0)),
            ("linux/amd64", "linux/amd64/v3", None),
            ("linux/amd64", "windows/amd64", None),
            ("linux/amd64", "unknown/unknown", None),
            ("linux/arm64/v8", "linux/arm64", Some(0)),
            ("linux/arm64/v8", "linux/arm64/v8", Some(0)),
            ("linux/arm64/v8", "linux/arm64/v9", None),
            ("linux/arm/v7", "linux/arm/v6", Some(1)),
            ("linux/arm/v7", "linux/arm/v5", Some(2)),
            ("linux/arm64/v8", "linux/arm/v7", None),
            ("linux/amd64", "linux/amd64/strange", None),
        ] {
            assert_eq!(
                platform(host).distance(&platform(offered)),
                distance,
                "{host} {offered}"
            );
        }
    }
}
