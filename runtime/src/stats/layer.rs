//! What containers' writable layers take on disk. To know it, a layer is walked through; that is done in the background,
//! few at a time, and the less often the longer it takes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use podwright_cri_api::v1 as cri;
use tokio::sync::{Semaphore, watch};

use super::{FIRST_LOOK, message, walk};
use crate::clock;
use crate::container::Container;
use crate::node::Node;

/// How old the size of a layer may be at least before it is looked at again.
const AGE: Duration = Duration::from_secs(1);

/// How many times as long as a walk takes no other of the same layer begins: 2 % of a core at most.
const REST: u32 = 50;

/// Walks at the same time: a disk has few heads, and other work to do.
const AT_ONCE: usize = 2;

/// Lets few walks go on at the same time.
#[derive(Debug)]
pub(crate) struct Walks(Arc<Semaphore>);

impl Default for Walks {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

/// What a layer took when it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LayerUsage {
    /// Nanoseconds since the epoch.
    pub(crate) at: i64,
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
}

/// When a layer is looked at again.
#[derive(Debug, Default, Clone, Copy)]
enum Look {
    #[default]
    Due,
    UnderWay,
    After(Instant),
}

/// What is known of a container's writable layer.
#[derive(Debug)]
pub(crate) struct WritableLayer {
    usage: watch::Sender<Option<LayerUsage>>,
    /// Guards the value alone.
    next: Mutex<Look>,
}

impl Default for WritableLayer {
    fn default() -> Self {
        Self {
            usage: watch::Sender::new(None),
            next: Mutex::default(),
        }
    }
}

impl WritableLayer {
    /// As it was when it was last looked at; none before.
    pub(crate) fn usage(&self) -> Option<LayerUsage> {
        *self.usage.borrow()
    }

    pub(super) fn message(&self, node: &Node) -> Option<cri::FilesystemUsage> {
        self.usage().map(|usage| cri::FilesystemUsage {
            timestamp: usage.at,
            fs_id: Some(cri::FilesystemIdentifier {
                // Named as ImageFsInfo names it: it is the same file system.
                mountpoint: node.images.root().to_string_lossy().into_owned(),
            }),
            used_bytes: message::value(usage.bytes),
            inodes_used: message::value(usage.inodes),
        })
    }

    /// Whether to look now; then nobody else does.
    fn take_turn(&self) -> bool {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let due = match *next {
            Look::Due => true,
            Look::UnderWay => false,
            Look::After(at) => Instant::now() >= at,
        };
        if due {
            *next = Look::UnderWay;
        }
        due
    }

    fn looked(&self, usage: LayerUsage, took: Duration) {
        self.usage.send_replace(Some(usage));
        let rest = AGE.max(took.saturating_mul(REST));
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) =
            Look::After(Instant::now() + rest);
    }

    async fn known(&self) {
        let mut usage = self.usage.subscribe();
        // The sender is the container's.
        let _ = usage.wait_for(Option::is_some).await;
    }
}

/// Has layers that were not looked at for a while looked at; returns at once, or soon when there are some that never were.
pub(crate) async fn look(node: &Node, containers: &[Arc<Container>]) {
    for container in containers {
        if container.gauges.layer.take_turn() {
            tokio::spawn(walk_one(Arc::clone(&node.walks.0), Arc::clone(container)));
        }
    }
    let unknown = containers
        .iter()
        .filter(|container| container.gauges.layer.usage().is_none());
    let known = join_all(unknown.map(|container| container.gauges.layer.known()));
    // Those that take longer are told of next time.
    let _ = tokio::time::timeout(FIRST_LOOK, known).await;
}

async fn walk_one(walks: Arc<Semaphore>, container: Arc<Container>) {
    // Never closed.
    let _turn = walks.acquire_owned().await;
    let upper = container.directory.join("upper");
    let start = Instant::now();
    let tree = tokio::task::spawn_blocking(move || walk::tree(&upper)).await;
    let tree = tree.unwrap_or_else(|error| {
        tracing::error!(container = %container.id, %error, "the walk through the writable layer ended abnormally");
        walk::Tree::default()
    });
    let usage = LayerUsage {
        at: clock::now(),
        bytes: tree.bytes,
        inodes: tree.inodes,
    };
    container.gauges.layer.looked(usage, start.elapsed());
}
