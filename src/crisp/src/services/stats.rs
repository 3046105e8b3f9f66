//! Stats and metrics of pods and containers. Only running ones have any.

use std::sync::Arc;

use crisp_model::{ContainerState, SandboxState};
use crisp_observe::stats::{ContainerStats, SandboxStats};
use crisp_pod::{ContainerView, PodError, PodView, SandboxView};
use crisp_proto::v1;
use tonic::Status;

use super::Services;
use crate::{
    from_wire::{ContainerFilter, SandboxFilter},
    status,
    to_wire::{self, container::container_metadata, sandbox::sandbox_metadata},
};

fn of_container(view: &ContainerView) -> v1::ContainerAttributes {
    v1::ContainerAttributes {
        id: view.id.to_string(),
        metadata: Some(container_metadata(&view.config.metadata)),
        labels: to_wire::map(&view.config.labels),
        annotations: to_wire::map(&view.config.annotations),
    }
}

fn of_sandbox(view: &SandboxView) -> v1::PodSandboxAttributes {
    v1::PodSandboxAttributes {
        id: view.id.to_string(),
        metadata: Some(sandbox_metadata(&view.config.metadata)),
        labels: to_wire::map(&view.config.labels),
        annotations: to_wire::map(&view.config.annotations),
    }
}

impl Services {
    fn layers(&self) -> String {
        self.config.root.join("containers").display().to_string()
    }

    fn container_answer(&self, view: &ContainerView, stats: &ContainerStats) -> v1::ContainerStats {
        to_wire::stats::container_stats(stats, of_container(view), &self.layers())
    }

    fn sandbox_answer(&self, pod: &PodView, view: &SandboxView, stats: &SandboxStats) -> v1::PodSandboxStats {
        let answer =
            |s: &Arc<ContainerStats>| pod.containers.get(&s.id).map(|view| self.container_answer(view, s));
        let containers = stats.containers.iter().filter_map(answer).collect();
        to_wire::stats::sandbox_stats(stats, of_sandbox(view), containers)
    }

    pub(super) async fn stats_of_container(&self, id: &str) -> Result<v1::ContainerStats, Status> {
        let view = self.pods.container(id).map_err(status::of_pod)?;
        let stats = self.pods.context().stats.container(&view.id).await;
        let stats = stats.ok_or_else(|| status::of_pod(PodError::not_found("container", id)))?;
        Ok(self.container_answer(&view, &stats))
    }

    pub(super) async fn stats_of_containers(
        &self,
        filter: Option<&v1::ContainerStatsFilter>,
    ) -> Result<Vec<v1::ContainerStats>, Status> {
        let filter = ContainerFilter::of_stats(filter);
        let pods = self.pods.views();
        let all = pods.iter().flat_map(|pod| pod.containers.values());
        let wanted: Vec<&Arc<ContainerView>> = all
            .filter(|c| c.state == ContainerState::Running)
            .filter(|c| filter.matches(c.id.as_str(), c.sandbox.as_str(), c.state, &c.config.labels))
            .collect();
        let ids: Vec<_> = wanted.iter().map(|c| c.id.clone()).collect();
        let stats = self.pods.context().stats.containers(&ids).await;
        let by_id: std::collections::HashMap<_, _> = wanted.iter().map(|view| (&view.id, view)).collect();
        Ok(stats.iter().filter_map(|s| Some(self.container_answer(by_id.get(&s.id)?, s))).collect())
    }

    pub(super) async fn stats_of_sandbox(&self, id: &str) -> Result<v1::PodSandboxStats, Status> {
        let missing = || status::of_pod(PodError::not_found("sandbox", id));
        let pod = self.pods.find(id).map_err(status::of_pod)?.view();
        let view = pod.sandbox.clone().ok_or_else(missing)?;
        let stats = self.pods.context().stats.sandbox(&view.id).await.ok_or_else(missing)?;
        Ok(self.sandbox_answer(&pod, &view, &stats))
    }

    pub(super) async fn stats_of_sandboxes(
        &self,
        filter: Option<&v1::PodSandboxStatsFilter>,
    ) -> Result<Vec<v1::PodSandboxStats>, Status> {
        let filter = SandboxFilter::of_stats(filter);
        let mut answers = Vec::new();
        for pod in self.pods.views() {
            let Some(view) = pod.sandbox.clone().filter(|s| s.state == SandboxState::Ready) else { continue };
            if !filter.matches(view.id.as_str(), view.state, &view.config.labels) {
                continue;
            }
            if let Some(stats) = self.pods.context().stats.sandbox(&view.id).await {
                answers.push(self.sandbox_answer(&pod, &view, &stats));
            }
        }
        Ok(answers)
    }
}
