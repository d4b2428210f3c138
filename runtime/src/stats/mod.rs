//! What pods and containers use: ContainerStats, PodSandboxStats, and their lists.
//!
//! A list reads the kernel's counters when it is asked, one pread(2) per file that the meters hold open, and all pods'
//! traffic in one file. What takes long is not waited for: the size of a writable layer is looked at in the background, and
//! told as it was then. Nothing here asks a pod's pause or waits for one of its processes, so a frozen pod is as quick as
//! any other. No task runs while nobody asks.

mod container;
mod filter;
mod layer;
mod message;
mod rate;
mod sandbox;
mod walk;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::try_join_all;
use podwright_cri_api::v1 as cri;

pub(crate) use self::container::read as of_container;
use self::layer::WritableLayer;
pub(crate) use self::layer::{LayerUsage, Walks, look};
pub(crate) use self::message::INTERFACE;
use self::rate::CpuRate;
pub(crate) use self::sandbox::{read as of_sandbox, traffic};
use crate::cgroup::{Cgroup, CgroupError, HeldMeter, Stats};
use crate::container::Container;
use crate::error::{CallError, Context};
use crate::node::Node;

/// How long a call waits for sizes of writable layers that nobody knows yet: small ones are there at once.
const FIRST_LOOK: Duration = Duration::from_millis(100);

/// Threads that one list is read on.
const MOST_THREADS: usize = 4;

/// So many are read on one thread before another is worth its start.
const LEAST_SHARE: usize = 8;

/// What is kept between readings of one group.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    meter: HeldMeter,
    rate: CpuRate,
}

impl Gauges {
    /// Lets go of what has ended.
    pub(crate) fn end(&self) {
        self.meter.end();
    }

    /// The group's use now, and its CPU time per second; `began` is when it had used none.
    fn read(&self, cgroup: &Cgroup, began: i64, now: i64) -> Result<(Stats, u64), CgroupError> {
        let stats = self.meter.read(cgroup)?;
        let rate = self.rate.at(now, stats.cpu.usage_ns, began);
        Ok((stats, rate))
    }
}

/// The same for a container.
#[derive(Debug, Default)]
pub(crate) struct ContainerGauges {
    pub(crate) group: Gauges,
    pub(crate) layer: WritableLayer,
}

/// ContainerStats.
pub(crate) async fn container(
    node: &Arc<Node>,
    id: &str,
) -> Result<cri::ContainerStats, CallError> {
    let container = node.containers.require(id)?;
    layer::look(node, std::slice::from_ref(&container)).await;
    let node = Arc::clone(node);
    blocking(move || {
        container::stats(&node, &container)
            .internal(|| format!("cannot read the stats of the container {}", container.id))
    })
    .await?
}

/// ListContainerStats: those that run and that the filter lets through.
pub(crate) async fn containers(
    node: &Arc<Node>,
    filter: Option<cri::ContainerStatsFilter>,
) -> Result<Vec<cri::ContainerStats>, CallError> {
    let containers = filter::containers(node, filter);
    layer::look(node, &containers).await;
    let node = Arc::clone(node);
    collect(&containers, move |container| {
        container::running(&node, container)
    })
    .await
}

/// PodSandboxStats.
pub(crate) async fn sandbox(node: &Arc<Node>, id: &str) -> Result<cri::PodSandboxStats, CallError> {
    let sandbox = node.sandboxes.require(id)?;
    layer::look(node, &node.containers_of(&sandbox.id)).await;
    let node = Arc::clone(node);
    blocking(move || {
        let traffic = sandbox::traffic(&node);
        sandbox::stats(&node, &sandbox, &traffic)
            .internal(|| format!("cannot read the stats of the pod sandbox {}", sandbox.id))
    })
    .await?
}

/// ListPodSandboxStats: those that are ready and that the filter lets through.
pub(crate) async fn sandboxes(
    node: &Arc<Node>,
    filter: Option<cri::PodSandboxStatsFilter>,
) -> Result<Vec<cri::PodSandboxStats>, CallError> {
    let sandboxes = filter::sandboxes(node, filter);
    let containers: Vec<Arc<Container>> = sandboxes
        .iter()
        .flat_map(|sandbox| node.containers_of(&sandbox.id))
        .collect();
    layer::look(node, &containers).await;
    let node = Arc::clone(node);
    let traffic = Arc::new(sandbox::traffic(&node));
    // One that ends while it is asked is not listed.
    collect(&sandboxes, move |sandbox| {
        sandbox::stats(&node, sandbox, &traffic).ok()
    })
    .await
}

/// Reads many, in order, on a few threads: readings are small system calls that do not wait for each other.
pub(crate) async fn collect<T, R>(
    items: &[Arc<T>],
    read: impl Fn(&T) -> Option<R> + Clone + Send + 'static,
) -> Result<Vec<R>, CallError>
where
    T: Send + Sync + 'static,
    R: Send + 'static,
{
    static THREADS: OnceLock<usize> = OnceLock::new();
    let threads = *THREADS.get_or_init(|| {
        std::thread::available_parallelism().map_or(1, |cores| cores.get().min(MOST_THREADS))
    });
    let share = items.len().div_ceil(threads).max(LEAST_SHARE);
    let parts = items.chunks(share).map(|part| {
        let (part, read) = (part.to_vec(), read.clone());
        blocking(move || -> Vec<R> { part.iter().filter_map(|item| read(item)).collect() })
    });
    let parts = try_join_all(parts).await?;
    Ok(parts.into_iter().flatten().collect())
}

/// Many small system calls belong off the threads that serve others.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, CallError> {
    tokio::task::spawn_blocking(work)
        .await
        .internal(|| "the reading of statistics ended abnormally".into())
}
