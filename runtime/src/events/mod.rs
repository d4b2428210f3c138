//! GetContainerEvents: what happens to pods and containers, told to whoever listens.
//!
//! # What holds
//! - An event is told after the state that it tells is visible to other calls, and carries the pod's status and its
//!   containers' as they were then or later.
//! - A container's events come in the order of its states, a pod's in the order in which they happened; each event's
//!   statuses are at least as new as those of the event before.
//! - A stream has every event from its beginning to its end. One that falls too far behind ends with DATA_LOSS, and a
//!   daemon that ends ends all of them with UNAVAILABLE: then list pods and containers, and subscribe again.
//! - Events are kept for a while for streams that have ended, and for those of the daemon before: the next stream begins
//!   with what has happened since, exits found at the start among it. So a client may list before or after it
//!   subscribes again. One that comes later, or more than [`BOUNDS`] allow has happened, lists after it has subscribed.
//!
//! Who changes a state only queues a note; one task makes the messages, off the path of calls, and none while nobody is
//! to read them.

mod log;
mod subscription;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use podwright_cri_api::v1::{ContainerEventResponse, ContainerEventType};
use prost::Message;
use tokio::sync::{mpsc, watch};

use self::log::{Bounds, Log};
pub(crate) use self::subscription::Subscription;
use crate::clock;
use crate::container::{Container, container_status};
use crate::node::Node;
use crate::sandbox::{Sandbox, sandbox_status};

/// What is kept for readers: some of a node's busiest minutes.
const BOUNDS: Bounds = Bounds {
    entries: 4096,
    bytes: 8 * 1024 * 1024,
    readers: 128,
    // As containerd has it.
    absence: Duration::from_secs(5 * 60),
};

/// That something has happened.
struct Note {
    kind: ContainerEventType,
    /// The container's id, or the sandbox's for events of the sandbox itself.
    id: String,
    sandbox: Arc<Sandbox>,
}

/// What the readers share.
struct Shared {
    /// Held for single steps of the log, never across an await.
    log: Mutex<Log<Arc<ContainerEventResponse>>>,
    /// Changes when the log has grown, and when the daemon ends.
    news: watch::Sender<Serving>,
}

/// Whether more events are to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Serving {
    Yes,
    Ending,
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Log<Arc<ContainerEventResponse>>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where what has happened is told.
pub(crate) struct Events {
    notes: mpsc::UnboundedSender<Note>,
    shared: Arc<Shared>,
}

/// What was told and is not yet made into messages.
pub(crate) struct Told(mpsc::UnboundedReceiver<Note>);

impl Events {
    /// What is told until [`Told::publish`] runs waits for it.
    pub(crate) fn new() -> (Self, Told) {
        let (notes, told) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            log: Mutex::new(Log::new(BOUNDS, Instant::now())),
            news: watch::Sender::new(Serving::Yes),
        });
        (Self { notes, shared }, Told(told))
    }

    /// Tells that something has happened to a container. To be called when the state shows it, and in the order of states.
    pub(crate) fn container(&self, kind: ContainerEventType, container: &Container) {
        self.tell(kind, container.id.to_string(), &container.sandbox);
    }

    /// The same for a sandbox.
    pub(crate) fn sandbox(&self, kind: ContainerEventType, sandbox: &Arc<Sandbox>) {
        self.tell(kind, sandbox.id.to_string(), sandbox);
    }

    fn tell(&self, kind: ContainerEventType, id: String, sandbox: &Arc<Sandbox>) {
        let sandbox = Arc::clone(sandbox);
        // The receiver is gone only when the daemon ends.
        let _ = self.notes.send(Note { kind, id, sandbox });
    }

    /// A new reader; none when there are too many.
    pub(crate) fn subscribe(&self) -> Option<Subscription> {
        Subscription::open(&self.shared)
    }

    /// Ends all streams once they have had what is there.
    pub(crate) fn end(&self) {
        self.shared.news.send_replace(Serving::Ending);
    }
}

impl Told {
    /// Makes messages of what is told, until the node is gone. To be spawned when the node's state is whole.
    pub(crate) async fn publish(mut self, node: Weak<Node>, shared: Readers) {
        let Readers(shared) = shared;
        let mut last = 0;
        loop {
            let expiry = shared.log().expire(Instant::now());
            let expired = async {
                match expiry {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            let note = tokio::select! {
                note = self.0.recv() => note,
                () = expired => continue,
            };
            let (Some(note), Some(node)) = (note, node.upgrade()) else {
                return;
            };
            if !shared.log().is_wanted(Instant::now()) {
                continue;
            }
            let event = message(&node, &note, &mut last);
            let bytes = event.encoded_len();
            shared.log().append(Arc::new(event), bytes, Instant::now());
            // Nobody may be listening now.
            shared.news.send_modify(|_| ());
        }
    }
}

/// What the publishing task and the streams share.
pub(crate) struct Readers(Arc<Shared>);

impl Events {
    /// For [`Told::publish`].
    pub(crate) fn readers(&self) -> Readers {
        Readers(Arc::clone(&self.shared))
    }
}

/// The event with the pod as it is now. Its time is from before the statuses, so that a client that compares times takes
/// them for no newer than they are, and counts up even when the clock does not.
fn message(node: &Node, note: &Note, last: &mut i64) -> ContainerEventResponse {
    *last = clock::now().max(*last + 1);
    let containers = node.containers_of(&note.sandbox.id);
    ContainerEventResponse {
        container_id: note.id.clone(),
        container_event_type: note.kind.into(),
        created_at: *last,
        pod_sandbox_status: Some(sandbox_status(node, &note.sandbox)),
        containers_statuses: containers
            .iter()
            .map(|container| container_status(container))
            .collect(),
    }
}
