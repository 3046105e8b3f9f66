//! RuntimeService: one method an RPC.

use crisp_pod::{PodError, admit::Key};
use crisp_proto::v1::{self, runtime_service_server::RuntimeService};
use tonic::{Request, Response, Status};

use super::{Services, answers, lists, patience, stage_of, within};
use crate::{
    from_wire::{self, At, IdQuery, request},
    status,
};

type Answer<T> = Result<Response<T>, Status>;

/// Fields of requests that name one thing.
fn id(field: &str, text: &str) -> Result<IdQuery, Status> {
    Ok(IdQuery::required(&At::root(field), text)?)
}

#[tonic::async_trait]
impl RuntimeService for Services {
    async fn version(&self, _: Request<v1::VersionRequest>) -> Answer<v1::VersionResponse> {
        Ok(Response::new(self.version_info()))
    }

    async fn run_pod_sandbox(
        &self,
        request: Request<v1::RunPodSandboxRequest>,
    ) -> Answer<v1::RunPodSandboxResponse> {
        let patience = patience(&request);
        let request = request.into_inner();
        let config = from_wire::sandbox_config(
            &At::root("config"),
            request.config.as_ref(),
            &request.runtime_handler,
        )?;
        self.known_handler(&config)?;
        let name = config.metadata.clone();
        let pods = self.pods.clone();
        let stage = || pods.named(&name).and_then(|pod| pod.stage(&Key::Run));
        let id = within(patience, "RunPodSandbox", stage, self.pods.run(config)).await?;
        Ok(Response::new(v1::RunPodSandboxResponse { pod_sandbox_id: id.to_string() }))
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<v1::StopPodSandboxRequest>,
    ) -> Answer<v1::StopPodSandboxResponse> {
        let patience = patience(&request);
        let query = id("pod_sandbox_id", &request.into_inner().pod_sandbox_id)?;
        if let Some(pod) = status::unless_gone(self.pods.find(query.as_str()))? {
            let stage = stage_of(&pod, Key::StopSandbox);
            within(patience, "StopPodSandbox", stage, self.pods.stop(&pod)).await?;
        }
        Ok(Response::new(v1::StopPodSandboxResponse {}))
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<v1::RemovePodSandboxRequest>,
    ) -> Answer<v1::RemovePodSandboxResponse> {
        let patience = patience(&request);
        let query = id("pod_sandbox_id", &request.into_inner().pod_sandbox_id)?;
        if let Some(pod) = status::unless_gone(self.pods.find(query.as_str()))? {
            let stage = stage_of(&pod, Key::RemoveSandbox);
            within(patience, "RemovePodSandbox", stage, self.pods.remove(&pod)).await?;
        }
        Ok(Response::new(v1::RemovePodSandboxResponse {}))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<v1::PodSandboxStatusRequest>,
    ) -> Answer<v1::PodSandboxStatusResponse> {
        let request = request.into_inner();
        let query = id("pod_sandbox_id", &request.pod_sandbox_id)?;
        let pod = self.pods.find(query.as_str()).map_err(status::of_pod)?.view();
        let missing = || status::of_pod(PodError::not_found("sandbox", query.as_str()));
        Ok(Response::new(answers::pod_sandbox_status_response(&pod, request.verbose).ok_or_else(missing)?))
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<v1::ListPodSandboxRequest>,
    ) -> Answer<v1::ListPodSandboxResponse> {
        let items = self.sandboxes(request.into_inner().filter.as_ref())?;
        Ok(Response::new(v1::ListPodSandboxResponse { items }))
    }

    type StreamPodSandboxesStream = lists::Batches<v1::StreamPodSandboxesResponse>;

    async fn stream_pod_sandboxes(
        &self,
        request: Request<v1::StreamPodSandboxesRequest>,
    ) -> Answer<Self::StreamPodSandboxesStream> {
        let items = self.sandboxes(request.into_inner().filter.as_ref())?;
        Ok(Response::new(lists::batches(items, |pod_sandboxes| v1::StreamPodSandboxesResponse {
            pod_sandboxes,
        })))
    }

    async fn create_container(
        &self,
        request: Request<v1::CreateContainerRequest>,
    ) -> Answer<v1::CreateContainerResponse> {
        let patience = patience(&request);
        let request = request.into_inner();
        let query = id("pod_sandbox_id", &request.pod_sandbox_id)?;
        let at = At::root("config");
        let config = from_wire::container_config(&at, request.config.as_ref())?;
        let pod = self.pods.find(query.as_str()).map_err(status::of_pod)?;
        if let Some(sandbox) = &pod.view().sandbox {
            from_wire::fits_sandbox(&at, &config, &sandbox.config)?;
        }
        let stage = stage_of(&pod, Key::Create(config.metadata.clone()));
        let id = within(patience, "CreateContainer", stage, self.pods.create_container(&pod, config)).await?;
        Ok(Response::new(v1::CreateContainerResponse { container_id: id.to_string() }))
    }

    async fn start_container(
        &self,
        request: Request<v1::StartContainerRequest>,
    ) -> Answer<v1::StartContainerResponse> {
        let patience = patience(&request);
        let query = id("container_id", &request.into_inner().container_id)?;
        let (pod, id) = self.pods.find_container(query.as_str()).map_err(status::of_pod)?;
        let stage = stage_of(&pod, Key::Start(id.clone()));
        within(patience, "StartContainer", stage, self.pods.start_container(&pod, id)).await?;
        Ok(Response::new(v1::StartContainerResponse {}))
    }

    async fn stop_container(
        &self,
        request: Request<v1::StopContainerRequest>,
    ) -> Answer<v1::StopContainerResponse> {
        let patience = patience(&request);
        let request = request.into_inner();
        let query = id("container_id", &request.container_id)?;
        let grace = request::stop_grace(request.timeout)?;
        if let Some((pod, id)) = status::unless_gone(self.pods.find_container(query.as_str()))? {
            let stage = stage_of(&pod, Key::Stop(id.clone()));
            within(patience, "StopContainer", stage, self.pods.stop_container(&pod, id, grace)).await?;
        }
        Ok(Response::new(v1::StopContainerResponse {}))
    }

    async fn remove_container(
        &self,
        request: Request<v1::RemoveContainerRequest>,
    ) -> Answer<v1::RemoveContainerResponse> {
        let patience = patience(&request);
        let query = id("container_id", &request.into_inner().container_id)?;
        if let Some((pod, id)) = status::unless_gone(self.pods.find_container(query.as_str()))? {
            let stage = stage_of(&pod, Key::Remove(id.clone()));
            within(patience, "RemoveContainer", stage, self.pods.remove_container(&pod, id)).await?;
        }
        Ok(Response::new(v1::RemoveContainerResponse {}))
    }

    async fn list_containers(
        &self,
        request: Request<v1::ListContainersRequest>,
    ) -> Answer<v1::ListContainersResponse> {
        let containers = self.containers(request.into_inner().filter.as_ref())?;
        Ok(Response::new(v1::ListContainersResponse { containers }))
    }

    type StreamContainersStream = lists::Batches<v1::StreamContainersResponse>;

    async fn stream_containers(
        &self,
        request: Request<v1::StreamContainersRequest>,
    ) -> Answer<Self::StreamContainersStream> {
        let items = self.containers(request.into_inner().filter.as_ref())?;
        Ok(Response::new(lists::batches(items, |containers| v1::StreamContainersResponse { containers })))
    }

    async fn container_status(
        &self,
        request: Request<v1::ContainerStatusRequest>,
    ) -> Answer<v1::ContainerStatusResponse> {
        let request = request.into_inner();
        let query = id("container_id", &request.container_id)?;
        let container = self.pods.container(query.as_str()).map_err(status::of_pod)?;
        Ok(Response::new(answers::container_status_response(&container, request.verbose)))
    }

    async fn update_container_resources(
        &self,
        request: Request<v1::UpdateContainerResourcesRequest>,
    ) -> Answer<v1::UpdateContainerResourcesResponse> {
        let patience = patience(&request);
        let request = request.into_inner();
        let query = id("container_id", &request.container_id)?;
        let resources = from_wire::linux_resources(&At::root("linux"), request.linux.as_ref())?;
        let (pod, id) = self.pods.find_container(query.as_str()).map_err(status::of_pod)?;
        let stage = stage_of(&pod, Key::Update(id.clone()));
        let work = self.pods.update_container(&pod, id, resources);
        within(patience, "UpdateContainerResources", stage, work).await?;
        Ok(Response::new(v1::UpdateContainerResourcesResponse {}))
    }

    async fn reopen_container_log(
        &self,
        request: Request<v1::ReopenContainerLogRequest>,
    ) -> Answer<v1::ReopenContainerLogResponse> {
        let query = id("container_id", &request.into_inner().container_id)?;
        self.pods.reopen_log(query.as_str()).await.map_err(status::of_pod)?;
        Ok(Response::new(v1::ReopenContainerLogResponse {}))
    }

    async fn exec_sync(&self, request: Request<v1::ExecSyncRequest>) -> Answer<v1::ExecSyncResponse> {
        let request = request.into_inner();
        let query = id("container_id", &request.container_id)?;
        let command = request::command(&request.cmd)?;
        let timeout = request::exec_timeout(request.timeout)?.unwrap_or_default();
        let output = self.pods.exec_sync(query.as_str(), command, timeout).await.map_err(status::of_pod)?;
        Ok(Response::new(answers::exec_sync(output)))
    }

    async fn exec(&self, request: Request<v1::ExecRequest>) -> Answer<v1::ExecResponse> {
        Ok(Response::new(v1::ExecResponse { url: self.exec_url(request.into_inner())? }))
    }

    async fn attach(&self, request: Request<v1::AttachRequest>) -> Answer<v1::AttachResponse> {
        Ok(Response::new(v1::AttachResponse { url: self.attach_url(request.into_inner())? }))
    }

    async fn port_forward(
        &self,
        request: Request<v1::PortForwardRequest>,
    ) -> Answer<v1::PortForwardResponse> {
        Ok(Response::new(v1::PortForwardResponse { url: self.port_forward_url(request.into_inner())? }))
    }

    async fn container_stats(
        &self,
        request: Request<v1::ContainerStatsRequest>,
    ) -> Answer<v1::ContainerStatsResponse> {
        let query = id("container_id", &request.into_inner().container_id)?;
        let stats = self.stats_of_container(query.as_str()).await?;
        Ok(Response::new(v1::ContainerStatsResponse { stats: Some(stats) }))
    }

    async fn list_container_stats(
        &self,
        request: Request<v1::ListContainerStatsRequest>,
    ) -> Answer<v1::ListContainerStatsResponse> {
        let stats = self.stats_of_containers(request.into_inner().filter.as_ref()).await?;
        Ok(Response::new(v1::ListContainerStatsResponse { stats }))
    }

    type StreamContainerStatsStream = lists::Batches<v1::StreamContainerStatsResponse>;

    async fn stream_container_stats(
        &self,
        request: Request<v1::StreamContainerStatsRequest>,
    ) -> Answer<Self::StreamContainerStatsStream> {
        let items = self.stats_of_containers(request.into_inner().filter.as_ref()).await?;
        let answer = |container_stats| v1::StreamContainerStatsResponse { container_stats };
        Ok(Response::new(lists::batches(items, answer)))
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<v1::PodSandboxStatsRequest>,
    ) -> Answer<v1::PodSandboxStatsResponse> {
        let query = id("pod_sandbox_id", &request.into_inner().pod_sandbox_id)?;
        let stats = self.stats_of_sandbox(query.as_str()).await?;
        Ok(Response::new(v1::PodSandboxStatsResponse { stats: Some(stats) }))
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<v1::ListPodSandboxStatsRequest>,
    ) -> Answer<v1::ListPodSandboxStatsResponse> {
        let stats = self.stats_of_sandboxes(request.into_inner().filter.as_ref()).await?;
        Ok(Response::new(v1::ListPodSandboxStatsResponse { stats }))
    }

    type StreamPodSandboxStatsStream = lists::Batches<v1::StreamPodSandboxStatsResponse>;

    async fn stream_pod_sandbox_stats(
        &self,
        request: Request<v1::StreamPodSandboxStatsRequest>,
    ) -> Answer<Self::StreamPodSandboxStatsStream> {
        let items = self.stats_of_sandboxes(request.into_inner().filter.as_ref()).await?;
        let answer = |pod_sandbox_stats| v1::StreamPodSandboxStatsResponse { pod_sandbox_stats };
        Ok(Response::new(lists::batches(items, answer)))
    }

    async fn update_runtime_config(
        &self,
        request: Request<v1::UpdateRuntimeConfigRequest>,
    ) -> Answer<v1::UpdateRuntimeConfigResponse> {
        self.set_pod_cidrs(request.into_inner().runtime_config.as_ref()).await?;
        Ok(Response::new(v1::UpdateRuntimeConfigResponse {}))
    }

    async fn status(&self, request: Request<v1::StatusRequest>) -> Answer<v1::StatusResponse> {
        Ok(Response::new(self.status_info(request.into_inner().verbose)))
    }

    async fn checkpoint_container(
        &self,
        _: Request<v1::CheckpointContainerRequest>,
    ) -> Answer<v1::CheckpointContainerResponse> {
        Err(Status::unimplemented(
            "CheckpointContainer: crisp does not freeze containers to disk yet (needs CRIU)",
        ))
    }

    async fn checkpoint_pod(
        &self,
        _: Request<v1::CheckpointPodRequest>,
    ) -> Answer<v1::CheckpointPodResponse> {
        Err(Status::unimplemented("CheckpointPod: crisp does not freeze pods to disk yet (needs CRIU)"))
    }

    async fn restore_pod(&self, _: Request<v1::RestorePodRequest>) -> Answer<v1::RestorePodResponse> {
        Err(Status::unimplemented(
            "RestorePod: crisp does not freeze pods to disk yet, so there is nothing to restore",
        ))
    }

    type GetContainerEventsStream = super::events::Events;

    async fn get_container_events(
        &self,
        _: Request<v1::GetEventsRequest>,
    ) -> Answer<Self::GetContainerEventsStream> {
        Ok(Response::new(self.events()))
    }

    async fn list_metric_descriptors(
        &self,
        _: Request<v1::ListMetricDescriptorsRequest>,
    ) -> Answer<v1::ListMetricDescriptorsResponse> {
        Ok(Response::new(v1::ListMetricDescriptorsResponse { descriptors: super::metrics::descriptors() }))
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<v1::ListPodSandboxMetricsRequest>,
    ) -> Answer<v1::ListPodSandboxMetricsResponse> {
        Ok(Response::new(v1::ListPodSandboxMetricsResponse { pod_metrics: self.pod_metrics().await }))
    }

    type StreamPodSandboxMetricsStream = lists::Batches<v1::StreamPodSandboxMetricsResponse>;

    async fn stream_pod_sandbox_metrics(
        &self,
        _: Request<v1::StreamPodSandboxMetricsRequest>,
    ) -> Answer<Self::StreamPodSandboxMetricsStream> {
        let items = self.pod_metrics().await;
        let answer = |pod_sandbox_metrics| v1::StreamPodSandboxMetricsResponse { pod_sandbox_metrics };
        Ok(Response::new(lists::batches(items, answer)))
    }

    async fn runtime_config(
        &self,
        _: Request<v1::RuntimeConfigRequest>,
    ) -> Answer<v1::RuntimeConfigResponse> {
        Ok(Response::new(self.runtime_config_info()))
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: Request<v1::UpdatePodSandboxResourcesRequest>,
    ) -> Answer<v1::UpdatePodSandboxResourcesResponse> {
        let request = request.into_inner();
        let query = id("pod_sandbox_id", &request.pod_sandbox_id)?;
        let overhead = from_wire::linux_resources(&At::root("overhead"), request.overhead.as_ref())?;
        let resources = from_wire::linux_resources(&At::root("resources"), request.resources.as_ref())?;
        let pod = self.pods.find(query.as_str()).map_err(status::of_pod)?;
        self.pods.update_sandbox(&pod, overhead, resources).await.map_err(status::of_pod)?;
        Ok(Response::new(v1::UpdatePodSandboxResourcesResponse {}))
    }
}
