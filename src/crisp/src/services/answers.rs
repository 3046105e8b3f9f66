//! Views of pods and containers as the wire knows them.

use std::collections::HashMap;

use crisp_pod::{ContainerView, PodView, SandboxView};
use crisp_proto::v1;
use serde_json::json;

use crate::to_wire;

pub(crate) fn pod_sandbox(view: &SandboxView) -> v1::PodSandbox {
    v1::PodSandbox {
        id: view.id.to_string(),
        metadata: Some(to_wire::sandbox::sandbox_metadata(&view.config.metadata)),
        state: to_wire::sandbox::sandbox_state(view.state).into(),
        created_at: view.created_at.nanos(),
        labels: to_wire::map(&view.config.labels),
        annotations: to_wire::map(&view.config.annotations),
        runtime_handler: view.config.runtime_handler.clone(),
    }
}

pub(crate) fn pod_sandbox_status(view: &SandboxView) -> v1::PodSandboxStatus {
    v1::PodSandboxStatus {
        id: view.id.to_string(),
        metadata: Some(to_wire::sandbox::sandbox_metadata(&view.config.metadata)),
        state: to_wire::sandbox::sandbox_state(view.state).into(),
        created_at: view.created_at.nanos(),
        network: Some(to_wire::sandbox::network_status(&view.ips)),
        linux: Some(to_wire::sandbox::linux_status(&view.config.security.namespaces)),
        labels: to_wire::map(&view.config.labels),
        annotations: to_wire::map(&view.config.annotations),
        runtime_handler: view.config.runtime_handler.clone(),
    }
}

/// `None` for a pod that is still being made or was removed.
pub(crate) fn pod_sandbox_status_response(
    pod: &PodView,
    verbose: bool,
) -> Option<v1::PodSandboxStatusResponse> {
    let sandbox = pod.sandbox.as_ref()?;
    let info = json!({
        "sandboxID": sandbox.id,
        "pid": sandbox.infra_pid.unwrap_or_default(),
        "cgroup": sandbox.cgroup,
        "ips": sandbox.ips,
        "config": *sandbox.config,
        "generation": pod.generation,
    });
    Some(v1::PodSandboxStatusResponse {
        status: Some(pod_sandbox_status(sandbox)),
        info: if verbose { details(info) } else { HashMap::new() },
        containers_statuses: pod.containers.values().map(|c| container_status(c)).collect(),
        timestamp: crisp_model::time::Timestamp::now().nanos(),
    })
}

pub(crate) fn container(view: &ContainerView) -> v1::Container {
    v1::Container {
        id: view.id.to_string(),
        pod_sandbox_id: view.sandbox.to_string(),
        metadata: Some(to_wire::container::container_metadata(&view.config.metadata)),
        image: Some(to_wire::container::image_spec(&view.config)),
        image_ref: view.image_ref.clone(),
        state: to_wire::container::container_state(view.state).into(),
        created_at: view.created_at.nanos(),
        labels: to_wire::map(&view.config.labels),
        annotations: to_wire::map(&view.config.annotations),
        image_id: view.image_id.clone(),
    }
}

pub(crate) fn container_status(view: &ContainerView) -> v1::ContainerStatus {
    let nanos = |at: Option<crisp_model::time::Timestamp>| at.map_or(0, |t| t.nanos());
    v1::ContainerStatus {
        id: view.id.to_string(),
        metadata: Some(to_wire::container::container_metadata(&view.config.metadata)),
        state: to_wire::container::container_state(view.state).into(),
        created_at: view.created_at.nanos(),
        started_at: nanos(view.started_at),
        finished_at: nanos(view.finished_at),
        exit_code: view.exit_code,
        image: Some(to_wire::container::image_spec(&view.config)),
        image_ref: view.image_ref.clone(),
        reason: view.reason.clone(),
        message: view.message.clone(),
        labels: to_wire::map(&view.config.labels),
        annotations: to_wire::map(&view.config.annotations),
        mounts: to_wire::container::mounts(&view.config.mounts),
        log_path: view.log.as_ref().map(|p| p.display().to_string()).unwrap_or_default(),
        resources: Some(to_wire::resources::container_resources(&view.config.resources)),
        image_id: view.image_id.clone(),
        user: Some(to_wire::security::container_user(view.user.uid, view.user.gid, &view.user.groups)),
        stop_signal: crate::from_wire::signal::wire_signal(view.stop_signal).into(),
    }
}

pub(crate) fn container_status_response(view: &ContainerView, verbose: bool) -> v1::ContainerStatusResponse {
    let info = json!({
        "sandboxID": view.sandbox,
        "pid": view.pid.unwrap_or_default(),
        "cgroup": view.cgroup,
        "user": view.user,
        "config": *view.config,
    });
    v1::ContainerStatusResponse {
        status: Some(container_status(view)),
        info: if verbose { details(info) } else { HashMap::new() },
    }
}

fn details(info: serde_json::Value) -> HashMap<String, String> {
    HashMap::from([("info".to_owned(), info.to_string())])
}
