//! What was there before the daemon started: records, monitors, and the host's truth, made into owners again.
//!
//! ```text
//!   record of an older boot ----------------------> NotReady, containers Exited; network detached
//!   record whose making was never finished -------> undone, record removed
//!   monitor answers ------------------------------> its state wins over the record
//!   monitor is gone ------------------------------> what it left is killed, NotReady
//!   folder of a monitor without a record ---------> shut down and removed
//!   writable layer without a container -----------> freed
//! ```
//!
//! Pods are independent: they are adopted side by side, and one that hangs delays nobody else's.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use crisp_model::{ContainerId, SandboxId, SandboxState};
use crisp_monitor::{client::Monitor, protocol::State};
use crisp_observe::events::EventKind;
use crisp_store::{Durability, Store};
use tokio::task::JoinSet;

use crate::{
    context::Context,
    error::PodError,
    owner::{Adopted, Owner},
    record::{ContainerRecord, SandboxRecord},
    registry::Pods,
    sandbox::{lost, stop},
    view::PodView,
};

/// What the stores held.
#[derive(Debug, Default)]
pub struct Records {
    /// Sandboxes.
    pub sandboxes: Vec<SandboxRecord>,
    /// Containers.
    pub containers: Vec<ContainerRecord>,
}

/// The stores and what they held; damaged records are reported and left aside.
pub fn open_stores(
    root: &Path,
) -> Result<(Store<SandboxRecord>, Store<ContainerRecord>, Records), crisp_store::StoreError> {
    let sandboxes = Store::<SandboxRecord>::open(&root.join("pods/sandboxes"))?;
    let containers = Store::<ContainerRecord>::open(&root.join("pods/containers"))?;
    for (file, why) in sandboxes.damaged.iter().chain(&containers.damaged) {
        tracing::error!(file = %file.display(), why, "a damaged record was set aside");
    }
    let records = Records {
        sandboxes: sandboxes.records.into_iter().map(|(_, r)| r).collect(),
        containers: containers.records.into_iter().map(|(_, r)| r).collect(),
    };
    Ok((sandboxes.store, containers.store, records))
}

/// Brings every recorded pod back; returns when lists and execs tell the truth.
pub async fn recover(pods: &Pods, records: Records) {
    let context = &pods.context;
    let mut by_pod: BTreeMap<SandboxId, BTreeMap<ContainerId, Arc<ContainerRecord>>> = BTreeMap::new();
    for container in records.containers {
        by_pod
            .entry(container.sandbox.clone())
            .or_default()
            .insert(container.id.clone(), Arc::new(container));
    }
    let mut tasks = JoinSet::new();
    for sandbox in records.sandboxes {
        if let Some(selinux) = &context.selinux {
            selinux.hold(&sandbox);
        }
        let containers = by_pod.remove(&sandbox.id).unwrap_or_default();
        tasks.spawn(adopt(context.clone(), sandbox, containers));
    }
    tasks.join_all().await;
    // Containers whose sandbox has no record cannot be reached by anybody.
    for record in by_pod.into_values().flat_map(BTreeMap::into_values) {
        if let Err(error) = crate::container::remove::forget(context, &record).await {
            tracing::error!(container = %record.id, %error, "a container without a sandbox could not be removed");
        }
    }
}

/// Ends what no record knows: monitors, writable layers, network attachments. Runs beside the services.
pub async fn sweep(pods: &Pods) {
    let context = &pods.context;
    let folder = context.config.state.join("pods");
    let known: Vec<SandboxId> = context.registry.all().into_iter().map(|h| h.id).collect();
    for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
        let Ok(id) = entry.file_name().to_string_lossy().parse::<SandboxId>() else { continue };
        if known.contains(&id) || pods.find(id.as_str()).is_ok() {
            continue;
        }
        tracing::warn!(sandbox = %id, "a monitor without a record is shut down");
        if let Ok((monitor, _events)) = Monitor::adopt(&entry.path(), &id).await {
            let _ = monitor.shutdown().await;
        }
        let path = entry.path();
        let cleaned = context.blocking(move |c| {
            stop::unpin(&c.netns(&id))?;
            crate::sandbox::files::remove(&path)
        });
        if let Err(error) = cleaned.await.and_then(|r| r) {
            tracing::error!(%error, "what a forgotten pod left could not be removed");
        }
    }
    let live: Vec<SandboxId> = context.registry.all().into_iter().map(|h| h.id).collect();
    if let Err(error) = context.network.gc(&live).await {
        tracing::warn!(%error, "clean up network attachments of pods that are gone");
    }
    for container in context.images.held() {
        if pods.find_container(container.as_str()).is_err()
            && let Err(error) = context.images.release_rootfs(&container).await
        {
            tracing::error!(%container, %error, "a writable layer without a container could not be freed");
        }
    }
}

async fn adopt(
    context: Arc<Context>,
    mut record: SandboxRecord,
    mut containers: BTreeMap<ContainerId, Arc<ContainerRecord>>,
) {
    let before = Known::of(&record, &containers);
    let read = (record.clone(), containers.clone());
    let monitor = if record.boot_id != context.boot_id {
        rebooted(&context, &mut record, &mut containers).await;
        None
    } else if record.stopped {
        None
    } else {
        let dir = context.pod_dir(&record.id);
        match Monitor::adopt_with_state(&dir, &record.id).await {
            Ok((monitor, events, state)) => {
                alive(&context, &mut record, &mut containers, &monitor, &state).await;
                Some((monitor, events))
            }
            Err(error) => {
                tracing::warn!(sandbox = %record.id, %error, "its monitor does not answer");
                dead(&context, &mut record, &mut containers).await;
                None
            }
        }
    };
    if record.infra.is_none() && !record.ended {
        return unfinished(&context, &record, monitor.map(|(m, _)| m)).await;
    }
    keep(&context, &read, &record, &containers);
    for id in containers.keys() {
        context.registry.add_container(id.clone(), record.id.clone());
    }
    let config = record.config.clone();
    let (owner, handle) = Owner::adopt(context.clone(), Adopted { record, containers, monitor });
    let view = handle.view();
    context.registry.add(handle, config);
    before.announce_changes(&context, &view);
    tokio::spawn(owner.serve());
}

/// What listeners were told of a pod before the daemon ended.
struct Known {
    ended: bool,
    /// Whether it was started, and whether it has ended.
    containers: BTreeMap<ContainerId, (bool, bool)>,
}

impl Known {
    fn of(record: &SandboxRecord, containers: &BTreeMap<ContainerId, Arc<ContainerRecord>>) -> Self {
        let told = |c: &ContainerRecord| (c.started_at.is_some(), c.exit.is_some());
        let containers = containers.iter().map(|(id, c)| (id.clone(), told(c))).collect();
        Self { ended: record.ended, containers }
    }

    /// What happened while no daemon was there. A fact that was stored and not announced before the end is lost to this:
    /// it is announced right after it was stored, and listeners list anew when their stream breaks.
    fn announce_changes(&self, context: &Context, pod: &PodView) {
        let Some(sandbox) = &pod.sandbox else { return };
        let announce = |container, kind| crate::sandbox::announce(context, pod, &sandbox.id, container, kind);
        for container in pod.containers.values() {
            let (started, ended) = self.containers.get(&container.id).copied().unwrap_or_default();
            if !started && container.started_at.is_some() {
                announce(Some(&**container), EventKind::Started);
            }
            if !ended && container.finished_at.is_some() {
                announce(Some(&**container), EventKind::Stopped);
            }
        }
        if !self.ended && sandbox.state != SandboxState::Ready {
            announce(None, EventKind::Stopped);
        }
    }
}

type Containers = BTreeMap<ContainerId, Arc<ContainerRecord>>;

/// Stores what is not as it was read: after a restart that is little, and writing everything would be most of its time.
fn keep(
    context: &Context,
    read: &(SandboxRecord, Containers),
    record: &SandboxRecord,
    containers: &Containers,
) {
    let changed = containers.values().filter(|c| read.1.get(&c.id) != Some(c));
    let sandbox = match read.0 == *record {
        true => Ok(()),
        false => context.sandboxes.put(record.id.as_str(), record, Durability::Process),
    };
    let stored = sandbox.and_then(|()| {
        changed.into_iter().try_for_each(|c| context.containers.put(c.id.as_str(), c, Durability::Process))
    });
    if let Err(error) = stored {
        tracing::error!(sandbox = %record.id, %error, "recovered facts could not be stored");
    }
}

/// Its making was never finished: nobody was told of it.
async fn unfinished(context: &Arc<Context>, record: &SandboxRecord, monitor: Option<Monitor>) {
    tracing::info!(sandbox = %record.id, "undoing a sandbox that was being made");
    let failures = stop::tear_down(context, record, monitor, &[]).await;
    if let Some(error) = stop::merge("undo a sandbox", failures) {
        tracing::error!(sandbox = %record.id, %error, "what it left stays until the next start");
        return;
    }
    if let Err(error) = context.sandboxes.remove(record.id.as_str()) {
        tracing::error!(sandbox = %record.id, %error, "its record stays until the next start");
    } else if let Some(selinux) = &context.selinux {
        selinux.release(record);
    }
}

/// Nothing of it runs any more, whatever has its pids now.
async fn rebooted(
    context: &Arc<Context>,
    record: &mut SandboxRecord,
    containers: &mut BTreeMap<ContainerId, Arc<ContainerRecord>>,
) {
    for container in containers.values_mut() {
        Arc::make_mut(container).lose("Unknown", "the host was restarted");
    }
    record.ended = true;
    if !record.stopped && record.attached {
        let failures = stop::tear_down(context, record, None, &[]).await;
        if let Some(error) = stop::merge("clean up after a reboot", failures) {
            tracing::warn!(sandbox = %record.id, %error, "StopPodSandbox will try again");
        } else {
            record.attached = false;
        }
    }
}

/// The monitor knows better than the record: containers ended, or were never made.
async fn alive(
    context: &Arc<Context>,
    record: &mut SandboxRecord,
    containers: &mut BTreeMap<ContainerId, Arc<ContainerRecord>>,
    monitor: &Monitor,
    state: &State,
) {
    if state.infra_exit.is_some() {
        record.ended = true;
    }
    reconcile(containers, state);
    let unmade: Vec<ContainerId> =
        containers.values().filter(|c| c.pid.is_none()).map(|c| c.id.clone()).collect();
    for id in unmade {
        if let Err(error) = undo_container(context, monitor, containers, &id).await {
            tracing::error!(container = %id, %error, "a container that was being made could not be undone");
        }
    }
    let known: Vec<_> = state.containers.iter().filter(|c| !containers.contains_key(&c.container)).collect();
    for stray in known {
        if let Err(error) = monitor.delete(&stray.container).await {
            tracing::warn!(container = %stray.container, %error, "a container without a record could not be removed");
        }
    }
}

/// Takes over what the monitor says of the containers that both know.
fn reconcile(containers: &mut BTreeMap<ContainerId, Arc<ContainerRecord>>, state: &State) {
    for container in containers.values_mut().filter(|c| c.exit.is_none()) {
        let container = Arc::make_mut(container);
        match state.containers.iter().find(|r| r.container == container.id) {
            Some(report) => {
                container.started_at = container.started_at.or(report.started_at);
                container.exit.clone_from(&report.exit);
            }
            None if container.pid.is_some() => container.lose("Unknown", "its monitor does not know it"),
            None => {}
        }
    }
}

async fn undo_container(
    context: &Arc<Context>,
    monitor: &Monitor,
    containers: &mut BTreeMap<ContainerId, Arc<ContainerRecord>>,
    id: &ContainerId,
) -> Result<(), PodError> {
    monitor.delete(id).await?;
    if let Some(record) = containers.remove(id) {
        crate::container::remove::forget(context, &record).await?;
    }
    Ok(())
}

async fn dead(
    context: &Arc<Context>,
    record: &mut SandboxRecord,
    containers: &mut BTreeMap<ContainerId, Arc<ContainerRecord>>,
) {
    for (id, exit) in lost::exits(&context.pod_dir(&record.id), containers.keys()) {
        if let Some(container) = containers.get_mut(&id).filter(|c| c.exit.is_none()) {
            Arc::make_mut(container).exit = Some(exit);
        }
    }
    let mut cgroups: Vec<String> = containers.values().map(|c| c.cgroup.clone()).collect();
    cgroups.push(crate::sandbox::run::infra_cgroup(context, &record.id, &record.config.cgroup_parent));
    if let Err(error) = context.blocking(move |c| lost::kill(c, &cgroups)).await {
        tracing::error!(sandbox = %record.id, %error, "what a dead monitor left could not be killed");
    }
    for container in containers.values_mut() {
        Arc::make_mut(container)
            .lose("MonitorDied", "the pod's crisp-monitor ended; the container was killed");
    }
    record.ended = record.infra.is_some();
}
