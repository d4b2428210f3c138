//! The CRI runtime: it makes pods, by pause and by system calls, and answers for them on the CRI socket.
//!
//! `cri/` decodes calls and encodes answers; `sandbox/` and `container/` are what the calls do, one file per verb;
//! `plan/` turns a request into what pause executes; `pause/` speaks to it; `records/` is what is on disk, and
//! `recover` what a start makes of it. docs/architecture.md names the invariants.

mod beside;
mod cdi;
pub mod cgroup;
mod checkpoint;
mod clock;
pub mod config;
mod container;
mod cri;
pub mod doctor;
mod error;
mod events;
mod handler;
mod ids;
mod index;
mod kernel;
pub mod memory;
mod metrics;
mod mount_points;
mod names;
mod node;
mod nri;
mod pause;
mod plan;
mod pod_cidr;
mod propagation;
mod reclaim;
mod records;
mod recover;
mod sandbox;
pub mod security;
mod stats;
mod stream;
mod sys;
pub mod systemd;
mod user_namespaces;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use podwright_cri_api::v1::image_service_server::ImageServiceServer;
use podwright_cri_api::v1::runtime_service_server::RuntimeServiceServer;
use podwright_image::{ImageStore, ImageStoreConfig, StoreError};
use podwright_netns::{LinkName, Network, NetworkConfig, NetworkError, Subnet, TableName};
use podwright_nri::Nri;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::config::Config;
use crate::error::Kind;
use crate::handler::Handlers;
use crate::index::Index;
use crate::kernel::KernelFeatures;
use crate::names::Names;
use crate::node::Node;
use crate::pause::{Event, Program};
use crate::reclaim::Reclaim;
use crate::stream::StreamServer;
use crate::systemd::Systemd;
use crate::user_namespaces::UserNamespaceSupport;

/// Cgroups of pods begin with this, and none that does belongs to anybody else.
const CGROUP_PREFIX: &str = "podwright-";

/// The largest request: what the Kubernetes clients allow themselves.
const LARGEST_REQUEST: usize = 16 * 1024 * 1024;

/// How long calls that are at work may go on after the daemon was asked to end.
const LAST_CALLS: Duration = Duration::from_secs(2);

/// Compiled seccomp programs that are kept: one for each profile and set of capabilities in use.
const SECCOMP_PROGRAMS: usize = 64;

/// Why the runtime does not start or serve.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// A directory or file of its own.
    #[error("cannot {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The cgroups.
    #[error("cannot use the cgroups of this machine")]
    Cgroup(#[from] cgroup::CgroupError),
    /// systemd, with its cgroup driver.
    #[error("cannot use the cgroup driver that is configured")]
    Systemd(#[from] systemd::SystemdError),
    /// The daemon's own capabilities.
    #[error("cannot find out which capabilities may be given to containers")]
    Capabilities(#[from] security::capabilities::CapabilityError),
    /// The daemon's own OOM score.
    #[error("cannot find out which OOM scores may be given to containers")]
    OomScore(#[from] security::oom::OomScoreError),
    /// The pod network's configuration.
    #[error("the network configuration cannot be used: {0}")]
    NetworkConfig(String),
    /// The pod network.
    #[error("cannot set up the pod network")]
    Network(#[from] NetworkError),
    /// The image store.
    #[error("cannot open the image store")]
    Images(#[from] StoreError),
    /// The pods that are there.
    #[error("cannot take over what is there")]
    Recover(#[from] recover::RecoverError),
    /// pause.
    #[error("cannot lay out the pause program")]
    Pause(#[from] pause::ProgramError),
    /// The server of exec, attach and port-forward sessions.
    #[error("cannot set up the streaming server")]
    Streaming(#[from] podwright_stream::StreamError),
    /// The CRI socket.
    #[error("cannot serve the CRI socket")]
    Serve(#[source] tonic::transport::Error),
}

/// A CRI runtime on this machine.
pub struct Runtime {
    node: Arc<Node>,
    streams: Arc<StreamServer>,
}

impl Runtime {
    /// Takes over what is there: makes what is missing, finds the pods that live, and reclaims what belongs to nobody.
    pub async fn open(config: Config) -> Result<Self, RuntimeError> {
        for (path, directories) in [
            (
                &config.state_dir,
                &["", "pods", "containers", "network"][..],
            ),
            (&config.run_dir, &["", "root", "empty", "files"][..]),
        ] {
            for directory in directories {
                private_directory(&path.join(directory))?;
            }
        }
        let mount_points = mount_points::layer(&config.state_dir);
        mount_points::lay_out(&mount_points).map_err(|source| RuntimeError::File {
            action: "lay out the mount points in",
            path: mount_points,
            source,
        })?;
        let program = Program::lay_out(&config.run_dir)?;
        let trash = config.state_dir.join("trash");
        let reclaim = Reclaim::start(trash.clone()).map_err(|source| RuntimeError::File {
            action: "make the directory",
            path: trash,
            source,
        })?;
        let (events, happened) = mpsc::unbounded_channel();
        let images = ImageStore::open(image_config(&config)).await?;
        let selinux = security::selinux::Selinux::of_this_machine();
        container::label_layers(&selinux, images.layers_root())?;
        let user_namespaces = UserNamespaceSupport::probe(images.layers_root());
        let (container_events, publisher) = events::Events::new();
        let node = Arc::new(Node {
            kernel: KernelFeatures::probe(&user_namespaces),
            user_namespaces,
            images,
            network: Network::open(network_config(&config)?)?,
            cgroups: cgroup::Hierarchy::detect()?,
            systemd: connect_systemd(&config).await?,
            program,
            seccomp: security::seccomp::ProgramCache::new(SECCOMP_PROGRAMS),
            user_databases: security::users::UserDatabases::default(),
            capabilities: security::capabilities::available()?,
            apparmor: security::apparmor::AppArmor::of_this_machine().await,
            selinux,
            oom_scores: security::oom::OomScoreRange::of_this_process()?,
            reclaim,
            nri: Nri::new(plugin_settings(&config)),
            events,
            container_events,
            walks: stats::Walks::default(),
            sandboxes: Index::new("pod sandbox"),
            containers: Index::new("container"),
            pod_names: Names::new(),
            container_names: Names::new(),
            members: std::sync::RwLock::default(),
            handlers: Handlers::new(&config),
            cdi: cdi::Cache::new(config.cdi_spec_dirs.clone()),
            turns: container::Turns::new(),
            kills: TaskTracker::new(),
            config,
        });
        let places = node.cgroup_places();
        mount_points::lay_out_cgroups(&places, &node.cgroups).map_err(|source| {
            RuntimeError::File {
                action: "lay out the places of cgroups in",
                path: places,
                source,
            }
        })?;
        recover::recover(&node).await?;
        if let Err(error) = node.program.zygote().warm_up(&node.program) {
            tracing::warn!(error = %error::chain(&error), "no pause is ready to be born; the first pod tries again");
        }
        let streams = Arc::new(stream::bind(&node).await?);
        tokio::spawn(follow(Arc::downgrade(&node), happened));
        tokio::spawn(publisher.publish(Arc::downgrade(&node)));
        start_plugins(&node).await;
        Ok(Self { node, streams })
    }

    /// Serves CRI until `shutdown` comes. Pods go on running.
    pub async fn serve(
        &self,
        listener: UnixListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), RuntimeError> {
        let served = self.serve_cri(listener, shutdown).await;
        self.node.nri.stop().await;
        let flushed = tokio::time::timeout(LAST_CALLS, self.node.reclaim.flush()).await;
        if flushed.is_err() {
            tracing::warn!(
                "not everything of removed pods is reclaimed yet; the next start goes on"
            );
        }
        served
    }

    async fn serve_cri(
        &self,
        listener: UnixListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), RuntimeError> {
        let service = cri::Service::new(Arc::clone(&self.node), Arc::clone(&self.streams));
        let end = CancellationToken::new();
        let sessions = self.serve_sessions(end.clone());
        let ended = end.clone();
        let server = tonic::transport::Server::builder()
            .layer(tower::layer::layer_fn(cri::Deadline::new))
            .add_service(
                RuntimeServiceServer::new(service.clone())
                    .max_decoding_message_size(LARGEST_REQUEST),
            )
            .add_service(
                ImageServiceServer::new(service).max_decoding_message_size(LARGEST_REQUEST),
            )
            .serve_with_incoming_shutdown(UnixListenerStream::new(listener), async move {
                ended.cancelled().await;
            });
        tokio::pin!(server);
        tokio::select! {
            served = &mut server => return served.map_err(RuntimeError::Serve),
            () = shutdown => end.cancel(),
        }
        self.node.container_events.end();
        let last = async { tokio::join!(server, sessions) };
        match tokio::time::timeout(LAST_CALLS, last).await {
            Ok((served, _)) => served.map_err(RuntimeError::Serve),
            Err(_) => {
                tracing::info!("calls are still at work; leaving them");
                Ok(())
            }
        }
    }
}

impl Runtime {
    /// Serves streamed sessions until `end`; commands whose clients go with it are killed then.
    fn serve_sessions(&self, end: CancellationToken) -> AbortOnDropHandle<()> {
        let (streams, kills) = (Arc::clone(&self.streams), self.node.kills.clone());
        AbortOnDropHandle::new(tokio::spawn(async move {
            streams.serve(end.cancelled()).await;
            kills.close();
            kills.wait().await;
        }))
    }
}

async fn connect_systemd(config: &Config) -> Result<Option<Systemd>, systemd::SystemdError> {
    match config.cgroup_driver {
        config::CgroupDriver::Cgroupfs => Ok(None),
        // A state directory has one daemon.
        config::CgroupDriver::Systemd => {
            let owner = config.state_dir.display().to_string();
            Systemd::connect(owner).await.map(Some)
        }
    }
}

fn plugin_settings(config: &Config) -> Option<config::NriSettings> {
    match config.nri.plugins {
        config::Plugins::On => Some(config.nri.settings.clone()),
        config::Plugins::Off => None,
    }
}

/// Starts the NRI. Without it pods are run as asked for, but those that require plugins: so a failure is no reason not to start.
async fn start_plugins(node: &Arc<Node>) {
    let host = Arc::new(nri::NodeHost::of(node));
    if let Err(error) = node.nri.start(host).await {
        tracing::error!(error = %error::chain(&error), "NRI plugins cannot connect");
    }
}

/// Does what follows from what pauses tell. One task, so that each pod's events keep their order.
async fn follow(node: std::sync::Weak<Node>, mut happened: mpsc::UnboundedReceiver<Event>) {
    while let Some(event) = happened.recv().await {
        let Some(node) = node.upgrade() else { return };
        match event {
            Event::Exited {
                sandbox,
                container,
                exit,
            } => match node.containers.get(container.as_str()) {
                Some(container) => container::told_exit(&node, container, exit),
                None => {
                    tracing::debug!(%sandbox, %container, "the exit of a container that is removed")
                }
            },
            Event::Closed {
                sandbox,
                connection,
            } => {
                // Killing what is left takes time that other pods' events need not wait for.
                tokio::spawn(async move { sandbox::lost(&node, &sandbox, connection).await });
            }
        }
    }
}

fn private_directory(path: &Path) -> Result<(), RuntimeError> {
    use std::os::unix::fs::PermissionsExt;
    let error = |source| RuntimeError::File {
        action: "make the directory",
        path: path.to_owned(),
        source,
    };
    std::fs::create_dir_all(path).map_err(error)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(error)
}

fn image_config(config: &Config) -> ImageStoreConfig {
    ImageStoreConfig {
        registry_config_dirs: config.registry.config_dirs.clone(),
        docker_config: config.registry.docker_config.clone(),
        max_concurrent_layer_downloads: config.registry.max_concurrent_downloads,
        pinned: config.pinned_images.clone(),
        ..ImageStoreConfig::new(config.state_dir.join("images"))
    }
}

fn network_config(config: &Config) -> Result<NetworkConfig, RuntimeError> {
    let network = &config.network;
    let unusable = |error: &dyn std::fmt::Display| RuntimeError::NetworkConfig(error.to_string());
    let subnets = network.subnets.iter().map(|(address, prefix)| {
        format!("{address}/{prefix}")
            .parse::<Subnet>()
            .map_err(|error| unusable(&error))
    });
    Ok(NetworkConfig {
        bridge: network
            .bridge
            .parse::<LinkName>()
            .map_err(|error| unusable(&error))?,
        subnets: subnets.collect::<Result<_, _>>()?,
        mtu: network.mtu,
        masquerade: match network.masquerade {
            config::Masquerade::On => podwright_netns::Masquerade::OutsideOf(Vec::new()),
            config::Masquerade::Off => podwright_netns::Masquerade::Off,
        },
        state_dir: config.state_dir.join("network"),
        table: network
            .table
            .parse::<TableName>()
            .map_err(|error| unusable(&error))?,
    })
}

/// What a failure of the network means to the client.
fn network_kind(error: &NetworkError) -> Kind {
    match error {
        NetworkError::Exhausted { .. } => Kind::ResourceExhausted,
        NetworkError::PortTaken { .. } => Kind::AlreadyExists,
        NetworkError::Config { .. } => Kind::InvalidArgument,
        NetworkError::SubnetInUse { .. } => Kind::FailedPrecondition,
        _ => Kind::Internal,
    }
}
