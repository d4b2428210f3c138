//! `[nri]`: plugins of the Node Resource Interface.

use std::str::FromStr;
use std::time::Duration;

use podwright_runtime::config::{ExternalPlugins, Plugins, Rejection};
use serde::Deserialize;

use super::settings::set;
use super::values::{AbsolutePath, SocketPath, from_text, from_texts};

/// Why a value is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum PluginValueError {
    #[error("{text:?} is no time: take a number with ms, s or m, from 10ms to 10m")]
    Timeout { text: String },
    #[error(
        "{text:?} is no plugin's name: letters, digits, '-', '_', '.' and '+', with or without its index before it"
    )]
    Plugin { text: String },
    #[error("{text:?} is no annotation's key")]
    Annotation { text: String },
}

/// `[nri]`
#[derive(Debug, Default, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Nri {
    /// Whether plugins of the Node Resource Interface are at work
    #[arg(long = "nri", value_name = "BOOL")]
    enabled: Option<bool>,
    /// Whether plugins may connect that the runtime has not started
    #[arg(long = "nri-external", value_name = "BOOL")]
    external: Option<bool>,
    /// The socket that they connect to
    #[arg(id = "nri-socket", long = "nri-socket", value_name = "PATH")]
    #[serde(deserialize_with = "from_text")]
    socket: Option<SocketPath>,
    /// Directory of plugins that are started with the runtime
    #[arg(long = "nri-plugin-dir", value_name = "DIR")]
    #[serde(deserialize_with = "from_text")]
    plugin_dir: Option<AbsolutePath>,
    /// Directory of their configuration
    #[arg(long = "nri-plugin-config-dir", value_name = "DIR")]
    #[serde(deserialize_with = "from_text")]
    plugin_config_dir: Option<AbsolutePath>,
    /// How long a plugin may take to register
    #[arg(long = "nri-registration-timeout", value_name = "TIME")]
    #[serde(deserialize_with = "from_text")]
    registration_timeout: Option<Timeout>,
    /// How long a plugin may take to answer
    #[arg(long = "nri-request-timeout", value_name = "TIME")]
    #[serde(deserialize_with = "from_text")]
    request_timeout: Option<Timeout>,
    /// Plugins without which no container is created, with commas
    #[arg(
        long = "nri-required-plugins",
        value_name = "PLUGIN,…",
        value_delimiter = ','
    )]
    #[serde(deserialize_with = "from_texts")]
    required_plugins: Option<Vec<PluginReference>>,
    /// A pod annotation that waives them
    #[arg(long = "nri-waiver-annotation", value_name = "KEY")]
    #[serde(deserialize_with = "from_text")]
    waiver_annotation: Option<AnnotationKey>,
    /// What no plugin may adjust, with commas
    #[arg(long = "nri-reject", value_name = "WHAT,…", value_delimiter = ',')]
    reject: Option<Vec<Rejected>>,
}

impl Nri {
    /// Puts what is set onto `nri`.
    pub(super) fn apply(self, nri: &mut podwright_runtime::config::Nri) {
        let on = |on| if on { Plugins::On } else { Plugins::Off };
        set(&mut nri.plugins, self.enabled.map(on));
        let settings = &mut nri.settings;
        let external = |accepted| match accepted {
            true => ExternalPlugins::Accepted,
            false => ExternalPlugins::Refused,
        };
        set(&mut settings.external, self.external.map(external));
        set(&mut settings.socket, self.socket.map(SocketPath::into_path));
        let path = |path: Option<AbsolutePath>| path.map(AbsolutePath::into_path);
        set(&mut settings.plugin_dir, path(self.plugin_dir));
        set(
            &mut settings.plugin_config_dir,
            path(self.plugin_config_dir),
        );
        set(
            &mut settings.registration_timeout,
            self.registration_timeout.map(Timeout::duration),
        );
        set(
            &mut settings.request_timeout,
            self.request_timeout.map(Timeout::duration),
        );
        let names = |names: Vec<PluginReference>| {
            names.into_iter().map(PluginReference::into_text).collect()
        };
        set(
            &mut settings.required_plugins,
            self.required_plugins.map(names),
        );
        set(
            &mut settings.waiver_annotation,
            self.waiver_annotation.map(|key| Some(key.into_text())),
        );
        let kinds = |kinds: Vec<Rejected>| kinds.into_iter().map(Rejected::kind).collect();
        set(&mut settings.rejected, self.reject.map(kinds));
    }
}

/// How long to wait for somebody: `500ms`, `5s`, `1m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timeout(Duration);

impl Timeout {
    pub(crate) fn duration(self) -> Duration {
        self.0
    }
}

impl FromStr for Timeout {
    type Err = PluginValueError;

    fn from_str(text: &str) -> Result<Self, PluginValueError> {
        let units = [("ms", 1), ("s", 1000), ("m", 60_000)];
        let millis = units.iter().find_map(|(unit, millis)| {
            let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
            number.checked_mul(*millis)
        });
        match millis {
            Some(millis) if (10..=600_000).contains(&millis) => {
                Ok(Self(Duration::from_millis(millis)))
            }
            _ => Err(PluginValueError::Timeout {
                text: text.to_owned(),
            }),
        }
    }
}

/// A plugin as it is required: `NAME` or `IDX-NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PluginReference(String);

impl PluginReference {
    pub(crate) fn into_text(self) -> String {
        self.0
    }
}

impl FromStr for PluginReference {
    type Err = PluginValueError;

    fn from_str(text: &str) -> Result<Self, PluginValueError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte);
        if text.is_empty() || text.len() > 250 || !text.bytes().all(plain) {
            return Err(PluginValueError::Plugin {
                text: text.to_owned(),
            });
        }
        Ok(Self(text.to_owned()))
    }
}

/// A pod annotation's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AnnotationKey(String);

impl AnnotationKey {
    pub(crate) fn into_text(self) -> String {
        self.0
    }
}

impl FromStr for AnnotationKey {
    type Err = PluginValueError;

    fn from_str(text: &str) -> Result<Self, PluginValueError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
        if text.is_empty() || text.len() > 317 || !text.bytes().all(plain) {
            return Err(PluginValueError::Annotation {
                text: text.to_owned(),
            });
        }
        Ok(Self(text.to_owned()))
    }
}

/// What NRI plugins may not adjust.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Rejected {
    /// OCI hooks
    OciHooks,
    /// The seccomp policy of containers with the default one
    RuntimeDefaultSeccomp,
    /// The seccomp policy of containers without one
    UnconfinedSeccomp,
    /// The seccomp policy of containers with one of the node's
    CustomSeccomp,
    /// Namespaces
    Namespaces,
    /// Kernel parameters
    Sysctls,
}

impl Rejected {
    pub(crate) fn kind(self) -> Rejection {
        match self {
            Self::OciHooks => Rejection::OciHooks,
            Self::RuntimeDefaultSeccomp => Rejection::RuntimeDefaultSeccomp,
            Self::UnconfinedSeccomp => Rejection::UnconfinedSeccomp,
            Self::CustomSeccomp => Rejection::CustomSeccomp,
            Self::Namespaces => Rejection::Namespaces,
            Self::Sysctls => Rejection::Sysctls,
        }
    }
}
