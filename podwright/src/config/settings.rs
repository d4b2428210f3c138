//! The keys of the configuration file, which are also the flags of `podwright runtime`.

use std::net::SocketAddr;

use podwright_image::Reference;
use podwright_netns::{LinkName, TableName};
use podwright_runtime::cgroup::CgroupPath;
use podwright_runtime::config::{self, Masquerade};
use serde::Deserialize;

use super::Daemon;
use super::handlers::{Handlers, Pods};
use super::nri::Nri;
use super::values::{
    AbsolutePath, Authority, Downloads, IdleTimeout, LogFilter, LogFormat, Mtu, SocketPath,
    Subnets, from_text, from_texts,
};

/// What an operator set, in the file or by flags; what is absent keeps its earlier value.
#[derive(Debug, Default, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    #[command(flatten)]
    pub(crate) paths: Paths,
    #[command(flatten)]
    pub(crate) server: Server,
    #[command(flatten)]
    pub(crate) streaming: Streaming,
    #[command(flatten)]
    pub(crate) log: Log,
    #[command(flatten)]
    pub(crate) network: Network,
    #[command(flatten)]
    pub(crate) cgroup: Cgroup,
    #[command(flatten)]
    pub(crate) pods: Pods,
    /// Too many keys for flags: the file has them.
    #[arg(skip)]
    pub(crate) handlers: Handlers,
    #[command(flatten)]
    pub(crate) registry: Registry,
    #[command(flatten)]
    pub(crate) images: Images,
    #[command(flatten)]
    pub(crate) cdi: Cdi,
    #[command(flatten)]
    pub(crate) nri: Nri,
}

/// `[paths]`
#[derive(Debug, Default, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Paths {
    /// Directory of what must survive a reboot: images, records, writable layers
    #[arg(long = "state-dir", value_name = "DIR")]
    #[serde(deserialize_with = "from_text")]
    pub(crate) state: Option<AbsolutePath>,
    /// Directory of what ends with a reboot: sockets, pause binaries
    #[arg(long = "run-dir", value_name = "DIR")]
    #[serde(deserialize_with = "from_text")]
    pub(crate) run: Option<AbsolutePath>,
}

/// `[server]`
#[derive(Debug, Default, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Server {
    /// The CRI socket [default: cri.sock in the run directory]
    #[arg(long, value_name = "PATH")]
    #[serde(deserialize_with = "from_text")]
    pub(crate) socket: Option<SocketPath>,
}

/// `[streaming]`
#[derive(Debug, Default, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Streaming {
    /// Address that exec, attach and port-forward sessions come to; port 0 lets the kernel choose
    #[arg(long = "streaming-listen", value_name = "ADDRESS:PORT")]
    #[serde(deserialize_with = "from_text")]
    pub(crate) listen: Option<SocketAddr>,
    /// Host, or host and port, that their URLs name [default: the address that is listened on]
    #[arg(long = "streaming-advertise", value_name = "HOST[:PORT]")]
    #[serde(deserialize_with = "from_text")]
    pub(crate) advertise: Option<Authority>,
    /// PEM file with the certificate to serve them over TLS
    #[arg(long = "streaming-tls-certificate", value_name = "FILE")]
    #[serde(deserialize_with = "from_text")]
    pub(crate) tls_certificate: Option<AbsolutePath>,
    /// PEM file with the certificate's private key
    #[arg(long = "streaming-tls-key", value_name = "FILE")]
    #[serde(deserialize_with = "from_text")]
    pub(crate) tls_key: Option<AbsolutePath>,
    /// A session without a byte in either direction for so long is ended
    #[arg(long = "streaming-idle-timeout", value_name = "SECONDS")]
    pub(crate) idle_timeout: Option<IdleTimeout>,
}

/// `[log]`
#[derive(Debug, Default, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Log {
    /// error, warn, info, debug, trace, or directives such as info,podwright_netns=debug
    #[arg(long = "log-level", value_name = "LEVEL")]
    #[serde(deserialize_with = "from_text")]
    pub(crate) level: Option<LogFilter>,
    /// How log lines are written
    #[arg(long = "log-format", value_name = "FORMAT")]
    pub(crate) format: Option<LogFormat>,
}

/// `[network]`
#[derive(Debug, Default, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Network {
    /// Name of the pods' bridge
    #[arg(long, value_name = "NAME")]
    #[serde(deserialize_with = "from_text")]
    pub(crate) bridge: Option<LinkName>,
    /// The pods' address ranges, with commas; the first gives the primary addresses
    #[arg(long, value_name = "CIDR,…")]
    pub(crate) subnets: Option<Subnets>,
    /// Name of the nftables table
    #[arg(long, value_name = "NAME")]
    #[serde(deserialize_with = "from_text")]
    pub(crate) table: Option<TableName>,
    /// MTU of the pods' links in bytes [default: the default route's]
    #[arg(long, value_name = "BYTES")]
    pub(crate) mtu: Option<Mtu>,
    /// Whether pods reach the outside with the node's address
    #[arg(long, value_name = "BOOL")]
    pub(crate) masquerade: Option<bool>,
}

/// `[cgroup]`
#[derive(Debug, Default, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Cgroup {
    /// Who makes the cgroups of pods; a kubelet has to have the same driver
    #[arg(long = "cgroup-driver", value_name = "DRIVER")]
    pub(crate) driver: Option<CgroupDriver>,
    /// The cgroup that pods without a cgroup parent are made in; with the systemd driver, a slice
    #[arg(long = "cgroup-root", value_name = "PATH")]
    #[serde(deserialize_with = "from_text")]
    pub(crate) root: Option<CgroupPath>,
}

/// As the kubelet's configuration spells them.
#[derive(Debug, Clone, Copy, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CgroupDriver {
    /// The runtime itself.
    Cgroupfs,
    /// systemd, a scope for each pod.
    Systemd,
}

impl CgroupDriver {
    fn driver(self) -> config::CgroupDriver {
        match self {
            Self::Cgroupfs => config::CgroupDriver::Cgroupfs,
            Self::Systemd => config::CgroupDriver::Systemd,
        }
    }
}

/// `[registry]`
#[derive(Debug, Default, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Registry {
    /// Directories with HOST/hosts.toml, with commas; the first that has the host wins
    #[arg(
        long = "registry-config-dirs",
        value_name = "DIR,…",
        value_delimiter = ','
    )]
    #[serde(deserialize_with = "from_texts")]
    pub(crate) config_dirs: Option<Vec<AbsolutePath>>,
    /// A docker config.json with credentials for pulls that bring none
    #[arg(long, value_name = "FILE")]
    #[serde(deserialize_with = "from_text")]
    pub(crate) docker_config: Option<AbsolutePath>,
    /// Layers downloaded at once, over all pulls
    #[arg(long, value_name = "COUNT")]
    pub(crate) max_concurrent_downloads: Option<Downloads>,
}

/// `[cdi]`
#[derive(Debug, Default, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Cdi {
    /// Directories of CDI specification files, with commas; a later one's devices win
    #[arg(long = "cdi-spec-dirs", value_name = "DIR,…", value_delimiter = ',')]
    #[serde(deserialize_with = "from_texts")]
    pub(crate) spec_dirs: Option<Vec<AbsolutePath>>,
}

/// `[images]`
#[derive(Debug, Default, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Images {
    /// Images that garbage collection must keep, with commas
    #[arg(long = "pinned-images", value_name = "IMAGE,…", value_delimiter = ',')]
    #[serde(deserialize_with = "from_texts")]
    pub(crate) pinned: Option<Vec<Reference>>,
}

impl Settings {
    /// Puts what is set onto `daemon`, but for the handlers, which begin with what all settings give.
    pub(crate) fn apply(self, daemon: &mut Daemon) -> Handlers {
        let Self {
            paths,
            server,
            streaming,
            log,
            network,
            cgroup,
            pods,
            handlers,
            registry,
            images,
            cdi,
            nri,
        } = self;
        let config = &mut daemon.runtime;
        set(
            &mut config.state_dir,
            paths.state.map(AbsolutePath::into_path),
        );
        set(&mut config.run_dir, paths.run.map(AbsolutePath::into_path));
        set(&mut config.socket, server.socket.map(SocketPath::into_path));
        set(
            &mut config.cgroup_driver,
            cgroup.driver.map(CgroupDriver::driver),
        );
        set(&mut config.cgroup_root, cgroup.root);
        let paths =
            |dirs: Vec<AbsolutePath>| dirs.into_iter().map(AbsolutePath::into_path).collect();
        set(&mut config.cdi_spec_dirs, cdi.spec_dirs.map(paths));
        set(
            &mut config.pinned_images,
            images
                .pinned
                .map(|pinned| pinned.iter().map(Reference::to_string).collect()),
        );
        pods.apply(&mut config.pods);
        streaming.apply(daemon);
        let config = &mut daemon.runtime;
        network.apply(&mut config.network);
        registry.apply(&mut config.registry);
        nri.apply(&mut config.nri);
        set(&mut daemon.log_level, log.level);
        set(&mut daemon.log_format, log.format);
        handlers
    }
}

impl Streaming {
    fn apply(self, daemon: &mut Daemon) {
        let streaming = &mut daemon.runtime.streaming;
        set(&mut streaming.listen, self.listen);
        set(
            &mut streaming.advertise,
            self.advertise.map(|authority| Some(authority.into_text())),
        );
        set(
            &mut streaming.idle_timeout,
            self.idle_timeout.map(IdleTimeout::duration),
        );
        // The file may name one of the two and a flag the other.
        let files = &mut daemon.streaming_tls;
        set(
            &mut files.certificate,
            self.tls_certificate.map(|file| Some(file.into_path())),
        );
        set(
            &mut files.key,
            self.tls_key.map(|file| Some(file.into_path())),
        );
    }
}

impl Network {
    fn apply(self, network: &mut podwright_runtime::config::Network) {
        set(
            &mut network.bridge,
            self.bridge.map(|name| name.to_string()),
        );
        set(&mut network.subnets, self.subnets.map(Subnets::into_pairs));
        set(&mut network.table, self.table.map(|name| name.to_string()));
        set(&mut network.mtu, self.mtu.map(|mtu| Some(mtu.bytes())));
        set(
            &mut network.masquerade,
            self.masquerade
                .map(|on| if on { Masquerade::On } else { Masquerade::Off }),
        );
    }
}

impl Registry {
    fn apply(self, registry: &mut podwright_runtime::config::Registry) {
        let paths =
            |dirs: Vec<AbsolutePath>| dirs.into_iter().map(AbsolutePath::into_path).collect();
        set(&mut registry.config_dirs, self.config_dirs.map(paths));
        set(
            &mut registry.docker_config,
            self.docker_config.map(|file| Some(file.into_path())),
        );
        set(
            &mut registry.max_concurrent_downloads,
            self.max_concurrent_downloads.map(Downloads::count),
        );
    }
}

pub(super) fn set<T>(to: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *to = value;
    }
}
