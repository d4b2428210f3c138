//! ListMetricDescriptors and ListPodSandboxMetrics: what a kubelet would else ask cAdvisor for, under the same names.
//!
//! A container's samples have its cgroup for `id` and its id for `name`. A pod's own have the pod's cgroup for `id`: what it
//! uses with all its containers has an empty `container`, its traffic the `container` "POD", as dashboards know them from
//! cAdvisor. CRI's values are whole numbers: seconds are rounded down.

mod devices;
mod name;
mod processes;
mod samples;

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use nix::sys::stat::{major, minor};
use nix::sys::statvfs::statvfs;
use podwright_cri_api::v1 as cri;
use podwright_netns::Counters;

use self::devices::Devices;
use self::name::Name;
use self::samples::{FileSystem, Samples};
use crate::cgroup::CgroupError;
use crate::clock;
use crate::container::{Container, State};
use crate::error::{CallError, chain};
use crate::node::Node;
use crate::sandbox::Sandbox;
use crate::stats;

/// What cAdvisor calls the container that holds a pod's network.
const POD: &str = "POD";

/// All metrics that there can be.
pub(crate) fn descriptors() -> Vec<cri::MetricDescriptor> {
    Name::ALL.iter().map(|name| name.descriptor()).collect()
}

/// The metrics of all pods that are ready.
pub(crate) async fn list(node: &Arc<Node>) -> Result<Vec<cri::PodSandboxMetrics>, CallError> {
    let mut sandboxes = node.sandboxes.all();
    sandboxes.retain(|sandbox| sandbox.pause().is_some());
    let containers: Vec<Arc<Container>> = sandboxes
        .iter()
        .flat_map(|sandbox| node.containers_of(&sandbox.id))
        .collect();
    stats::look(node, &containers).await;
    let reading = Arc::new(Reading::begin(node));
    // One that ends while it is read has no metrics.
    stats::collect(&sandboxes, move |sandbox| reading.sandbox(sandbox).ok()).await
}

/// What the samples of all pods share.
struct Reading {
    node: Arc<Node>,
    now: i64,
    traffic: HashMap<String, Counters>,
    file_system: FileSystem,
    devices: Devices,
}

impl Reading {
    fn begin(node: &Arc<Node>) -> Self {
        let devices = Devices::default();
        Self {
            node: Arc::clone(node),
            now: clock::now(),
            traffic: stats::traffic(node),
            file_system: file_system(&node.config.state_dir, &devices),
            devices,
        }
    }

    fn sandbox(&self, sandbox: &Sandbox) -> Result<cri::PodSandboxMetrics, CgroupError> {
        let labels = |container: &str, name: &str| {
            let metadata = sandbox.metadata();
            [
                container.to_owned(),
                sandbox.cgroup.to_string(),
                String::new(),
                name.to_owned(),
                metadata.namespace,
                metadata.name,
            ]
        };
        let mut own = Samples::new(labels("", ""));
        own.times(self.now, sandbox.created_at);
        let (used, _) = stats::of_sandbox(&self.node, sandbox, self.now)?;
        own.stats(&used);
        let mut metrics = own.finish();
        if let Some(counters) = self.traffic.get(sandbox.id.as_str()) {
            let mut network = Samples::new(labels(POD, sandbox.id.as_str()));
            network.network(counters);
            metrics.extend(network.finish());
        }
        let containers = self.node.containers_of(&sandbox.id);
        Ok(cri::PodSandboxMetrics {
            pod_sandbox_id: sandbox.id.to_string(),
            metrics,
            container_metrics: containers
                .iter()
                .filter_map(|container| self.container(container))
                .collect(),
        })
    }

    /// None of one that does not run.
    fn container(&self, container: &Container) -> Option<cri::ContainerMetrics> {
        let State::Running { started } = container.state() else {
            return None;
        };
        let metadata = container.sandbox.metadata();
        let mut samples = Samples::new([
            container.metadata().name,
            container.cgroup.path().to_string(),
            container.image_name(),
            container.id.to_string(),
            metadata.namespace,
            metadata.name,
        ]);
        samples.times(self.now, started.at);
        if let Err(error) = self.measure(container, started.pid, &mut samples) {
            if !error.is_missing() {
                tracing::error!(container = %container.id, error = %chain(&error), "cannot read the metrics of the container");
            }
            return None;
        }
        samples.layer(container.gauges.layer.usage(), &self.file_system);
        Some(cri::ContainerMetrics {
            container_id: container.id.to_string(),
            metrics: samples.finish(),
        })
    }

    fn measure(
        &self,
        container: &Container,
        pid: u32,
        samples: &mut Samples,
    ) -> Result<(), CgroupError> {
        if let Some((used, _)) = stats::of_container(container, self.now)? {
            samples.stats(&used);
        }
        samples.detail(&container.cgroup.detail()?, &self.devices);
        samples.processes(&processes::read(&container.cgroup.pids()?, pid));
        Ok(())
    }
}

/// The file system that holds writable layers; zeros when it does not tell.
fn file_system(path: &Path, devices: &Devices) -> FileSystem {
    let device = std::fs::metadata(path).map_or(String::new(), |metadata| {
        let numbers = (major(metadata.dev()), minor(metadata.dev()));
        let (major, minor) = (u32::try_from(numbers.0), u32::try_from(numbers.1));
        devices.name(major.unwrap_or_default(), minor.unwrap_or_default())
    });
    match statvfs(path) {
        Ok(stat) => FileSystem {
            device,
            bytes: stat.blocks().saturating_mul(stat.fragment_size()),
            inodes: stat.files(),
            inodes_free: stat.files_free(),
        },
        Err(errno) => {
            tracing::error!(path = %path.display(), %errno, "cannot ask the file system for its size");
            FileSystem {
                device,
                ..FileSystem::default()
            }
        }
    }
}
