//! What an operator decides about the runtime, with every default in one place.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

pub use podwright_nri::{Config as NriSettings, ExternalPlugins, Rejection};

use crate::cgroup::CgroupPath;
use crate::systemd::{InvalidSlice, Slice};

/// Where pods without a cgroup parent are, with cgroupfs.
const CGROUP_ROOT: &str = "/podwright";
/// With systemd.
const SLICE_ROOT: &str = "podwright.slice";

/// The runtime's configuration. The `podwright` binary reads it from a TOML file and flags.
#[derive(Debug, Clone)]
pub struct Config {
    /// Durable files: images, pod and container records, writable layers. Default `/var/lib/podwright`.
    pub state_dir: PathBuf,
    /// Volatile files: sockets, pause binaries. Default `/run/podwright`.
    pub run_dir: PathBuf,
    /// The CRI socket. Default `/run/podwright/cri.sock`.
    pub socket: PathBuf,
    /// Who makes the cgroups of pods.
    pub cgroup_driver: CgroupDriver,
    /// The cgroup that pods without a cgroup parent are made in. Default `/podwright`; with systemd a slice's path, by default
    /// that of `podwright.slice`.
    pub cgroup_root: CgroupPath,
    /// The pod network.
    pub network: Network,
    /// Where images come from.
    pub registry: Registry,
    /// Exec, attach and port-forward sessions.
    pub streaming: Streaming,
    /// Plugins of the Node Resource Interface.
    pub nri: Nri,
    /// Images that [garbage collection](https://kubernetes.io/docs/concepts/architecture/garbage-collection/) must keep.
    pub pinned_images: Vec<String>,
    /// Directories of CDI specification files; a later one's devices take the place of an earlier one's.
    pub cdi_spec_dirs: Vec<PathBuf>,
    /// What pods get that name no runtime handler.
    pub pods: Pods,
    /// The handlers that a [RuntimeClass](https://kubernetes.io/docs/concepts/containers/runtime-class/) may name.
    pub handlers: BTreeMap<String, Handler>,
}

/// Who makes the cgroups of pods. A kubelet has to have the same, and asks for it (RuntimeConfig).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CgroupDriver {
    /// The runtime, by plain file I/O.
    #[default]
    Cgroupfs,
    /// systemd makes a scope for each pod, and the runtime what is in it.
    Systemd,
}

/// A runtime handler: what its pods get in place of the default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handler {
    /// What its pods and their containers get.
    pub pods: Pods,
    /// The cgroup that its pods without a cgroup parent are made in.
    pub cgroup_root: CgroupPath,
}

/// What pods and their containers get, as far as their requests leave it open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pods {
    /// Whether pods have user namespaces of their own.
    pub user_namespaces: UserNamespaces,
    /// The seccomp profile of containers whose request has none.
    pub seccomp: DefaultSeccomp,
    /// The most tasks of each container; none leaves the limit to the pod's cgroup parent.
    pub pids_limit: Option<NonZeroU32>,
    /// Which devices of the host privileged containers have.
    pub privileged_devices: PrivilegedDevices,
}

/// A policy on user namespaces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UserNamespaces {
    /// As each pod asks.
    #[default]
    Allowed,
    /// Pods that ask for one are refused.
    Refused,
    /// Pods that do not ask for one are refused.
    Required,
}

/// The seccomp profile of a container whose request has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum DefaultSeccomp {
    /// None, as CRI says. A kubelet with `seccompDefault` asks for the runtime's default profile by itself.
    #[default]
    Unconfined,
    /// The runtime's default profile.
    RuntimeDefault,
    /// A profile in a file of the node.
    Localhost(PathBuf),
}

/// Which devices of the host a privileged container has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PrivilegedDevices {
    /// All.
    #[default]
    Host,
    /// Those that its request names: another's GPU stays another's.
    Requested,
}

/// The built-in network.
#[derive(Debug, Clone)]
pub struct Network {
    /// The bridge's name, at most 15 bytes. Default `podwright0`.
    pub bridge: String,
    /// Address ranges in CIDR form, IPv4, IPv6 or both; the first one's addresses are the pods' primary ones.
    pub subnets: Vec<(IpAddr, u8)>,
    /// The name of the nftables table. Default `podwright`.
    pub table: String,
    /// The links' MTU in bytes; none takes the default route's.
    pub mtu: Option<u32>,
    /// Whether pods reach the outside with the host's address.
    pub masquerade: Masquerade,
}

/// Whether the source address of packets that leave the node is rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Masquerade {
    /// To the host's.
    On,
    /// Pod addresses are routed outside.
    Off,
}

/// The server of streamed sessions, to which the kubelet passes its clients' connections on.
#[derive(Debug, Clone)]
pub struct Streaming {
    /// The address to listen on; port 0 lets the kernel choose. Default `127.0.0.1:0`: the kubelet is on the same machine.
    pub listen: SocketAddr,
    /// The host, or host and port, that URLs name instead of the address that is listened on.
    pub advertise: Option<String>,
    /// Serve over TLS.
    pub tls: Option<StreamingTls>,
    /// A session without a byte in either direction for so long is ended. Default 4 hours, as the kubelet's.
    pub idle_timeout: Duration,
}

/// PEM files.
#[derive(Debug, Clone)]
pub struct StreamingTls {
    /// The certificate, followed by those that lead to its root.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Registries and their access.
#[derive(Debug, Clone)]
pub struct Registry {
    /// Directories in containerd's `certs.d` layout, each with `HOST/hosts.toml`; the first that has the host wins.
    pub config_dirs: Vec<PathBuf>,
    /// A docker `config.json` with credentials for pulls that bring none.
    pub docker_config: Option<PathBuf>,
    /// Layers that are downloaded at once, over all pulls.
    pub max_concurrent_downloads: usize,
}

/// Plugins of the Node Resource Interface, which see and adjust pods and containers.
#[derive(Debug, Clone)]
pub struct Nri {
    /// Whether there are any.
    pub plugins: Plugins,
    /// Where they come from, and what is expected of them.
    pub settings: NriSettings,
}

/// Whether the Node Resource Interface is at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plugins {
    /// It is.
    On,
    /// Nobody is asked and nobody may connect.
    Off,
}

impl Config {
    /// Gives the cgroups of pods without a parent the form that the driver has: with systemd, a slice is meant by its name
    /// or path, and the default is `podwright.slice`.
    ///
    /// # Errors
    /// When one is no slice and has to be.
    pub fn settle_cgroup_roots(&mut self) -> Result<(), InvalidSlice> {
        if self.cgroup_driver == CgroupDriver::Cgroupfs {
            return Ok(());
        }
        let handlers = self.handlers.values_mut();
        let roots = handlers.map(|handler| &mut handler.cgroup_root);
        for root in roots.chain([&mut self.cgroup_root]) {
            let named = match root.as_str() {
                CGROUP_ROOT => SLICE_ROOT,
                named => named,
            };
            *root = named.parse::<Slice>()?.path();
        }
        Ok(())
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: "/var/lib/podwright".into(),
            run_dir: "/run/podwright".into(),
            socket: "/run/podwright/cri.sock".into(),
            #[expect(
                clippy::expect_used,
                reason = "a literal that a unit test of CgroupPath covers"
            )]
            cgroup_root: CgroupPath::new(CGROUP_ROOT).expect("valid"),
            cgroup_driver: CgroupDriver::default(),
            network: Network {
                bridge: "podwright0".into(),
                subnets: vec![
                    (IpAddr::from([10, 88, 0, 0]), 16),
                    (IpAddr::from([0xfd00, 0x10, 0x88, 0, 0, 0, 0, 0]), 64),
                ],
                table: "podwright".into(),
                mtu: None,
                masquerade: Masquerade::On,
            },
            registry: Registry {
                config_dirs: vec![
                    "/etc/podwright/certs.d".into(),
                    "/etc/containerd/certs.d".into(),
                ],
                docker_config: None,
                max_concurrent_downloads: 4,
            },
            streaming: Streaming {
                listen: SocketAddr::from(([127, 0, 0, 1], 0)),
                advertise: None,
                tls: None,
                idle_timeout: Duration::from_hours(4),
            },
            nri: Nri {
                plugins: Plugins::On,
                settings: NriSettings {
                    runtime_version: env!("CARGO_PKG_VERSION").into(),
                    ..NriSettings::default()
                },
            },
            pinned_images: Vec::new(),
            cdi_spec_dirs: vec!["/etc/cdi".into(), "/var/run/cdi".into()],
            pods: Pods::default(),
            handlers: BTreeMap::new(),
        }
    }
}
