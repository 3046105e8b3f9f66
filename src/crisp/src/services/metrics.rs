//! ListMetricDescriptors and ListPodSandboxMetrics: cAdvisor's names for what pods use.

use crisp_model::{ContainerState, SandboxState};
use crisp_observe::metrics::{
    DESCRIPTORS, MetricKind,
    pods::{ContainerIdentity, PodIdentity, Sample, collect},
};
use crisp_pod::{ContainerView, PodView};
use crisp_proto::v1;

use super::Services;

pub(super) fn descriptors() -> Vec<v1::MetricDescriptor> {
    let descriptor = |d: &crisp_observe::metrics::Descriptor| v1::MetricDescriptor {
        name: d.name.into(),
        help: d.help.into(),
        label_keys: d.label_keys().map(str::to_owned).collect(),
    };
    DESCRIPTORS.iter().map(descriptor).collect()
}

fn identity(pod: &PodView) -> Option<PodIdentity> {
    let sandbox = pod.sandbox.as_ref().filter(|s| s.state == SandboxState::Ready)?;
    let container = |c: &ContainerView| {
        Some(ContainerIdentity {
            id: c.id.clone(),
            name: c.config.metadata.name.clone(),
            image: c.config.image.clone(),
            started_at: c.started_at.filter(|_| c.state == ContainerState::Running)?,
            resources: c.config.resources.clone(),
        })
    };
    Some(PodIdentity {
        sandbox: sandbox.id.clone(),
        pod: sandbox.config.metadata.name.clone(),
        namespace: sandbox.config.metadata.namespace.clone(),
        containers: pod.containers.values().filter_map(|c| container(c)).collect(),
    })
}

fn metric(sample: Sample) -> v1::Metric {
    let kind = match sample.kind {
        MetricKind::Counter => v1::MetricType::Counter,
        MetricKind::Gauge => v1::MetricType::Gauge,
    };
    v1::Metric {
        name: sample.name.into(),
        timestamp: sample.at.nanos(),
        metric_type: kind.into(),
        label_values: sample.labels,
        value: Some(v1::UInt64Value { value: sample.value }),
    }
}

impl Services {
    pub(super) async fn pod_metrics(&self) -> Vec<v1::PodSandboxMetrics> {
        let mut all = Vec::new();
        for pod in self.pods.views().iter().filter_map(|pod| identity(pod)) {
            let pod_sandbox_id = pod.sandbox.to_string();
            let samples = collect(&self.pods.context().stats, pod).await;
            let container = |(id, samples): (crisp_model::ContainerId, Vec<Sample>)| v1::ContainerMetrics {
                container_id: id.to_string(),
                metrics: samples.into_iter().map(metric).collect(),
            };
            all.push(v1::PodSandboxMetrics {
                pod_sandbox_id,
                metrics: samples.pod.into_iter().map(metric).collect(),
                container_metrics: samples.containers.into_iter().map(container).collect(),
            });
        }
        all
    }
}
