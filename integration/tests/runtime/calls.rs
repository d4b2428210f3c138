//! That every call is answered by more than a refusal of all calls of its kind.

use anyhow::Result;
use podwright_cri_api::v1;
use podwright_integration::node::Node;
use tonic::{Code, Status};

/// Calls of an empty request each, by the calls' names in the service, and how they are refused.
macro_rules! refusals {
    ($client:expr, $($name:literal: $method:ident($request:ident)),+ $(,)?) => {
        vec![$(($name, $client.$method(v1::$request::default()).await.err())),+]
    };
}

type Refusals = Vec<(&'static str, Option<Status>)>;

async fn of_all_calls(node: &Node) -> Refusals {
    let client = node.cri.client();
    let (mut runtime, mut image) = (client.runtime, client.image);
    let mut all = refusals![runtime,
        "Version": version(VersionRequest),
        "RunPodSandbox": run_pod_sandbox(RunPodSandboxRequest),
        "StopPodSandbox": stop_pod_sandbox(StopPodSandboxRequest),
        "RemovePodSandbox": remove_pod_sandbox(RemovePodSandboxRequest),
        "PodSandboxStatus": pod_sandbox_status(PodSandboxStatusRequest),
        "ListPodSandbox": list_pod_sandbox(ListPodSandboxRequest),
        "StreamPodSandboxes": stream_pod_sandboxes(StreamPodSandboxesRequest),
        "CreateContainer": create_container(CreateContainerRequest),
        "StartContainer": start_container(StartContainerRequest),
        "StopContainer": stop_container(StopContainerRequest),
        "RemoveContainer": remove_container(RemoveContainerRequest),
        "ListContainers": list_containers(ListContainersRequest),
        "StreamContainers": stream_containers(StreamContainersRequest),
        "ContainerStatus": container_status(ContainerStatusRequest),
        "UpdateContainerResources": update_container_resources(UpdateContainerResourcesRequest),
        "ReopenContainerLog": reopen_container_log(ReopenContainerLogRequest),
        "ExecSync": exec_sync(ExecSyncRequest),
        "Exec": exec(ExecRequest),
        "Attach": attach(AttachRequest),
        "PortForward": port_forward(PortForwardRequest),
        "ContainerStats": container_stats(ContainerStatsRequest),
        "ListContainerStats": list_container_stats(ListContainerStatsRequest),
        "StreamContainerStats": stream_container_stats(StreamContainerStatsRequest),
        "PodSandboxStats": pod_sandbox_stats(PodSandboxStatsRequest),
        "ListPodSandboxStats": list_pod_sandbox_stats(ListPodSandboxStatsRequest),
        "StreamPodSandboxStats": stream_pod_sandbox_stats(StreamPodSandboxStatsRequest),
        "GetContainerEvents": get_container_events(GetEventsRequest),
        "ListMetricDescriptors": list_metric_descriptors(ListMetricDescriptorsRequest),
        "ListPodSandboxMetrics": list_pod_sandbox_metrics(ListPodSandboxMetricsRequest),
        "StreamPodSandboxMetrics": stream_pod_sandbox_metrics(StreamPodSandboxMetricsRequest),
        "Status": status(StatusRequest),
        "CheckpointContainer": checkpoint_container(CheckpointContainerRequest),
        "CheckpointPod": checkpoint_pod(CheckpointPodRequest),
        "RestorePod": restore_pod(RestorePodRequest),
        "UpdatePodSandboxResources": update_pod_sandbox_resources(UpdatePodSandboxResourcesRequest),
        "RuntimeConfig": runtime_config(RuntimeConfigRequest),
        "UpdateRuntimeConfig": update_runtime_config(UpdateRuntimeConfigRequest),
    ];
    all.extend(refusals![image,
        "ListImages": list_images(ListImagesRequest),
        "StreamImages": stream_images(StreamImagesRequest),
        "ImageStatus": image_status(ImageStatusRequest),
        "PullImage": pull_image(PullImageRequest),
        "RemoveImage": remove_image(RemoveImageRequest),
        "ImageFsInfo": image_fs_info(ImageFsInfoRequest),
    ]);
    all
}

#[tokio::test]
async fn every_call_is_built() -> Result<()> {
    let node = Node::start().await?;
    for (name, refused) in of_all_calls(&node).await {
        let code = refused.as_ref().map(Status::code);
        assert!(
            !matches!(
                code,
                Some(Code::Unimplemented | Code::Internal | Code::Unknown)
            ),
            "{name}: {refused:?}"
        );
    }
    node.finish().await
}
