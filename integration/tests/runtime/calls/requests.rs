//! A sensible request of every call, for a node that has a pod with containers.

use std::path::PathBuf;

use bytes::Bytes;
use podwright_cri_api::v1::*;
use podwright_integration::{
    cri::Pod,
    images::BUSYBOX,
    pod::{ContainerSpec, PodSpec},
};
use prost::Message;

/// How a call answers its sensible request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expected {
    /// It is done.
    Done,
    /// It is done, or refused with `FAILED_PRECONDITION` and what the machine lacks, in lower case.
    DoneOrLacking(&'static str),
}

/// What there is to make requests about.
pub(super) struct World {
    pub(super) pod: Pod,
    /// Runs, and stays.
    pub(super) container: String,
    /// Not started yet.
    pub(super) created: String,
    /// A container and a pod to be stopped and removed.
    pub(super) doomed: String,
    pub(super) doomed_pod: String,
    /// Where log directories of pods are made.
    pub(super) logs: PathBuf,
    pub(super) scratch: tempfile::TempDir,
}

/// The request for the call `name`, if it is known.
pub(super) fn of(name: &str, world: &World) -> Option<(Bytes, Expected)> {
    let request = pods(name, world)
        .or_else(|| containers(name, world))
        .or_else(|| streaming(name, world))
        .or_else(|| numbers(name, world))
        .or_else(|| images(name));
    match request {
        Some(request) => Some((request, Expected::Done)),
        None => checkpoints(name, world).map(|request| (request, Expected::DoneOrLacking("criu"))),
    }
}

fn encoded(message: impl Message) -> Bytes {
    message.encode_to_vec().into()
}

/// The same encoding for requests whose fields are all optional.
fn empty() -> Bytes {
    Bytes::new()
}

fn pods(name: &str, world: &World) -> Option<Bytes> {
    let pod_sandbox_id = world.pod.id.clone();
    let doomed = world.doomed_pod.clone();
    Some(match name {
        "RunPodSandbox" => {
            let mut config = PodSpec::new("sensible").config;
            config.log_directory = world.logs.join("sensible").display().to_string();
            encoded(RunPodSandboxRequest {
                config: Some(config),
                runtime_handler: String::new(),
            })
        }
        "StopPodSandbox" => encoded(StopPodSandboxRequest {
            pod_sandbox_id: doomed,
        }),
        "RemovePodSandbox" => encoded(RemovePodSandboxRequest {
            pod_sandbox_id: doomed,
        }),
        "PodSandboxStatus" => encoded(PodSandboxStatusRequest {
            pod_sandbox_id,
            verbose: true,
        }),
        "ListPodSandbox" | "StreamPodSandboxes" => empty(),
        "UpdatePodSandboxResources" => encoded(UpdatePodSandboxResourcesRequest {
            pod_sandbox_id,
            overhead: None,
            resources: Some(memory(512 << 20)),
        }),
        _ => return None,
    })
}

fn containers(name: &str, world: &World) -> Option<Bytes> {
    let container_id = world.container.clone();
    let doomed = world.doomed.clone();
    Some(match name {
        "CreateContainer" => encoded(CreateContainerRequest {
            pod_sandbox_id: world.pod.id.clone(),
            config: Some(ContainerSpec::new("sensible").config),
            sandbox_config: Some(world.pod.spec.config.clone()),
        }),
        "StartContainer" => encoded(StartContainerRequest {
            container_id: world.created.clone(),
        }),
        "StopContainer" => encoded(StopContainerRequest {
            container_id: doomed,
            timeout: 0,
        }),
        "RemoveContainer" => encoded(RemoveContainerRequest {
            container_id: doomed,
        }),
        "ListContainers" | "StreamContainers" => empty(),
        "ContainerStatus" => encoded(ContainerStatusRequest {
            container_id,
            verbose: true,
        }),
        "UpdateContainerResources" => encoded(UpdateContainerResourcesRequest {
            container_id,
            linux: Some(memory(256 << 20)),
            ..UpdateContainerResourcesRequest::default()
        }),
        "ReopenContainerLog" => encoded(ReopenContainerLogRequest { container_id }),
        "ExecSync" => encoded(ExecSyncRequest {
            container_id,
            cmd: vec!["true".to_owned()],
            timeout: 10,
        }),
        _ => return None,
    })
}

fn streaming(name: &str, world: &World) -> Option<Bytes> {
    let container_id = world.container.clone();
    Some(match name {
        "Exec" => encoded(ExecRequest {
            container_id,
            cmd: vec!["true".to_owned()],
            stdout: true,
            ..ExecRequest::default()
        }),
        "Attach" => encoded(AttachRequest {
            container_id,
            stdout: true,
            ..AttachRequest::default()
        }),
        "PortForward" => encoded(PortForwardRequest {
            pod_sandbox_id: world.pod.id.clone(),
            port: vec![80],
        }),
        "GetContainerEvents" => empty(),
        _ => return None,
    })
}

fn numbers(name: &str, world: &World) -> Option<Bytes> {
    Some(match name {
        "Version" => encoded(VersionRequest {
            version: "v1".to_owned(),
        }),
        "Status" => encoded(StatusRequest { verbose: true }),
        "ContainerStats" => encoded(ContainerStatsRequest {
            container_id: world.container.clone(),
        }),
        "PodSandboxStats" => encoded(PodSandboxStatsRequest {
            pod_sandbox_id: world.pod.id.clone(),
        }),
        // A kubelet that was given no range sends this at its start.
        "UpdateRuntimeConfig" => encoded(UpdateRuntimeConfigRequest {
            runtime_config: Some(RuntimeConfig {
                network_config: Some(NetworkConfig::default()),
            }),
        }),
        "RuntimeConfig"
        | "ListContainerStats"
        | "StreamContainerStats"
        | "ListPodSandboxStats"
        | "StreamPodSandboxStats"
        | "ListMetricDescriptors"
        | "ListPodSandboxMetrics"
        | "StreamPodSandboxMetrics" => empty(),
        _ => return None,
    })
}

fn images(name: &str) -> Option<Bytes> {
    let spec = |image: &str| {
        Some(ImageSpec {
            image: image.to_owned(),
            ..ImageSpec::default()
        })
    };
    Some(match name {
        "ListImages" | "StreamImages" | "ImageFsInfo" => empty(),
        "ImageStatus" => encoded(ImageStatusRequest {
            image: spec(BUSYBOX),
            verbose: true,
        }),
        "PullImage" => encoded(PullImageRequest {
            image: spec(BUSYBOX),
            ..PullImageRequest::default()
        }),
        // An image that is not there is removed already.
        "RemoveImage" => encoded(RemoveImageRequest {
            image: spec("registry.k8s.io/absent:1"),
        }),
        _ => return None,
    })
}

/// In this order: the restored pod is the one that was written before.
fn checkpoints(name: &str, world: &World) -> Option<Bytes> {
    let path = |name: &str| world.scratch.path().join(name).display().to_string();
    Some(match name {
        "CheckpointContainer" => encoded(CheckpointContainerRequest {
            container_id: world.container.clone(),
            location: path("container.tar"),
            timeout: 10,
        }),
        "CheckpointPod" => encoded(CheckpointPodRequest {
            pod_sandbox_id: world.pod.id.clone(),
            output_path: path("pod"),
            ..CheckpointPodRequest::default()
        }),
        "RestorePod" => {
            // There, whether or not a checkpoint could be written to it.
            std::fs::create_dir_all(path("pod")).ok()?;
            encoded(RestorePodRequest {
                checkpoint_path: path("pod"),
                config: Some(PodSpec::new("restored").config),
                ..RestorePodRequest::default()
            })
        }
        _ => return None,
    })
}

fn memory(memory_limit_in_bytes: i64) -> LinuxContainerResources {
    LinuxContainerResources {
        memory_limit_in_bytes,
        ..LinuxContainerResources::default()
    }
}
