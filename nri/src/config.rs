//! What an operator decides about plugins.

use std::path::PathBuf;
use std::time::Duration;

/// Settings of the interface. The defaults are those of the reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Whether plugins may connect that the runtime has not started.
    pub external: ExternalPlugins,
    /// Where they connect. Default `/var/run/nri/nri.sock`.
    pub socket: PathBuf,
    /// Programs named `IDX-NAME` in it are started with the runtime. Default `/opt/nri/plugins`.
    pub plugin_dir: PathBuf,
    /// Holds their configuration, as `IDX-NAME.conf` or `NAME.conf`. Default `/etc/nri/conf.d`.
    pub plugin_config_dir: PathBuf,
    /// How long a plugin may take to register. Default 5 s.
    pub registration_timeout: Duration,
    /// How long a plugin may take to answer. Default 2 s.
    pub request_timeout: Duration,
    /// Plugins, by `NAME` or `IDX-NAME`, that every new container must have been shown to: without them none is made.
    pub required_plugins: Vec<String>,
    /// A pod annotation that, when true, waives [`Self::required_plugins`] for the pod; none waives nothing.
    pub waiver_annotation: Option<String>,
    /// Adjustments that no plugin may make.
    pub rejected: Vec<Rejection>,
    /// The runtime's name, as plugins are told it.
    pub runtime_name: String,
    /// Its version.
    pub runtime_version: String,
}

/// Plugins that connect by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExternalPlugins {
    /// There is a socket for them.
    Accepted,
    /// There is none.
    Refused,
}

/// A kind of adjustment that an operator may forbid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// OCI hooks.
    OciHooks,
    /// Seccomp policies in place of the runtime's default one.
    RuntimeDefaultSeccomp,
    /// Seccomp policies for containers that have none.
    UnconfinedSeccomp,
    /// Seccomp policies in place of a profile of the node.
    CustomSeccomp,
    /// Namespaces.
    Namespaces,
    /// Kernel parameters.
    Sysctls,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            external: ExternalPlugins::Accepted,
            socket: "/var/run/nri/nri.sock".into(),
            plugin_dir: "/opt/nri/plugins".into(),
            plugin_config_dir: "/etc/nri/conf.d".into(),
            registration_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(2),
            required_plugins: Vec::new(),
            waiver_annotation: None,
            rejected: Vec::new(),
            runtime_name: "podwright".into(),
            runtime_version: String::new(),
        }
    }
}
