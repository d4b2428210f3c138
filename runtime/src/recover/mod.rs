//! What happens at start: records are read, living pods are found again, and what belongs to nobody is reclaimed.
//!
//! The daemon always starts without help. A damaged record is dropped with a log line, and what it stood for reclaimed;
//! only what is ours by name is ever touched.

mod leftovers;
mod reconnect;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use futures_util::future::join_all;
use podwright_cri_api::v1::ContainerEventType;
use podwright_image::ChainId;
use podwright_pause::protocol::ContainerEntry;

use crate::cgroup::CgroupPath;
use crate::container::{self, Container, Parts, State};
use crate::error::chain;
use crate::ids::{ContainerId, SandboxId};
use crate::node::Node;
use crate::pause::Pause;
use crate::records::{
    ContainerRecord, ExitRecord, NriRecord, PodResourcesRecord, ReadyRecord, Record, RecordError,
    ResourcesRecord, SandboxRecord, StartedRecord, StoppedRecord,
};
use crate::sandbox::{self, PodName, Sandbox, Settings};
use leftovers::discard;
pub(crate) use reconnect::reconnect;
use reconnect::{catch_up, living};

/// Why the pods of before cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// What there is.
    #[error("cannot list {path}")]
    List {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A later version has made some of them, or they cannot be read now.
    #[error("the pods that are there cannot all be taken over; they run on")]
    Unread(#[from] RecordError),
}

impl RecoverError {
    fn list(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::List { path, source }
    }
}

/// Brings the node back to what it was.
pub(crate) async fn recover(node: &Arc<Node>) -> Result<(), RecoverError> {
    // All at once: a pod whose pause is slow to answer must not keep the others waiting.
    let sandboxes = objects(node, "pods", SandboxId::parse)?;
    let recovered = sandboxes.iter().map(|(id, directory)| async move {
        recover_sandbox(node, id, directory)
            .await
            .map_err(|why| (id, directory, why))
    });
    let (mut told, mut died, mut silent) = (HashMap::new(), Vec::new(), Vec::new());
    for result in join_all(recovered).await {
        match result {
            Ok(found) => {
                died.extend(found.died);
                if let Some((pause, of_pod)) = found.pause {
                    if matches!(of_pod, Told::Nothing) {
                        silent.push((found.id.clone(), pause));
                    }
                    told.insert(found.id.to_string(), of_pod);
                }
            }
            Err((_, _, Refusal::Unread(error))) => return Err(error.into()),
            Err((id, directory, Refusal::Dropped(why))) => {
                tracing::warn!(sandbox = %id, why, "dropping the pod sandbox");
                discard(node, id).await;
                node.reclaim.directory(directory.clone());
            }
        }
    }
    for (id, directory) in objects(node, "containers", ContainerId::parse)? {
        match recover_container(node, &id, &directory, &mut told) {
            Ok(()) => {}
            Err(Refusal::Unread(error)) => return Err(error.into()),
            Err(Refusal::Dropped(why)) => {
                tracing::warn!(container = %id, why, "dropping the container");
                node.reclaim.directory(directory);
            }
        }
    }
    for sandbox in &died {
        // After its containers, as in any other stop.
        node.container_events
            .sandbox(ContainerEventType::ContainerStoppedEvent, sandbox);
    }
    leftovers::reclaim(node).await?;
    for (id, pause) in silent {
        tracing::warn!(sandbox = %id, "the pod's pause process does not say what runs; going on without it");
        let node = Arc::clone(node);
        let closed = pause.has_ended().then(|| pause.id());
        tokio::spawn(async move {
            match closed {
                // Its descriptor may be the one that the next connection needs.
                Some(connection) => {
                    drop(pause);
                    sandbox::lost(&node, &id, connection).await;
                }
                None => catch_up(node, id, pause).await,
            }
        });
    }
    let (sandboxes, containers) = (node.sandboxes.all().len(), node.containers.all().len());
    tracing::info!(sandboxes, containers, "recovered");
    Ok(())
}

fn id_text(entry: &ContainerEntry) -> String {
    String::from_utf8_lossy(&entry.id.0).into_owned()
}

/// The directories of one kind of object, by id. What has no id for a name is none of ours.
fn objects<I>(
    node: &Node,
    kind: &str,
    parse: impl Fn(&str) -> Result<I, crate::ids::InvalidId>,
) -> Result<Vec<(I, PathBuf)>, RecoverError> {
    let directory = node.config.state_dir.join(kind);
    let entries = std::fs::read_dir(&directory).map_err(RecoverError::list(&directory))?;
    // What is not listed would be taken for gone.
    let entries: Vec<_> = entries
        .collect::<Result<_, _>>()
        .map_err(RecoverError::list(&directory))?;
    let named = entries
        .into_iter()
        .filter_map(|entry| Some((parse(entry.file_name().to_str()?).ok()?, entry.path())));
    Ok(named.collect())
}

/// Why an object is not taken over.
enum Refusal {
    /// It is damaged or half made: it is dropped, and what it stood for reclaimed.
    Dropped(String),
    /// A later version has made it, or it cannot be read now. It lives, so the start ends here.
    Unread(RecordError),
}

impl From<RecordError> for Refusal {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Newer { .. } | RecordError::Read { .. } => Self::Unread(error),
            error => Self::Dropped(chain(&error)),
        }
    }
}

impl From<&str> for Refusal {
    fn from(why: &str) -> Self {
        Self::Dropped(why.to_owned())
    }
}

impl From<String> for Refusal {
    fn from(why: String) -> Self {
        Self::Dropped(why)
    }
}

/// What a pod's pause tells of its containers. It is asked once: what it says later is for [`catch_up`].
enum Told {
    /// Those that it has not forgotten, by id.
    Containers(HashMap<String, ContainerEntry>),
    /// Nothing yet.
    Nothing,
}

impl Told {
    fn all(entries: Vec<ContainerEntry>) -> Self {
        let by_id = entries.into_iter().map(|entry| (id_text(&entry), entry));
        Self::Containers(by_id.collect())
    }
}

/// What a pod's record and pause tell.
struct Found {
    id: SandboxId,
    /// The pod's pause, if it lives, and what that tells.
    pause: Option<(Arc<Pause>, Told)>,
    /// The sandbox, when its end is news.
    died: Option<Arc<Sandbox>>,
}

async fn recover_sandbox(
    node: &Arc<Node>,
    id: &SandboxId,
    directory: &Path,
) -> Result<Found, Refusal> {
    let mut record = SandboxRecord::read(directory)?
        .ok_or("it has no record: the daemon died while making it")?;
    let config = record.config.clone().ok_or("its record has no config")?;
    let settings = Settings::check(&config).map_err(|error| chain(&error))?;
    let cgroup = CgroupPath::new(&record.cgroup).map_err(|error| chain(&error))?;
    // That these were written says what they say, torn or not.
    let ready = ReadyRecord {
        at: record.created_at,
    };
    let ready = ReadyRecord::recover(directory, || Some(ready));
    if ready?.is_none() {
        discard(node, id).await;
        sandbox::release(node, id, &settings, &cgroup).await;
        return Err("the daemon died while making it".into());
    }
    let stopped = StoppedRecord {
        at: crate::clock::now(),
    };
    let stopped = StoppedRecord::recover(directory, || Some(stopped));
    let stopped = stopped?.is_some();
    let pause = match stopped {
        true => None,
        false => living(node, id).await.unwrap_or_else(|error| {
            tracing::error!(sandbox = %id, error = %chain(&error), "the pod's pause process may live and is not reached; trying again");
            Some((Pause::unreached(id), Told::Nothing))
        }),
    };
    sandbox::restore_level(&node.selinux, &mut record);
    let alive = pause.is_some();
    let state = match &pause {
        Some((pause, _)) => sandbox::State::Ready(Arc::clone(pause)),
        None => sandbox::State::NotReady,
    };
    let directories = sandbox::Directories::find(&node.config, id, &settings);
    let sandbox = Arc::new(Sandbox::new(
        &record,
        id.clone(),
        settings,
        node.handlers.of_pod(id.as_str(), &record.runtime_handler),
        cgroup,
        directories,
        state,
    ));
    if let Some(resources) = PodResourcesRecord::recover(directory, || None)? {
        *sandbox
            .resources
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = resources;
    }
    node.pod_names
        .restore(PodName::from(&sandbox.metadata()), id.clone());
    node.sandboxes.insert(id.clone(), Arc::clone(&sandbox));
    if !alive && !stopped {
        tracing::warn!(sandbox = %id, "the pod's pause process is gone; the pod is not ready");
        sandbox::release(node, id, &sandbox.settings, &sandbox.cgroup).await;
        let stopped = StoppedRecord {
            at: crate::clock::now(),
        }
        .write(directory);
        stopped.unwrap_or_else(|error| tracing::error!(sandbox = %id, error = %chain(&error), "cannot record that it has stopped"));
    }
    Ok(Found {
        id: id.clone(),
        pause,
        died: (!alive && !stopped).then_some(sandbox),
    })
}

/// Whether a container's start was recorded before its daemon ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    Recorded,
    News,
}

/// What a container's facts, and its pause, tell.
struct Recorded {
    state: State,
    start: Start,
}

/// The state of a container. `entry` is what pause knows of it.
fn recorded_state(
    id: &ContainerId,
    record: &ContainerRecord,
    directory: &Path,
    entry: Option<&ContainerEntry>,
) -> Result<Recorded, Refusal> {
    let known = entry.map(|entry| StartedRecord {
        pid: entry.pid,
        at: entry.started_at,
    });
    let started = StartedRecord::recover(directory, || {
        // A torn one tells that it was started, at some time after this one.
        let gone = StartedRecord {
            pid: 0,
            at: record.created_at,
        };
        Some(known.clone().unwrap_or(gone))
    });
    let started = started?;
    // How it ended is told by pause again, or not known any more.
    let exit = ExitRecord::recover(directory, || None)?;
    if started.is_none()
        && let Some(known) = &known
        && let Err(error) = known.write(directory)
    {
        tracing::error!(container = %id, error = %chain(&error), "cannot record the start");
    }
    let start = match started.is_none() && known.is_some() {
        true => Start::News,
        false => Start::Recorded,
    };
    let state = match (exit, started.or(known)) {
        (Some(exit), started) => State::Exited { started, exit },
        (None, Some(started)) => State::Running { started },
        (None, None) => State::Created,
    };
    Ok(Recorded { state, start })
}

fn recover_container(
    node: &Arc<Node>,
    id: &ContainerId,
    directory: &Path,
    told: &mut HashMap<String, Told>,
) -> Result<(), Refusal> {
    let record = ContainerRecord::read(directory)?
        .ok_or("it has no record: the daemon died while making it")?;
    let sandbox = node
        .sandboxes
        .get(&record.sandbox)
        .ok_or("its pod sandbox is gone")?;
    let told = told.get_mut(&record.sandbox);
    let (entry, told) = match told {
        Some(Told::Containers(entries)) => (entries.remove(id.as_str()), told),
        other => (None, other),
    };
    let image = container::recorded_image(node, &record).map_err(|error| error.to_string())?;
    let of_volumes = record.volume_images.iter().flat_map(|image| &image.chains);
    let chains = record.chains.iter().chain(of_volumes);
    let chains = chains.map(|chain| chain.parse::<ChainId>());
    let chains = chains
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| error.to_string())?;
    let Recorded { state, start } = recorded_state(id, &record, directory, entry.as_ref())?;
    let ended = matches!(state, State::Exited { .. });
    let nri = match &entry {
        // An exec in it would not be as its plugins wanted it.
        Some(_) => NriRecord::read(directory),
        None => NriRecord::recover(directory, || None),
    };
    let cgroup = sandbox.cgroup.join(id.as_str());
    let cgroup = cgroup.map_err(|error| chain(&error))?;
    let container = Arc::new(Container::new(Parts {
        id: id.clone(),
        sandbox: Arc::clone(&sandbox),
        image,
        directory: directory.to_owned(),
        cgroup: node.cgroups.cgroup(&cgroup),
        leases: vec![node.images.lease_chains(&chains)],
        state,
        resources: ResourcesRecord::recover(directory, || None)?
            .and_then(|record| record.resources),
        nri: crate::nri::Told::recorded(nri?),
        record,
    }));
    if let Err(error) = container.exec_groups.remove_forgotten() {
        tracing::warn!(container = %id, error = %chain(&error), "the groups of ended commands are not removed");
    }
    node.container_names.restore(container.name(), id.clone());
    node.add_container(Arc::clone(&container));
    if start == Start::News {
        node.container_events
            .container(ContainerEventType::ContainerStartedEvent, &container);
    }
    match entry {
        _ if ended => {}
        Some(ContainerEntry {
            exit: Some(exit), ..
        }) => container::exited(node, &container, &exit),
        Some(_) => {}
        None if is_lost(&container.state(), told.as_deref()) => container::lost(node, &container),
        None => {}
    }
    Ok(())
}

/// Whether a container that has not ended as far as its records say, and of which pause has told nothing, is gone. `told` is what
/// the pod's pause, if it lives, tells of others.
fn is_lost(state: &State, told: Option<&Told>) -> bool {
    match (state, told) {
        (State::Exited { .. }, _) | (_, Some(Told::Nothing)) => false,
        // It went with its pod.
        (_, None) => true,
        // pause knows all that it has started.
        (State::Running { .. }, Some(Told::Containers(_))) => true,
        (State::Created, Some(Told::Containers(_))) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_lost_only_when_somebody_knows_so() {
        let running = State::Running {
            started: StartedRecord { pid: 1, at: 1 },
        };
        let knows_others = Told::Containers(HashMap::new());
        for (state, told, expected) in [
            (&running, None, true),
            (&running, Some(&knows_others), true),
            // It may answer a moment later, and its container runs.
            (&running, Some(&Told::Nothing), false),
            (&State::Created, None, true),
            (&State::Created, Some(&knows_others), false),
            (&State::Created, Some(&Told::Nothing), false),
        ] {
            assert_eq!(is_lost(state, told), expected);
        }
    }

    #[test]
    fn only_a_record_that_is_wrong_costs_its_pod() {
        let path = || PathBuf::from("/pods/x/sandbox");
        let errno = std::io::Error::from_raw_os_error;
        let read = |number| RecordError::unread(path(), errno(number));
        let newer = RecordError::Newer {
            path: path(),
            form: 9,
        };
        for error in [newer, read(libc::EMFILE), read(libc::ESTALE)] {
            let text = error.to_string();
            assert!(matches!(error.into(), Refusal::Unread(_)), "{text}");
        }
        let damaged = RecordError::Damaged {
            path: path(),
            what: "it is empty".into(),
        };
        // A full disk must not keep the node from starting.
        let full = RecordError::Change {
            action: "write",
            path: path(),
            source: errno(libc::ENOSPC),
        };
        for error in [damaged, full, read(libc::EIO), read(libc::EISDIR)] {
            let text = error.to_string();
            assert!(matches!(error.into(), Refusal::Dropped(_)), "{text}");
        }
    }
}
