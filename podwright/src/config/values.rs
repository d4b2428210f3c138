//! The kinds of values that configuration keys take. Each is checked where it is parsed, so that the
//! file's errors point to a line and the flags' errors to a flag.

use std::fmt::Display;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use podwright_netns::{Subnet, SubnetError};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use tracing_subscriber::EnvFilter;

/// Why a value is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum ValueError {
    #[error("the path {path:?} must be absolute")]
    RelativePath { path: String },
    #[error("the path {path:?} must not contain control characters or `..`")]
    UnsafePath { path: String },
    #[error("the path must not be the root directory")]
    RootPath,
    #[error(
        "the socket path {path:?} is {length} bytes long; a Unix socket's path has at most {MAX_SOCKET_PATH} (unix(7))"
    )]
    LongSocketPath { path: String, length: usize },
    #[error(transparent)]
    Subnet(#[from] SubnetError),
    #[error("the subnets {first} and {second} overlap")]
    OverlappingSubnets { first: Subnet, second: Subnet },
    #[error("pods need one subnet at least, of IPv4 or IPv6")]
    NoSubnets,
    #[error(
        "an MTU of {mtu} bytes is out of range: {MIN_MTU} (the least that IPv6 allows, RFC 8200) to {MAX_MTU}"
    )]
    Mtu { mtu: u32 },
    #[error(
        "{filter:?} is no log level: take error, warn, info, debug, trace, or directives such as info,podwright_runtime=debug ({reason})"
    )]
    LogFilter { filter: String, reason: String },
    #[error(
        "{profile:?} is no seccomp profile: take Unconfined, RuntimeDefault or the absolute path of a profile"
    )]
    Seccomp { profile: String },
    #[error("a limit of {limit} tasks is out of range: 1 to {most}")]
    PidsLimit { limit: u32, most: u32 },
    #[error(
        "{name:?} is no name of a runtime handler: up to 63 lower-case letters, digits and inner hyphens are (RFC 1123)"
    )]
    HandlerName { name: String },
    #[error(
        "{text:?} is no host, or host and port, as URLs have them: node.example:10010, [fd00::1]"
    )]
    Authority { text: String },
    #[error("an idle timeout of {seconds} s is out of range: 1 to {MAX_IDLE} (a week)")]
    IdleTimeout { seconds: u32 },
    #[error("{count} concurrent downloads is out of range: 1 to {MAX_DOWNLOADS}")]
    Downloads { count: usize },
}

/// `sizeof(sun_path)` less the terminating NUL (unix(7)).
const MAX_SOCKET_PATH: usize = 107;
const MIN_MTU: u32 = 1280;
const MAX_MTU: u32 = 65_535;
const MAX_DOWNLOADS: usize = 64;
const MAX_IDLE: u32 = 7 * 24 * 60 * 60;
/// The longest domain name (RFC 1035), and a port.
const MAX_AUTHORITY: usize = 260;

/// Takes a key's value from text by the same rules as its flag.
pub(crate) fn from_text<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(D::Error::custom)
}

/// As [`from_text`], for each text of an array.
pub(crate) fn from_texts<'de, D, T>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    let texts = Vec::<String>::deserialize(deserializer)?;
    let values: Result<_, _> = texts.iter().map(|text| text.parse()).collect();
    values.map(Some).map_err(D::Error::custom)
}

/// An absolute path below the root directory, without `..` and control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AbsolutePath(PathBuf);

impl AbsolutePath {
    pub(crate) fn into_path(self) -> PathBuf {
        self.0
    }
}

impl FromStr for AbsolutePath {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let path = Path::new(text);
        if !path.is_absolute() {
            return Err(ValueError::RelativePath {
                path: text.to_owned(),
            });
        }
        if text.chars().any(char::is_control) || path.components().any(|c| c.as_os_str() == "..") {
            return Err(ValueError::UnsafePath {
                path: text.to_owned(),
            });
        }
        // Collecting the components drops `.` and repeated or trailing slashes.
        let path: PathBuf = path.components().collect();
        if path.parent().is_none() {
            return Err(ValueError::RootPath);
        }
        Ok(Self(path))
    }
}

/// An [`AbsolutePath`] that fits into a Unix socket's address. The `unix://` of a CRI endpoint may stand before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SocketPath(PathBuf);

impl SocketPath {
    pub(crate) fn into_path(self) -> PathBuf {
        self.0
    }
}

impl FromStr for SocketPath {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let path = text
            .strip_prefix("unix://")
            .unwrap_or(text)
            .parse::<AbsolutePath>()?
            .0;
        let length = path.as_os_str().len();
        if length > MAX_SOCKET_PATH {
            return Err(ValueError::LongSocketPath {
                path: path.display().to_string(),
                length,
            });
        }
        Ok(Self(path))
    }
}

/// The pods' address ranges: at least one, none overlapping another.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub(crate) struct Subnets(Vec<Subnet>);

impl Subnets {
    pub(crate) fn into_pairs(self) -> Vec<(IpAddr, u8)> {
        self.0
            .into_iter()
            .map(|subnet| (subnet.network(), subnet.prefix()))
            .collect()
    }
}

impl TryFrom<Vec<String>> for Subnets {
    type Error = ValueError;

    fn try_from(texts: Vec<String>) -> Result<Self, ValueError> {
        let mut subnets: Vec<Subnet> = Vec::new();
        for text in texts {
            let second: Subnet = text.parse()?;
            let overlap = |first: &&Subnet| {
                first.contains(second.network()) || second.contains(first.network())
            };
            if let Some(&first) = subnets.iter().find(overlap) {
                return Err(ValueError::OverlappingSubnets { first, second });
            }
            subnets.push(second);
        }
        if subnets.is_empty() {
            return Err(ValueError::NoSubnets);
        }
        Ok(Self(subnets))
    }
}

impl FromStr for Subnets {
    type Err = ValueError;

    /// From a list with commas, as the flag takes it.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        text.split(',')
            .map(str::to_owned)
            .collect::<Vec<_>>()
            .try_into()
    }
}

/// A link's MTU in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u32")]
pub(crate) struct Mtu(u32);

impl Mtu {
    pub(crate) fn bytes(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Mtu {
    type Error = ValueError;

    fn try_from(mtu: u32) -> Result<Self, ValueError> {
        if !(MIN_MTU..=MAX_MTU).contains(&mtu) {
            return Err(ValueError::Mtu { mtu });
        }
        Ok(Self(mtu))
    }
}

impl FromStr for Mtu {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mtu: u32 = text
            .parse()
            .map_err(|e| format!("{text:?} is no number of bytes: {e}"))?;
        mtu.try_into().map_err(|e: ValueError| e.to_string())
    }
}

/// How many layers are downloaded at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "usize")]
pub(crate) struct Downloads(usize);

impl Downloads {
    pub(crate) fn count(self) -> usize {
        self.0
    }
}

impl TryFrom<usize> for Downloads {
    type Error = ValueError;

    fn try_from(count: usize) -> Result<Self, ValueError> {
        if !(1..=MAX_DOWNLOADS).contains(&count) {
            return Err(ValueError::Downloads { count });
        }
        Ok(Self(count))
    }
}

impl FromStr for Downloads {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let count: usize = text
            .parse()
            .map_err(|e| format!("{text:?} is no number of downloads: {e}"))?;
        count.try_into().map_err(|e: ValueError| e.to_string())
    }
}

/// A host, or a host and a port, as a URL has it (RFC 3986).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Authority(String);

impl Authority {
    pub(crate) fn into_text(self) -> String {
        self.0
    }
}

impl FromStr for Authority {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
        if text.is_empty() || text.len() > MAX_AUTHORITY || !text.chars().all(is_plain) {
            return Err(ValueError::Authority {
                text: text.chars().take(MAX_AUTHORITY).collect(),
            });
        }
        Ok(Self(text.to_owned()))
    }
}

/// How long a streamed session may be idle, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u32")]
pub(crate) struct IdleTimeout(u32);

impl IdleTimeout {
    pub(crate) fn duration(self) -> Duration {
        Duration::from_secs(self.0.into())
    }
}

impl TryFrom<u32> for IdleTimeout {
    type Error = ValueError;

    fn try_from(seconds: u32) -> Result<Self, ValueError> {
        if !(1..=MAX_IDLE).contains(&seconds) {
            return Err(ValueError::IdleTimeout { seconds });
        }
        Ok(Self(seconds))
    }
}

impl FromStr for IdleTimeout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let seconds: u32 = text
            .parse()
            .map_err(|e| format!("{text:?} is no number of seconds: {e}"))?;
        seconds.try_into().map_err(|e: ValueError| e.to_string())
    }
}

/// A level, or tracing-subscriber's directives: `info,podwright_netns=trace`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogFilter(String);

impl LogFilter {
    pub(crate) fn to_filter(&self) -> EnvFilter {
        EnvFilter::new(&self.0)
    }
}

impl Default for LogFilter {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl FromStr for LogFilter {
    type Err = ValueError;

    fn from_str(filter: &str) -> Result<Self, ValueError> {
        let refused = |reason: String| ValueError::LogFilter {
            filter: filter.to_owned(),
            reason,
        };
        // A bare word that is no level would be taken as the name of a module, and silence all others.
        let bare_words = filter
            .split(',')
            .filter(|d| !d.contains(['=', '[', ':', '{']));
        for word in bare_words {
            // LevelFilter itself takes the empty text for `error`.
            let level = word.trim().parse::<tracing::level_filters::LevelFilter>();
            if word.trim().is_empty() || level.is_err() {
                return Err(refused(format!("{word:?} is no level")));
            }
        }
        EnvFilter::builder()
            .parse(filter)
            .map_err(|e| refused(e.to_string()))?;
        Ok(Self(filter.to_owned()))
    }
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_absolute_and_plain() {
        for (text, path) in [("/a/b", "/a/b"), ("/a//b/./c/", "/a/b/c")] {
            assert_eq!(
                text.parse::<AbsolutePath>().unwrap().into_path(),
                Path::new(path),
                "{text}"
            );
        }
        for text in ["", "a/b", "./a", "/", "//", "/a/../b", "/a\n", "/a\0b"] {
            assert!(text.parse::<AbsolutePath>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn socket_paths_fit_their_address() {
        let longest = format!("/{}", "s".repeat(MAX_SOCKET_PATH - 1));
        assert!(longest.parse::<SocketPath>().is_ok());
        assert!(format!("{longest}s").parse::<SocketPath>().is_err());
        assert_eq!(
            "unix:///run/a.sock"
                .parse::<SocketPath>()
                .unwrap()
                .into_path(),
            Path::new("/run/a.sock")
        );
        assert!("unix://a.sock".parse::<SocketPath>().is_err());
    }

    #[test]
    fn subnets_do_not_overlap() {
        for (text, accepted) in [
            ("10.88.0.0/16,10.89.0.0/16", true),
            ("10.88.0.0/16,fd00::/64", true),
            ("10.88.0.0/16,10.88.128.0/24", false),
            ("10.88.128.0/24,10.0.0.0/8", false),
            ("fd00::/64,fd00::/64", false),
            ("10.88.0.1/16", false),
        ] {
            assert_eq!(text.parse::<Subnets>().is_ok(), accepted, "{text}");
        }
        assert_eq!(Subnets::try_from(Vec::new()), Err(ValueError::NoSubnets));
    }

    #[test]
    fn authorities_are_those_of_urls() {
        for text in [
            "node",
            "node.example:10010",
            "10.0.0.1",
            "[fd00::1]:80",
            "fd00::1",
        ] {
            assert_eq!(text.parse::<Authority>().unwrap().into_text(), text);
        }
        for text in ["", "http://node", "node/", "a b", "user@node"] {
            assert!(text.parse::<Authority>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn log_levels_are_levels_or_directives() {
        for filter in [
            "info",
            "DEBUG",
            "off",
            "info,podwright_netns=trace",
            "podwright_runtime::sandbox=debug,warn",
        ] {
            assert!(filter.parse::<LogFilter>().is_ok(), "{filter}");
        }
        for filter in ["", "info,", "loud", "info,louder", "a=loud"] {
            assert!(filter.parse::<LogFilter>().is_err(), "{filter:?}");
        }
    }

    #[test]
    fn numbers_have_ranges() {
        for (mtu, accepted) in [
            (0, false),
            (1279, false),
            (1280, true),
            (65_535, true),
            (65_536, false),
        ] {
            assert_eq!(Mtu::try_from(mtu).is_ok(), accepted, "{mtu}");
        }
        for (count, accepted) in [(0, false), (1, true), (64, true), (65, false)] {
            assert_eq!(Downloads::try_from(count).is_ok(), accepted, "{count}");
        }
    }
}
