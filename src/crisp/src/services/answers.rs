//! Views of pods and containers as the wire knows them.

use std::collections::HashMap;

use crisp_pod::{ContainerView, PodView, SandboxView, container::exec::ExecOutput};
use crisp_proto::v1;
use serde_json::json;

use crate::{serve::MAX_MESSAGE, to_wire};

/// An item of ListPodSandbox.
pub fn pod_sandbox(view: &SandboxView) -> v1::PodSandbox {
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

/// What of an exec's output fits into one message beside the exit code and the lengths.
const EXEC_OUTPUT: usize = MAX_MESSAGE - 1024;

/// The beginnings of both streams, so that the message can be sent: a stream gets what the other leaves, and at least half.
pub(crate) fn exec_sync(mut output: ExecOutput) -> v1::ExecSyncResponse {
    let (stdout, stderr) = (&mut output.stdout, &mut output.stderr);
    stderr.truncate((EXEC_OUTPUT / 2).max(EXEC_OUTPUT.saturating_sub(stdout.len())));
    stdout.truncate(EXEC_OUTPUT - stderr.len());
    v1::ExecSyncResponse {
        stdout: output.stdout.into(),
        stderr: output.stderr.into(),
        exit_code: output.code,
    }
}

fn details(info: serde_json::Value) -> HashMap<String, String> {
    HashMap::from([("info".to_owned(), info.to_string())])
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn output_of_any_size_fits_into_a_message() {
        const MUCH: usize = MAX_MESSAGE * 2;
        for (stdout, stderr, kept_out, kept_err) in [
            (0, 0, 0, 0),
            (10, 20, 10, 20),
            (MUCH, 0, EXEC_OUTPUT, 0),
            (MUCH, 5, EXEC_OUTPUT - 5, 5),
            (5, MUCH, 5, EXEC_OUTPUT - 5),
            (MUCH, MUCH, EXEC_OUTPUT / 2, EXEC_OUTPUT / 2),
        ] {
            let answer =
                exec_sync(ExecOutput { code: i32::MIN, stdout: vec![1; stdout], stderr: vec![2; stderr] });
            assert_eq!((answer.stdout.len(), answer.stderr.len()), (kept_out, kept_err), "{stdout} {stderr}");
            assert!(answer.encoded_len() <= MAX_MESSAGE);
        }
    }
}
