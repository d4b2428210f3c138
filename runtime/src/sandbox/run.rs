//! RunPodSandbox: record, cgroup, pause, network; undone as a whole when any of it fails.

use std::os::fd::AsFd;
use std::sync::Arc;

use podwright_cri_api::v1::{ContainerEventType, PodSandboxConfig, RunPodSandboxRequest};
use podwright_pause::protocol::{Missing, PodPid, SandboxPlan, Sysctl};
use podwright_pause::wire::Bytes;

use super::cgroup::PodGroup;
use super::network::PodNetwork;
use super::settings::{IpcMode, NetworkMode, PidMode, Settings};
use super::{Directories, PodName, Sandbox, State, files};
use crate::cgroup::{CgroupPath, Leaf};
use crate::clock;
use crate::error::{CallError, Context, Kind};
use crate::handler::Handler;
use crate::ids::SandboxId;
use crate::names::Claim;
use crate::node::Node;
use crate::nri;
use crate::pause::Pause;
use crate::records::{ReadyRecord, Record, SandboxRecord};

/// The size of a pod's /dev/shm, as the peers have it.
const SHM_SIZE: u64 = 64 * 1024 * 1024;

/// pause is killed late: with it dies its pod (containerd and CRI-O give their pause container the same).
const PAUSE_OOM_SCORE: i64 = -998;

/// Runs a new sandbox; a retried call finds the first one's.
pub(crate) async fn run(
    node: &Arc<Node>,
    request: RunPodSandboxRequest,
) -> Result<SandboxId, CallError> {
    let config = request
        .config
        .ok_or_else(|| CallError::invalid("the request has no pod sandbox config"))?;
    let handler = node.handlers.require(&request.runtime_handler)?;
    handler.admit(&config)?;
    let settings = Settings::check(&config)?;
    if settings.user_namespace.is_some() {
        node.user_namespaces.require()?;
    }
    let name = PodName::from(&config.metadata.clone().unwrap_or_default());
    let reservation = match node.pod_names.reserve(name).await {
        Claim::Free(reservation) => reservation,
        Claim::Taken(id) => return found(node, id, &config, &handler),
    };
    let id = SandboxId::random().internal(|| "cannot make an id from /dev/urandom".into())?;
    let sandbox = Arc::new(make(node, id.clone(), config, settings, handler).await?);
    // No new plugin is told what lives until the sandbox is among it.
    let gate = node.nri.hold().await;
    if let Err(error) = nri::pod_runs(node, &sandbox).await {
        drop(gate);
        undo(node, &sandbox).await;
        return Err(error);
    }
    node.sandboxes.insert(id.clone(), Arc::clone(&sandbox));
    drop(gate);
    if let Some(pause) = sandbox.pause().filter(|pause| pause.has_ended()) {
        // Its end was told before the sandbox was known.
        let (node, id, connection) = (Arc::clone(node), id.clone(), pause.id());
        tokio::spawn(async move { super::lost(&node, &id, connection).await });
    }
    // As containerd and CRI-O tell it: a sandbox is a container that is created and started at once.
    for kind in [
        ContainerEventType::ContainerCreatedEvent,
        ContainerEventType::ContainerStartedEvent,
    ] {
        node.container_events.sandbox(kind, &sandbox);
    }
    reservation.keep(id.clone());
    Ok(id)
}

/// Takes back a sandbox that a plugin has refused.
async fn undo(node: &Arc<Node>, sandbox: &Arc<Sandbox>) {
    if let Err(error) = super::stop::stop_locked(node, sandbox).await {
        tracing::warn!(sandbox = %sandbox.id, error = %crate::error::chain(&error), "a sandbox that a NRI plugin refused has not stopped wholly");
    }
    nri::pod_removed(node, sandbox).await;
    node.reclaim.directory(sandbox.directory.clone());
}

/// The sandbox that has the name is the retried call's result, if it is what the call asks for.
fn found(
    node: &Node,
    id: SandboxId,
    config: &PodSandboxConfig,
    handler: &Handler,
) -> Result<SandboxId, CallError> {
    match node.sandboxes.get(id.as_str()) {
        Some(sandbox)
            if sandbox.config == *config
                && sandbox.runtime_handler == handler.name()
                && sandbox.pause().is_some() =>
        {
            Ok(id)
        }
        Some(sandbox) => {
            let why = if sandbox.pause().is_none() {
                "which is not ready"
            } else if sandbox.config == *config {
                "whose runtime handler is another"
            } else {
                "whose config is another"
            };
            let what = format!(
                "the pod's name, namespace, uid and attempt belong to the pod sandbox {id}, {why}: remove it or count the attempt up"
            );
            Err(CallError::new(Kind::AlreadyExists, what))
        }
        None => Err(CallError::new(
            Kind::AlreadyExists,
            format!("the pod's name belongs to the pod sandbox {id}, which is being removed"),
        )),
    }
}

async fn make(
    node: &Arc<Node>,
    id: SandboxId,
    config: PodSandboxConfig,
    settings: Settings,
    handler: Arc<Handler>,
) -> Result<Sandbox, CallError> {
    let cgroup = super::cgroup::path(node.config.cgroup_driver, &handler, &id, &config)?;
    let directories = Directories::of(&node.config, &id, &settings);
    let directory = &directories.records;
    let record = SandboxRecord {
        id: id.to_string(),
        runtime_handler: handler.name().to_owned(),
        created_at: clock::now(),
        cgroup: cgroup.to_string(),
        selinux_level: super::labels::new_level(&node.selinux, &config, &id)?,
        config: Some(config),
    };
    let result = async {
        let mut network = PodNetwork::begin(node, &id, &settings)?;
        let pause = async {
            std::fs::create_dir(directory)
                .internal(|| format!("cannot make the directory {}", directory.display()))?;
            record
                .write(directory)
                .internal(|| "cannot run the pod sandbox".into())?;
            let network = network.as_mut();
            start(
                node,
                &id,
                &record,
                &settings,
                &cgroup,
                &directories,
                network,
            )
            .await
        };
        let pause = pause.await;
        if pause.is_err()
            && let Some(network) = network
        {
            // What it has is freed below.
            network.give_up().await;
        }
        pause
    };
    match result.await {
        Ok(pause) => Ok(Sandbox::new(
            &record,
            id,
            settings,
            handler,
            cgroup,
            directories,
            State::Ready(pause),
        )),
        Err(error) => {
            super::stop::release(node, &id, &settings, &cgroup).await;
            node.selinux.release_level(&record.selinux_level);
            node.reclaim.directory(directories.records);
            Err(error)
        }
    }
}

async fn start(
    node: &Arc<Node>,
    id: &SandboxId,
    record: &SandboxRecord,
    settings: &Settings,
    cgroup: &CgroupPath,
    directories: &Directories,
    network: Option<&mut PodNetwork>,
) -> Result<Arc<Pause>, CallError> {
    let config = record.config.clone().unwrap_or_default();
    let hostname = match settings.network {
        NetworkMode::Pod if !config.hostname.is_empty() => config.hostname.clone(),
        NetworkMode::Pod | NetworkMode::Host => files::host_name(),
    };
    let furniture = Furniture {
        id,
        settings,
        hostname,
        label: super::labels::of_pod(&node.selinux, &config, &record.selinux_level)?,
        sysctls: sysctls(settings),
        directories,
    };
    let group = PodGroup::begin(node, cgroup)?;
    // pause is born while the rest of its group is made.
    let (pause, grouped) = tokio::join!(
        Pause::start(&node.program, id, group.birthplace(), node.events.clone()),
        async { group.proceed(node, &config, cgroup) },
    );
    let pause = pause.internal(|| "cannot run the pod sandbox".into())?;
    let furnished = async {
        grouped?;
        let own_cgroup = group.complete(node, id, &config, cgroup, &pause).await?;
        furnish(node, &config, &furniture, &own_cgroup, &pause, network).await
    };
    match furnished.await {
        Ok(()) => Ok(pause),
        Err(error) => {
            // It is of no use; what it has made goes with it.
            if let Err(error) = pause.shut_down().await {
                tracing::warn!(sandbox = %id, error = %crate::error::chain(&error), "pause did not end when asked");
            }
            Err(error)
        }
    }
}

/// What a new pod is furnished with.
struct Furniture<'a> {
    id: &'a SandboxId,
    settings: &'a Settings,
    hostname: String,
    /// The SELinux label of its files.
    label: Option<String>,
    sysctls: Vec<Sysctl>,
    directories: &'a Directories,
}

/// Makes the namespaces, and writes what is known only when the network is there.
async fn furnish(
    node: &Arc<Node>,
    config: &PodSandboxConfig,
    furniture: &Furniture<'_>,
    cgroup: &Leaf,
    pause: &Pause,
    mut network: Option<&mut PodNetwork>,
) -> Result<(), CallError> {
    let Furniture {
        id,
        settings,
        hostname,
        label,
        sysctls,
        directories,
    } = furniture;
    let groups = cgroup.join_files();
    let plan = SandboxPlan {
        pod: id.wire(),
        namespaces: namespaces(settings),
        cgroup_procs: groups.iter().map(|path| path.as_path().into()).collect(),
        oom_score_adj: Some(
            node.oom_scores
                .clamp(PAUSE_OOM_SCORE)
                .internal(|| "cannot set pause's oom_score_adj".into())?,
        ),
        hostname: if settings.network == NetworkMode::Host {
            Bytes::default()
        } else {
            hostname.as_str().into()
        },
        sysctls: sysctls.clone(),
        shm_size: if settings.ipc == IpcMode::Pod {
            SHM_SIZE
        } else {
            0
        },
        pid_namespace: if settings.pid == PidMode::Pod {
            PodPid::Shared
        } else {
            PodPid::Separate
        },
        user_namespace: settings.user_namespace.clone(),
        shm_label: label.clone().map(Bytes::from),
    };
    let namespace = match &mut network {
        Some(network) => network.namespace().await?,
        None => None,
    };
    // pause makes the namespaces meanwhile.
    let (made, prepared) = tokio::join!(
        pause.init(plan, namespace.as_ref().map(AsFd::as_fd)),
        async { prepare_files(config, furniture) },
    );
    let made = made.internal(|| "cannot make the pod's namespaces".into())?;
    prepared?;
    let addresses = match network {
        Some(network) => network.connected(made).await?,
        None => Vec::new(),
    };
    files::write_hosts(&directories.files, settings.network, hostname, &addresses)?;
    if let Some(label) = label {
        super::labels::label_files(&directories.files, label)?;
    }
    ReadyRecord { at: clock::now() }
        .write(&directories.records)
        .internal(|| "cannot run the pod sandbox".into())
}

/// Makes what the pod's files need, and those that do not tell its addresses.
fn prepare_files(config: &PodSandboxConfig, furniture: &Furniture<'_>) -> Result<(), CallError> {
    let files = &furniture.directories.files;
    files::write_early(files, config.dns_config.as_ref(), &furniture.hostname)?;
    if config.log_directory.is_empty() {
        return Ok(());
    }
    std::fs::create_dir_all(&config.log_directory).internal(|| {
        format!(
            "cannot make the pod's log directory {}",
            crate::index::shown(&config.log_directory)
        )
    })
}

fn namespaces(settings: &Settings) -> u64 {
    let network = match settings.network {
        // A pod on the host's network has the host's name as well.
        NetworkMode::Host => 0,
        NetworkMode::Pod => libc::CLONE_NEWNET | libc::CLONE_NEWUTS,
    };
    let ipc = match settings.ipc {
        IpcMode::Host => 0,
        IpcMode::Pod => libc::CLONE_NEWIPC,
    };
    u64::from((network | ipc).unsigned_abs())
}

/// Those that the request asks for; the network has some of its own.
fn sysctls(settings: &Settings) -> Vec<Sysctl> {
    let asked = settings.sysctls.iter();
    let asked = asked.map(|sysctl| Sysctl {
        path: sysctl.proc_path().into(),
        value: sysctl.value.clone().into(),
        missing: Missing::Fails,
    });
    asked.collect()
}
