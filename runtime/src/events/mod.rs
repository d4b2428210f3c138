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
//!   with what has happened since, exits found at the start among it, or says that this is lost. So a client that lists
//!   after its stream has ended may do so before or after it subscribes again. One that comes later than [`BOUNDS`] allow
//!   lists after it has subscribed.
//!
//! Who changes a state only queues a note; one task makes the messages, off the path of calls. While nobody reads, notes
//! are only kept, and made into messages when the next reader comes; when none may come any more, they are dropped.

mod log;
mod subscription;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use podwright_cri_api::v1::{ContainerEventResponse, ContainerEventType};
use prost::Message as _;
use tokio::sync::{mpsc, oneshot, watch};

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

/// What the publishing task is told or asked.
enum Message {
    Note(Note),
    /// A new reader; none when there are too many.
    Subscribe(oneshot::Sender<Option<Subscription>>),
}

/// An event as it is kept: encoded, which is smaller by far, and counted by its bytes.
type Encoded = Arc<[u8]>;

/// What the readers share.
struct Shared {
    /// Held for single steps of the log, never across an await.
    log: Mutex<Log<Encoded>>,
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
    fn log(&self) -> MutexGuard<'_, Log<Encoded>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where what has happened is told.
pub(crate) struct Events {
    messages: mpsc::UnboundedSender<Message>,
    shared: Arc<Shared>,
}

impl Events {
    /// What is told waits until [`Publisher::publish`] runs.
    pub(crate) fn new() -> (Self, Publisher) {
        let (messages, told) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            log: Mutex::new(Log::new(BOUNDS, Instant::now())),
            news: watch::Sender::new(Serving::Yes),
        });
        let publisher = Publisher {
            told,
            shared: Arc::clone(&shared),
            kept: VecDeque::new(),
            lost: 0,
            last: 0,
        };
        (Self { messages, shared }, publisher)
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
        let _ = self
            .messages
            .send(Message::Note(Note { kind, id, sandbox }));
    }

    /// A new reader; none when there are too many.
    pub(crate) async fn subscribe(&self) -> Option<Subscription> {
        let (answer, subscription) = oneshot::channel();
        // As above.
        let _ = self.messages.send(Message::Subscribe(answer));
        subscription.await.ok().flatten()
    }

    /// Ends all streams once they have had what is there.
    pub(crate) fn end(&self) {
        self.shared.news.send_replace(Serving::Ending);
    }
}

/// Makes messages of what is told.
pub(crate) struct Publisher {
    told: mpsc::UnboundedReceiver<Message>,
    shared: Arc<Shared>,
    /// Since nobody reads; at most as many as the log may hold.
    kept: VecDeque<Note>,
    /// How many before those were too many.
    lost: u64,
    /// The time of the last event.
    last: i64,
}

impl Publisher {
    /// Works until the node is gone. To be spawned when the node's state is whole.
    pub(crate) async fn publish(mut self, node: Weak<Node>) {
        loop {
            let expiry = self.shared.log().expire(Instant::now());
            if expiry.is_none() {
                // Nobody may come back any more.
                self.kept = VecDeque::new();
                self.lost = 0;
            }
            let expired = async {
                match expiry {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            let message = tokio::select! {
                message = self.told.recv() => message,
                () = expired => continue,
            };
            let (Some(message), Some(node)) = (message, node.upgrade()) else {
                return;
            };
            match message {
                Message::Note(note) => self.take(&node, note),
                Message::Subscribe(answer) => {
                    if self.lost > 0 {
                        self.shared.log().lose(std::mem::take(&mut self.lost));
                    }
                    while let Some(note) = self.kept.pop_front() {
                        self.append(&node, &note);
                    }
                    // Who asked may have gone; then the subscription is dropped.
                    let _ = answer.send(Subscription::open(&self.shared));
                }
            }
        }
    }

    fn take(&mut self, node: &Node, note: Note) {
        let now = Instant::now();
        let (has_readers, is_wanted) = {
            let mut log = self.shared.log();
            (log.has_readers(), log.is_wanted(now))
        };
        if has_readers {
            self.append(node, &note);
        } else if is_wanted {
            if self.kept.len() == BOUNDS.entries {
                self.kept.pop_front();
                self.lost += 1;
            }
            self.kept.push_back(note);
        }
    }

    fn append(&mut self, node: &Node, note: &Note) {
        let event = message(node, note, &mut self.last).encode_to_vec();
        let bytes = event.len();
        let mut log = self.shared.log();
        log.append(event.into(), bytes, Instant::now());
        drop(log);
        // Nobody may be listening now.
        self.shared.news.send_modify(|_| ());
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
