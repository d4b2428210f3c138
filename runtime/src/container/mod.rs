//! Containers: their life from creation to removal, and what can be done to them meanwhile.

mod compile;
mod confine;
mod create;
mod exec;
mod exec_sync;
mod exit;
mod log;
mod oom_score;
mod relabel;
mod remove;
mod root;
mod start;
mod stop;
mod turns;
mod update;
mod view;
mod volume_images;

pub(crate) use create::{create, recorded_image};
pub(crate) use exec::{ExecStdio, Running, Unseen, start_exec};
pub(crate) use exec_sync::exec_sync;
pub(crate) use exit::{exited, lost, told_exit};
pub(crate) use log::reopen_log;
pub(crate) use relabel::{label_path, layers as label_layers};
pub(crate) use remove::remove;
pub(crate) use root::try_layer;
pub(crate) use start::start;
pub(crate) use stop::stop;
pub(crate) use turns::{Late, Turns};
pub(crate) use update::{change_limits, refusal, update};
pub(crate) use view::{container_status, list, listed, matching, selects, status};

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use oci_spec::image::ImageConfiguration;
use oci_spec::runtime::Spec;
use podwright_cri_api::v1::{
    ContainerConfig, ContainerEventType, ContainerMetadata, ContainerState, LinuxContainerResources,
};
use podwright_image::Lease;
use podwright_pause::plan::LaunchPlan;
use tokio::sync::watch;

use crate::cgroup::{Cgroup, ExecGroups};
use crate::error::CallError;
use crate::events::Events;
use crate::ids::{ContainerId, SandboxId};
use crate::nri;
use crate::plan::CommandBase;
use crate::records::{ContainerRecord, ExitRecord, StartedRecord};
use crate::sandbox::Sandbox;
use crate::stats::ContainerGauges;

/// What makes a container's name unique: its pod's id, its name and its attempt.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ContainerName {
    pub(crate) sandbox: SandboxId,
    pub(crate) name: String,
    pub(crate) attempt: u32,
}

/// Where a container stands. Each state is a fact on disk more (see `records`), and none is left backwards.
///
/// ```text
///   Created ──▶ Running ──▶ Exited ──▶ (removed)
///      │                      ▲
///      └── start failed, or ──┘
///          its pod has ended
/// ```
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum State {
    Created,
    Running {
        started: StartedRecord,
    },
    Exited {
        started: Option<StartedRecord>,
        exit: ExitRecord,
    },
}

impl State {
    /// As CRI names it.
    pub(crate) fn cri(&self) -> ContainerState {
        match self {
            Self::Created => ContainerState::ContainerCreated,
            Self::Running { .. } => ContainerState::ContainerRunning,
            Self::Exited { .. } => ContainerState::ContainerExited,
        }
    }
}

/// What clients are told when a container goes from one state to another.
fn happened(before: &State, after: &State) -> Option<ContainerEventType> {
    match (before, after) {
        (State::Created, State::Running { .. }) => Some(ContainerEventType::ContainerStartedEvent),
        (State::Created | State::Running { .. }, State::Exited { .. }) => {
            Some(ContainerEventType::ContainerStoppedEvent)
        }
        _ => None,
    }
}

/// What is compiled from a container's request and image.
pub(crate) struct Compiled {
    pub(crate) spec: Spec,
    pub(crate) plan: LaunchPlan,
    /// Set when the cgroup has these limits.
    pub(crate) limits: OnceLock<()>,
}

/// What a container keeps of [`Compiled`]. What it does not is made again when it is needed.
enum Kept {
    /// In a daemon that did not make it, after an update, and when it has ended.
    Nothing,
    /// Until it has started.
    Whole(Arc<Compiled>),
    /// While it runs.
    ForCommands(Arc<CommandBase>),
}

/// A container.
pub(crate) struct Container {
    pub(crate) id: ContainerId,
    pub(crate) sandbox: Arc<Sandbox>,
    /// Without the request and the image's configuration, which are beside it.
    pub(crate) record: ContainerRecord,
    pub(crate) config: ContainerConfig,
    /// Shared with the image, and with other containers of it.
    pub(crate) image: Arc<ImageConfiguration>,
    /// Its records and writable layer.
    pub(crate) directory: PathBuf,
    pub(crate) cgroup: Cgroup,
    pub(crate) exec_groups: ExecGroups,
    pub(crate) late: Late,
    /// Keep the layers of its image and its volumes' images on disk, though the images may be removed.
    pub(crate) _leases: Vec<Lease>,
    /// Guards the value alone.
    kept: Mutex<Kept>,
    /// The state, and who waits for it to change.
    state: watch::Sender<State>,
    /// The limits as they were last asked for. Guards the value alone.
    pub(crate) resources: Mutex<LinuxContainerResources>,
    /// What NRI plugins have made of it.
    pub(crate) nri: nri::Told,
    /// As ListContainers tells it, but for its state: encoded when it is first asked for.
    pub(crate) listed: OnceLock<Bytes>,
    /// What is kept between readings of its statistics.
    pub(crate) gauges: ContainerGauges,
    /// Held by the operation that changes the container, across its awaits.
    pub(crate) operation: tokio::sync::Mutex<()>,
}

/// What a container is made from, by a request or by recovery.
pub(crate) struct Parts {
    pub(crate) id: ContainerId,
    pub(crate) sandbox: Arc<Sandbox>,
    pub(crate) record: ContainerRecord,
    pub(crate) image: Arc<ImageConfiguration>,
    pub(crate) directory: PathBuf,
    pub(crate) cgroup: Cgroup,
    pub(crate) leases: Vec<Lease>,
    pub(crate) state: State,
    pub(crate) resources: Option<LinuxContainerResources>,
    pub(crate) nri: nri::Told,
}

impl Container {
    pub(crate) fn new(mut parts: Parts) -> Self {
        if matches!(parts.state, State::Exited { .. }) {
            parts.nri.know_end();
        }
        let config = parts.record.config.take().unwrap_or_default();
        parts.record.image_config = String::new();
        let asked = config
            .linux
            .as_ref()
            .and_then(|linux| linux.resources.clone())
            .unwrap_or_default();
        Self {
            id: parts.id,
            sandbox: parts.sandbox,
            record: parts.record,
            config,
            image: parts.image,
            directory: parts.directory,
            exec_groups: ExecGroups::new(parts.cgroup.clone()),
            late: Late::default(),
            cgroup: parts.cgroup,
            _leases: parts.leases,
            kept: Mutex::new(Kept::Nothing),
            state: watch::Sender::new(parts.state),
            resources: Mutex::new(parts.resources.unwrap_or(asked)),
            nri: parts.nri,
            listed: OnceLock::new(),
            gauges: ContainerGauges::default(),
            operation: tokio::sync::Mutex::new(()),
        }
    }

    pub(crate) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    pub(crate) fn cri_state(&self) -> ContainerState {
        self.state.borrow().cri()
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(*self.state.borrow(), State::Running { .. })
    }

    /// An error names what could not be done for it does not run.
    pub(crate) fn require_running(&self, what: &str) -> Result<(), CallError> {
        if self.is_running() {
            return Ok(());
        }
        let why = format!(
            "cannot {what} in the container {}: it is not running",
            self.id
        );
        Err(CallError::state(why))
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&self) {
        let mut state = self.state.subscribe();
        // An error is not possible: the sender is this container's.
        let _ = state
            .wait_for(|state| matches!(state, State::Exited { .. }))
            .await;
    }

    /// Waits until a start that is under way has told what came of it.
    async fn start_told(&self) {
        let mut state = self.state.subscribe();
        // An error is not possible: the sender is this container's.
        let _ = state.wait_for(|state| *state != State::Created).await;
    }

    /// Goes to the next state, unless `step` finds that it is not one from here. The one place where states change; what
    /// clients hear of it is told before anybody can go on to the state after.
    pub(crate) fn advance(&self, events: &Events, step: impl FnOnce(&State) -> Option<State>) {
        self.state.send_if_modified(|state| match step(state) {
            Some(next) => {
                let before = std::mem::replace(state, next);
                if let Some(kind) = happened(&before, state) {
                    events.container(kind, self);
                }
                true
            }
            None => false,
        });
    }

    /// Learns that it was started, if that is news.
    pub(crate) fn started_as(&self, events: &Events, started: &StartedRecord) {
        self.advance(events, |state| match state {
            State::Created => Some(State::Running {
                started: started.clone(),
            }),
            State::Exited {
                started: None,
                exit,
            } => Some(State::Exited {
                started: Some(started.clone()),
                exit: exit.clone(),
            }),
            _ => None,
        });
    }

    pub(crate) fn name(&self) -> ContainerName {
        let metadata = self.metadata();
        ContainerName {
            sandbox: self.sandbox.id.clone(),
            name: metadata.name,
            attempt: metadata.attempt,
        }
    }

    pub(crate) fn metadata(&self) -> ContainerMetadata {
        self.config.metadata.clone().unwrap_or_default()
    }

    pub(crate) fn asked_resources(&self) -> LinuxContainerResources {
        self.resources
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// The directory of a container's records and writable layer.
pub(crate) fn directory(state_dir: &Path, id: &ContainerId) -> PathBuf {
    state_dir.join("containers").join(id.as_str())
}
