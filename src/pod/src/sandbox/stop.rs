//! StopPodSandbox: nothing of the pod runs or holds an address afterwards; its records stay for the kubelet to read.
//!
//! Idempotent, goes on past an error, collects the errors. The network is always given back, whatever else fails: addresses
//! are what a node runs out of.

use std::{fs, io, path::Path, sync::Arc, time::Duration};

use crisp_monitor::client::{Monitor, MonitorError};

use super::{files, run};
use crate::{
    context::Context,
    error::PodError,
    owner::{Effect, Operation, Outcome, Reply},
    record::{ContainerRecord, SandboxRecord},
};

/// How long the monitor may take to kill and reap a whole pod before it is left to the cgroup killer: a process in
/// uninterruptible sleep does not die, and the kubelet tries again.
const SHUTDOWN: Duration = Duration::from_secs(20);

pub(crate) async fn stop(op: Operation, containers: Vec<Arc<ContainerRecord>>) -> Outcome {
    op.stage.enter("killing containers");
    let monitor = op.monitor.clone();
    if let Some(monitor) = &monitor {
        // Exit codes are facts that the monitor has: they must come in before it goes.
        kill_and_wait(&op, monitor, &containers).await;
    }
    op.stage.enter("tearing down network, monitor and mounts");
    let failures = tear_down(&op.context, &op.sandbox, monitor, &containers).await;
    match merge("stop the sandbox", failures) {
        None => (Some(Effect::SandboxStopped), Ok(Reply::Done)),
        Some(error) => (None, Err(error)),
    }
}

/// Several failures as one.
pub(crate) fn merge(operation: &str, failures: Vec<PodError>) -> Option<PodError> {
    let texts: Vec<String> = failures.iter().map(PodError::to_string).collect();
    (!texts.is_empty()).then(|| PodError::host(operation, texts.join("; ")))
}

async fn kill_and_wait(op: &Operation, monitor: &Monitor, containers: &[Arc<ContainerRecord>]) {
    let running: Vec<_> = containers.iter().filter(|c| c.started_at.is_some() && c.exit.is_none()).collect();
    for container in &running {
        if let Err(error) = monitor.signal(&container.id, libc::SIGKILL, true).await {
            tracing::warn!(container = %container.id, %error, "kill");
        }
    }
    let mut view = op.view.clone();
    let gone = view.wait_for(|pod| {
        running.iter().all(|c| pod.containers.get(&c.id).is_none_or(|view| view.finished_at.is_some()))
    });
    // The monitor's end kills what is left; who still does not die is reported by it.
    let _ = tokio::time::timeout(SHUTDOWN, gone).await;
}

/// Undoes everything that a pod has on the host. Returns what failed.
pub(crate) async fn tear_down(
    context: &Arc<Context>,
    record: &SandboxRecord,
    monitor: Option<Monitor>,
    containers: &[Arc<ContainerRecord>],
) -> Vec<PodError> {
    // Nothing of it is measured any more.
    context.stats.unregister_sandbox(&record.id);
    let network = async {
        if !run::has_network(record) {
            return Ok(());
        }
        let begin = std::time::Instant::now();
        let detach = context.network.detach(&record.id);
        let detached = match tokio::time::timeout(context.config.network_deadline, detach).await {
            Ok(result) => result.map_err(|e| PodError::host("detach the pod's network", e)),
            Err(_) => Err(PodError::host("detach the pod's network", "it took too long")),
        };
        context.metrics.network("del", detached.is_ok(), begin.elapsed());
        detached
    };
    let (network, monitor) = tokio::join!(network, end_monitor(monitor));
    let mut failures: Vec<PodError> = [network, monitor].into_iter().filter_map(Result::err).collect();
    let cgroups: Vec<String> = containers.iter().map(|c| c.cgroup.clone()).collect();
    let (record, network_gone) = (record.clone(), failures.is_empty());
    let rest = context.blocking(move |c| clean(c, &record, &cgroups, network_gone)).await;
    failures.extend(rest.unwrap_or_else(|e| vec![e]));
    failures
}

async fn end_monitor(monitor: Option<Monitor>) -> Result<(), PodError> {
    let Some(monitor) = monitor else { return Ok(()) };
    match tokio::time::timeout(SHUTDOWN, monitor.shutdown()).await {
        Ok(Ok(()) | Err(MonitorError::Gone)) => Ok(()),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => {
            Err(PodError::host("end the pod's monitor", format!("no answer for {} s", SHUTDOWN.as_secs())))
        }
    }
}

/// What is left when nothing runs any more: cgroups, the pinned namespace, files.
fn clean(context: &Context, record: &SandboxRecord, cgroups: &[String], network_gone: bool) -> Vec<PodError> {
    let mut failures = Vec::new();
    let parent = &record.config.cgroup_parent;
    let infra = run::infra_cgroup(context, &record.id, parent);
    for cgroup in cgroups.iter().chain([&infra]) {
        note(&mut failures, super::lost::end_cgroup(context, cgroup));
    }
    if parent.is_empty() {
        note(&mut failures, super::lost::end_cgroup(context, &context.pod_cgroup(&record.id, parent)));
    }
    if network_gone {
        // A detach that has to be repeated needs the namespace once more.
        note(&mut failures, unpin(&context.netns(&record.id)));
    }
    note(&mut failures, files::remove(&context.pod_dir(&record.id)));
    failures
}

fn note(failures: &mut Vec<PodError>, result: Result<(), PodError>) {
    failures.extend(result.err());
}

/// Lets go of a pinned namespace. None there is fine.
pub(crate) fn unpin(at: &Path) -> Result<(), PodError> {
    let failed = |e: &dyn std::fmt::Display| PodError::host(format!("unpin {}", at.display()), e);
    crisp_host::mountpoint::unmount_if_mounted(at).map_err(|e| failed(&e))?;
    match fs::remove_file(at) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed(&e)),
        _ => Ok(()),
    }
}
