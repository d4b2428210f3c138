//! RuntimeService: pods and containers.

use std::sync::Arc;

use podwright_cri_api::v1::runtime_service_server::RuntimeService;
use podwright_cri_api::v1::*;
use tonic::{Request, Response, Status};

use super::{Answer, Service, Streamed, answer, chunks, node_status, unbroken};
use crate::{container, metrics, sandbox, stats, stream};

#[tonic::async_trait]
impl RuntimeService for Service {
    type StreamPodSandboxesStream = Streamed<StreamPodSandboxesResponse>;
    type StreamContainersStream = Streamed<StreamContainersResponse>;
    type StreamContainerStatsStream = Streamed<StreamContainerStatsResponse>;
    type StreamPodSandboxStatsStream = Streamed<StreamPodSandboxStatsResponse>;
    type GetContainerEventsStream = Streamed<ContainerEventResponse>;
    type StreamPodSandboxMetricsStream = Streamed<StreamPodSandboxMetricsResponse>;

    async fn version(&self, _: Request<VersionRequest>) -> Answer<VersionResponse> {
        Ok(Response::new(node_status::version()))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Answer<StatusResponse> {
        Ok(Response::new(node_status::status(
            &self.node,
            request.into_inner().verbose,
        )))
    }

    async fn runtime_config(
        &self,
        _: Request<RuntimeConfigRequest>,
    ) -> Answer<RuntimeConfigResponse> {
        Ok(Response::new(node_status::runtime_config(&self.node)))
    }

    async fn run_pod_sandbox(
        &self,
        request: Request<RunPodSandboxRequest>,
    ) -> Answer<RunPodSandboxResponse> {
        let node = Arc::clone(&self.node);
        unbroken(async move {
            let id = sandbox::run(&node, request.into_inner()).await?;
            Ok(RunPodSandboxResponse {
                pod_sandbox_id: id.to_string(),
            })
        })
        .await
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<StopPodSandboxRequest>,
    ) -> Answer<StopPodSandboxResponse> {
        let node = Arc::clone(&self.node);
        unbroken(async move {
            sandbox::stop(&node, &request.into_inner().pod_sandbox_id)
                .await
                .map(|()| StopPodSandboxResponse {})
        })
        .await
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<RemovePodSandboxRequest>,
    ) -> Answer<RemovePodSandboxResponse> {
        let node = Arc::clone(&self.node);
        unbroken(async move {
            sandbox::remove(&node, &request.into_inner().pod_sandbox_id)
                .await
                .map(|()| RemovePodSandboxResponse {})
        })
        .await
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<PodSandboxStatusRequest>,
    ) -> Answer<PodSandboxStatusResponse> {
        answer(sandbox::status(&self.node, request.get_ref()))
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<ListPodSandboxRequest>,
    ) -> Answer<ListPodSandboxResponse> {
        let listed = sandbox::listed(&self.node, request.get_ref().filter.as_ref());
        Ok(Response::new(ListPodSandboxResponse {
            listed,
            ..Default::default()
        }))
    }

    async fn stream_pod_sandboxes(
        &self,
        request: Request<StreamPodSandboxesRequest>,
    ) -> Answer<Self::StreamPodSandboxesStream> {
        let items = sandbox::list(&self.node, request.get_ref().filter.as_ref());
        Ok(chunks(items, |pod_sandboxes| StreamPodSandboxesResponse {
            pod_sandboxes,
        }))
    }

    async fn create_container(
        &self,
        request: Request<CreateContainerRequest>,
    ) -> Answer<CreateContainerResponse> {
        let node = Arc::clone(&self.node);
        unbroken(async move {
            let id = container::create(&node, request.into_inner()).await?;
            Ok(CreateContainerResponse {
                container_id: id.to_string(),
            })
        })
        .await
    }

    async fn start_container(
        &self,
        request: Request<StartContainerRequest>,
    ) -> Answer<StartContainerResponse> {
        let node = Arc::clone(&self.node);
        unbroken(async move {
            container::start(&node, &request.into_inner().container_id)
                .await
                .map(|()| StartContainerResponse {})
        })
        .await
    }

    async fn stop_container(
        &self,
        request: Request<StopContainerRequest>,
    ) -> Answer<StopContainerResponse> {
        let node = Arc::clone(&self.node);
        unbroken(async move {
            let StopContainerRequest {
                container_id,
                timeout,
            } = request.into_inner();
            container::stop(&node, &container_id, timeout)
                .await
                .map(|()| StopContainerResponse {})
        })
        .await
    }

    async fn remove_container(
        &self,
        request: Request<RemoveContainerRequest>,
    ) -> Answer<RemoveContainerResponse> {
        let node = Arc::clone(&self.node);
        unbroken(async move {
            container::remove(&node, &request.into_inner().container_id)
                .await
                .map(|()| RemoveContainerResponse {})
        })
        .await
    }

    async fn list_containers(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Answer<ListContainersResponse> {
        let listed = container::listed(&self.node, request.get_ref().filter.as_ref());
        Ok(Response::new(ListContainersResponse {
            listed,
            ..Default::default()
        }))
    }

    async fn stream_containers(
        &self,
        request: Request<StreamContainersRequest>,
    ) -> Answer<Self::StreamContainersStream> {
        let containers = container::list(&self.node, request.get_ref().filter.as_ref());
        Ok(chunks(containers, |containers| StreamContainersResponse {
            containers,
        }))
    }

    async fn container_status(
        &self,
        request: Request<ContainerStatusRequest>,
    ) -> Answer<ContainerStatusResponse> {
        answer(container::status(&self.node, request.get_ref()))
    }

    async fn update_container_resources(
        &self,
        request: Request<UpdateContainerResourcesRequest>,
    ) -> Answer<UpdateContainerResourcesResponse> {
        let node = Arc::clone(&self.node);
        unbroken(async move {
            container::update(&node, request.into_inner())
                .await
                .map(|()| UpdateContainerResourcesResponse {})
        })
        .await
    }

    async fn reopen_container_log(
        &self,
        request: Request<ReopenContainerLogRequest>,
    ) -> Answer<ReopenContainerLogResponse> {
        let node = Arc::clone(&self.node);
        unbroken(async move {
            container::reopen_log(&node, &request.into_inner().container_id)
                .await
                .map(|()| ReopenContainerLogResponse {})
        })
        .await
    }

    async fn exec_sync(&self, request: Request<ExecSyncRequest>) -> Answer<ExecSyncResponse> {
        // Not unbroken: a command whose client is gone is killed.
        answer(container::exec_sync(&self.node, request.into_inner()).await)
    }

    async fn container_stats(
        &self,
        request: Request<ContainerStatsRequest>,
    ) -> Answer<ContainerStatsResponse> {
        let stats = stats::container(&self.node, &request.get_ref().container_id).await;
        answer(stats.map(|stats| ContainerStatsResponse { stats: Some(stats) }))
    }

    async fn list_container_stats(
        &self,
        request: Request<ListContainerStatsRequest>,
    ) -> Answer<ListContainerStatsResponse> {
        let stats = stats::containers(&self.node, request.into_inner().filter).await;
        answer(stats.map(|stats| ListContainerStatsResponse { stats }))
    }

    async fn stream_container_stats(
        &self,
        request: Request<StreamContainerStatsRequest>,
    ) -> Answer<Self::StreamContainerStatsStream> {
        let stats = stats::containers(&self.node, request.into_inner().filter).await?;
        Ok(chunks(stats, |container_stats| {
            StreamContainerStatsResponse { container_stats }
        }))
    }

    async fn exec(&self, request: Request<ExecRequest>) -> Answer<ExecResponse> {
        let url = stream::exec(&self.node, &self.streams, request.into_inner());
        answer(url.map(|url| ExecResponse { url }))
    }

    async fn attach(&self, request: Request<AttachRequest>) -> Answer<AttachResponse> {
        let url = stream::attach(&self.node, &self.streams, request.get_ref());
        answer(url.map(|url| AttachResponse { url }))
    }

    async fn port_forward(
        &self,
        request: Request<PortForwardRequest>,
    ) -> Answer<PortForwardResponse> {
        let url = stream::port_forward(&self.node, &self.streams, request.get_ref());
        answer(url.map(|url| PortForwardResponse { url }))
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<PodSandboxStatsRequest>,
    ) -> Answer<PodSandboxStatsResponse> {
        let stats = stats::sandbox(&self.node, &request.get_ref().pod_sandbox_id).await;
        answer(stats.map(|stats| PodSandboxStatsResponse { stats: Some(stats) }))
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<ListPodSandboxStatsRequest>,
    ) -> Answer<ListPodSandboxStatsResponse> {
        let stats = stats::sandboxes(&self.node, request.into_inner().filter).await;
        answer(stats.map(|stats| ListPodSandboxStatsResponse { stats }))
    }

    async fn stream_pod_sandbox_stats(
        &self,
        request: Request<StreamPodSandboxStatsRequest>,
    ) -> Answer<Self::StreamPodSandboxStatsStream> {
        let stats = stats::sandboxes(&self.node, request.into_inner().filter).await?;
        Ok(chunks(stats, |pod_sandbox_stats| {
            StreamPodSandboxStatsResponse { pod_sandbox_stats }
        }))
    }

    async fn update_runtime_config(
        &self,
        request: Request<UpdateRuntimeConfigRequest>,
    ) -> Answer<UpdateRuntimeConfigResponse> {
        let updated = crate::pod_cidr::update(&self.node, request.into_inner());
        answer(updated.map(|()| UpdateRuntimeConfigResponse {}))
    }

    async fn checkpoint_container(
        &self,
        request: Request<CheckpointContainerRequest>,
    ) -> Answer<CheckpointContainerResponse> {
        let done = crate::checkpoint::container(&self.node, request.into_inner()).await;
        answer(done.map(|()| CheckpointContainerResponse {}))
    }

    async fn checkpoint_pod(
        &self,
        request: Request<CheckpointPodRequest>,
    ) -> Answer<CheckpointPodResponse> {
        let done = crate::checkpoint::pod(&self.node, request.into_inner()).await;
        answer(done.map(|()| CheckpointPodResponse {}))
    }

    async fn restore_pod(&self, request: Request<RestorePodRequest>) -> Answer<RestorePodResponse> {
        let done = crate::checkpoint::restore(request.into_inner()).await;
        answer(done.map(|()| RestorePodResponse::default()))
    }

    async fn get_container_events(
        &self,
        _: Request<GetEventsRequest>,
    ) -> Answer<Self::GetContainerEventsStream> {
        let subscription = self.node.container_events.subscribe().await;
        let subscription = subscription.ok_or_else(|| {
            Status::resource_exhausted(
                "cannot stream container events: as many clients listen as are allowed; end some",
            )
        })?;
        Ok(Response::new(Box::pin(subscription.into_stream())))
    }

    async fn list_metric_descriptors(
        &self,
        _: Request<ListMetricDescriptorsRequest>,
    ) -> Answer<ListMetricDescriptorsResponse> {
        let descriptors = metrics::descriptors();
        Ok(Response::new(ListMetricDescriptorsResponse { descriptors }))
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<ListPodSandboxMetricsRequest>,
    ) -> Answer<ListPodSandboxMetricsResponse> {
        let metrics = metrics::list(&self.node).await;
        answer(metrics.map(|pod_metrics| ListPodSandboxMetricsResponse { pod_metrics }))
    }

    async fn stream_pod_sandbox_metrics(
        &self,
        _: Request<StreamPodSandboxMetricsRequest>,
    ) -> Answer<Self::StreamPodSandboxMetricsStream> {
        let metrics = metrics::list(&self.node).await?;
        Ok(chunks(metrics, |pod_sandbox_metrics| {
            StreamPodSandboxMetricsResponse {
                pod_sandbox_metrics,
            }
        }))
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: Request<UpdatePodSandboxResourcesRequest>,
    ) -> Answer<UpdatePodSandboxResourcesResponse> {
        let node = Arc::clone(&self.node);
        unbroken(async move {
            sandbox::update(&node, request.into_inner())
                .await
                .map(|()| UpdatePodSandboxResourcesResponse {})
        })
        .await
    }
}
