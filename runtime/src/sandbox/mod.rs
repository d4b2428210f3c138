//! Pod sandboxes: the namespaces, cgroup, addresses and files that a pod's containers share.

mod cgroup;
pub(crate) mod files;
mod labels;
mod lost;
mod network;
mod remove;
mod run;
mod settings;
mod stop;
mod update;
mod user_namespace;
mod view;

pub(crate) use cgroup::id_of_group;
pub(crate) use labels::restore_level;
pub(crate) use lost::lost;
pub(crate) use remove::remove;
pub(crate) use run::run;
pub(crate) use settings::{IpcMode, NetworkMode, PidMode, Settings, check_name, pid_mode};
pub(crate) use stop::{release, stop};
pub(crate) use update::update;
pub(crate) use user_namespace::{check_same, map_volume};
pub(crate) use view::{list, listed, matching, sandbox_status, status};

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use podwright_cri_api::v1::{PodSandboxConfig, PodSandboxMetadata};

use crate::cgroup::CgroupPath;
use crate::config::Config;
use crate::error::{CallError, Kind};
use crate::handler::Handler;
use crate::ids::SandboxId;
use crate::pause::Pause;
use crate::records::{PodResourcesRecord, SandboxRecord};
use crate::stats::Gauges;

/// The name of the file that shows the pod's resolver configuration, and of its fellows.
pub(crate) const RESOLV_CONF: &str = "resolv.conf";
/// Static host names.
pub(crate) const HOSTS: &str = "hosts";
/// The host name.
pub(crate) const HOSTNAME: &str = "hostname";

/// What makes a pod's name unique.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PodName {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) attempt: u32,
}

impl From<&PodSandboxMetadata> for PodName {
    fn from(metadata: &PodSandboxMetadata) -> Self {
        let PodSandboxMetadata {
            name,
            uid,
            namespace,
            attempt,
        } = metadata.clone();
        Self {
            namespace,
            name,
            uid,
            attempt,
        }
    }
}

/// Where a sandbox stands.
///
/// ```text
///   (run) ──▶ Ready ──▶ NotReady ──▶ (removed)
///               │  stop, or pause has ended  ▲
///               └────────────────────────────┘
/// ```
/// A sandbox never becomes ready again: the kubelet makes a new one with the next attempt.
#[derive(Clone)]
pub(crate) enum State {
    /// Its pause holds the namespaces.
    Ready(Arc<Pause>),
    /// Nothing of it runs; its records wait for removal.
    NotReady,
}

/// A pod sandbox.
pub(crate) struct Sandbox {
    pub(crate) id: SandboxId,
    pub(crate) config: PodSandboxConfig,
    pub(crate) settings: Settings,
    /// The handler's name, as it was asked for.
    pub(crate) runtime_handler: String,
    pub(crate) handler: Arc<Handler>,
    /// Nanoseconds since the epoch.
    pub(crate) created_at: i64,
    /// All cgroups of the pod are in and below it.
    pub(crate) cgroup: CgroupPath,
    /// The SELinux level of its containers; empty where they have none.
    pub(crate) selinux_level: String,
    /// Its records.
    pub(crate) directory: PathBuf,
    /// Its generated files.
    files: PathBuf,
    /// As ListPodSandbox tells it, but for its state: encoded when it is first asked for.
    pub(crate) listed: OnceLock<Bytes>,
    /// What is kept between readings of its statistics.
    pub(crate) gauges: Gauges,
    /// Guards the state alone; never held across an await.
    state: Mutex<State>,
    /// What was last asked for. Guards the value alone.
    pub(crate) resources: Mutex<PodResourcesRecord>,
    /// Held by the operation that changes the sandbox, across its awaits: stop and remove follow each other.
    pub(crate) operation: tokio::sync::Mutex<()>,
}

impl Sandbox {
    pub(crate) fn new(
        record: &SandboxRecord,
        id: SandboxId,
        settings: Settings,
        handler: Arc<Handler>,
        cgroup: CgroupPath,
        directories: Directories,
        state: State,
    ) -> Self {
        Self {
            id,
            config: record.config.clone().unwrap_or_default(),
            settings,
            runtime_handler: record.runtime_handler.clone(),
            handler,
            created_at: record.created_at,
            cgroup,
            selinux_level: record.selinux_level.clone(),
            directory: directories.records,
            files: directories.files,
            listed: OnceLock::new(),
            gauges: Gauges::default(),
            state: Mutex::new(state),
            resources: Mutex::new(
                record
                    .config
                    .as_ref()
                    .map(PodResourcesRecord::from)
                    .unwrap_or_default(),
            ),
            operation: tokio::sync::Mutex::new(()),
        }
    }

    pub(crate) fn state(&self) -> State {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The pause of a ready sandbox; its connection may have closed.
    pub(crate) fn pause(&self) -> Option<Arc<Pause>> {
        match self.state() {
            State::Ready(pause) => Some(pause),
            State::NotReady => None,
        }
    }

    /// As [`Self::pause`]; an error names what could not be done.
    pub(crate) fn require_ready(&self, what: &str) -> Result<Arc<Pause>, CallError> {
        self.pause().ok_or_else(|| {
            CallError::state(format!(
                "cannot {what}: the pod sandbox {} is not ready; run a new one",
                self.id
            ))
        })
    }

    /// As [`Self::require_ready`], for who speaks with pause: the connection is there.
    pub(crate) fn require_pause(&self, what: &str) -> Result<Arc<Pause>, CallError> {
        let pause = self.require_ready(what)?;
        if pause.has_ended() {
            return Err(CallError::new(
                Kind::Unavailable,
                format!(
                    "cannot {what}: the connection to the pause process of the pod sandbox {} is being made again; try again",
                    self.id
                ),
            ));
        }
        Ok(pause)
    }

    /// Goes on with another connection to its pause, for who holds its operation lock.
    fn set_pause(&self, pause: Arc<Pause>) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = State::Ready(pause);
    }

    pub(crate) fn set_not_ready(&self) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = State::NotReady;
        self.gauges.end();
    }

    pub(crate) fn metadata(&self) -> PodSandboxMetadata {
        self.config.metadata.clone().unwrap_or_default()
    }

    /// A generated file of it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.files.join(name)
    }
}

/// Where a sandbox's files are.
pub(crate) struct Directories {
    /// What outlives the machine.
    pub(crate) records: PathBuf,
    /// What its containers see of it, which is of use as long as it is ready: in memory, below the run directory. But a tmpfs
    /// lets owners be mapped only since Linux 6.3, so those of a pod with a user namespace are with its records.
    pub(crate) files: PathBuf,
}

impl Directories {
    /// Those of `id`.
    pub(crate) fn of(config: &Config, id: &SandboxId, settings: &Settings) -> Self {
        let records = config.state_dir.join("pods").join(id.as_str());
        let files = match settings.user_namespace {
            None => files::parent(&config.run_dir).join(id.as_str()),
            Some(_) => records.clone(),
        };
        Self { records, files }
    }

    /// The same of a pod that is there. An older daemon has put its files to its records.
    pub(crate) fn find(config: &Config, id: &SandboxId, settings: &Settings) -> Self {
        let mut found = Self::of(config, id, settings);
        if !found.files.is_dir() {
            found.files.clone_from(&found.records);
        }
        found
    }
}
