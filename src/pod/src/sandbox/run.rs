//! RunPodSandbox: from a configuration to a running infra container with a network.
//!
//! ```text
//!   record (intent) --> files, /dev/shm ---\
//!          \---> network ADD ---------------+--> record (fact)
//!   network namespace, pinned \            /
//!   monitor started -----------> infra container
//! ```
//!
//! What can run beside something else does. The network of a pod with a user namespace, which has to own it, or with sysctls for
//! it is made by the infra container, and attached after that. When a step fails, everything is torn down by [`super::stop::tear_down`], which is
//! idempotent and knows nothing of how far it got; after a crash `recover` calls the same.

use std::{net::IpAddr, path::PathBuf, sync::Arc};

use crisp_model::{LinuxResources, security::NamespaceMode};
use crisp_monitor::{
    client::{Monitor, SpawnOptions},
    protocol::{Event, Infra, StartInfra},
};
use crisp_network::PodAttachment;
use crisp_store::Durability;
use tokio::sync::{mpsc, watch};

use super::{files, stop};
use crate::{
    context::Context,
    error::PodError,
    owner::{Effect, Operation, Outcome, Reply},
    record::SandboxRecord,
};

/// A sandbox that is up.
#[derive(Debug)]
pub(crate) struct Up {
    pub record: SandboxRecord,
    pub monitor: Monitor,
    pub events: mpsc::Receiver<Event>,
}

/// The infra container's own cgroup.
pub(crate) fn infra_cgroup(context: &Context, id: &crisp_model::SandboxId, parent: &str) -> String {
    context.member_cgroup(id, parent, id.as_str())
}

pub(crate) async fn run(op: Operation) -> Outcome {
    let mut record = (*op.sandbox).clone();
    record.attached = has_network(&record);
    if let Some(selinux) = &op.context.selinux {
        match selinux.take(&record.config.security) {
            Ok(labels) => record.selinux = Some(labels),
            Err(error) => return (None, Err(error)),
        }
    }
    let mut monitor = None;
    match bring_up(&op, &mut record, &mut monitor).await {
        Ok(events) => {
            let Some(monitor) = monitor else {
                return (None, Err(PodError::host("start the monitor", "no monitor")));
            };
            (Some(Effect::Up(Box::new(Up { record, monitor, events }))), Ok(Reply::Done))
        }
        Err(error) => {
            op.stage.enter("undoing what was made");
            for failure in stop::tear_down(&op.context, &record, monitor, &[]).await {
                tracing::error!(sandbox = %record.id, %failure, "undoing RunPodSandbox");
            }
            if let Err(failure) = op.context.sandboxes.remove(record.id.as_str()) {
                tracing::error!(sandbox = %record.id, %failure, "undoing RunPodSandbox");
            }
            if let Some(selinux) = &op.context.selinux {
                selinux.release(&record);
            }
            (None, Err(error))
        }
    }
}

/// Whether the pod has a network namespace of its own.
pub(crate) fn has_network(record: &SandboxRecord) -> bool {
    record.config.security.namespaces.network != NamespaceMode::Node
}

async fn bring_up(
    op: &Operation,
    record: &mut SandboxRecord,
    monitor: &mut Option<Monitor>,
) -> Result<mpsc::Receiver<Event>, PodError> {
    let context = &op.context;
    op.stage.enter("making files, starting the monitor and the infra container");
    let dir = context.pod_dir(&record.id);
    // The monitor's socket needs the folder, which is one system call.
    make_folder(&dir)?;
    let early = record.attached && network_first(record);
    let (intent, netns) = (record.clone(), context.netns(&record.id));
    let (tell_stored, stored) = watch::channel(false);
    let (tell_made, made) = watch::channel(false);
    let prepared = context.blocking(move |c| {
        c.sandboxes.put(intent.id.as_str(), &intent, Durability::Power)?;
        tell_stored.send_replace(true);
        intent.selinux.as_ref().map_or(Ok(()), crate::selinux::check)?;
        files::make(&c.pod_dir(&intent.id), &intent.config, intent.selinux.as_ref().map(|l| &l.mount))
    });
    let at = netns.clone();
    let network = async {
        if !early {
            return Ok::<(), PodError>(());
        }
        let make = move || {
            make_network(&at)?;
            tell_made.send_replace(true);
            Ok(())
        };
        context.blocking(move |_| make()).await?
    };
    let known = record.clone();
    let attached = async {
        // An address that was given is found again only by a stored intent. What fails is told by the others.
        if early && done(stored).await && done(made.clone()).await {
            Some(attach(context, &known).await)
        } else {
            None
        }
    };
    let started = start_infra(context, record, monitor, early.then(|| (netns.clone(), made.clone())));
    // All of them end before anything is undone.
    let rest = async {
        // In this order: the two that block are on their way before the monitor's start takes this thread.
        let all = tokio::join!(network, prepared, started);
        if early {
            op.stage.enter("attaching the network");
        }
        all
    };
    let ((network, prepared, started), attached) = tokio::join!(rest, attached);
    prepared??;
    network?;
    let (infra, events) = started?;
    // A pod's cgroup belongs to whoever made it; that of a pod that named no parent is ours, with its limits.
    if record.config.cgroup_parent.is_empty() && record.config.resources != LinuxResources::default() {
        op.stage.enter("writing the limits of the pod");
        let (cgroup, limits) = (context.pod_cgroup(&record.id, ""), record.config.resources.clone());
        context.blocking(move |c| c.limit(&cgroup, &limits)).await??;
    }
    if let Some(attached) = attached {
        record.ips = attached?;
    } else if record.attached {
        op.stage.enter("pinning the network namespace");
        let pid = infra.pid;
        context.blocking(move |_| pin(pid, &netns)).await??;
        op.stage.enter("attaching the network");
        record.ips = attach(context, record).await?;
    }
    record.infra = Some(infra);
    op.stage.enter("storing the record");
    let fact = record.clone();
    // The addresses are in the network's own records; this one only has to survive the daemon.
    context.blocking(move |c| c.sandboxes.put(fact.id.as_str(), &fact, Durability::Process)).await??;
    Ok(events)
}

/// Whether the network can be made and attached beside everything else. Not if the pod's user namespace has to own it, nor if
/// devices are to be made as the pod's sysctls say.
fn network_first(record: &SandboxRecord) -> bool {
    record.config.security.namespaces.user.is_none()
        && !record.config.sysctls.keys().any(|name| name.starts_with("net"))
}

async fn attach(context: &Context, record: &SandboxRecord) -> Result<Vec<IpAddr>, PodError> {
    let begin = std::time::Instant::now();
    let attached = context.network.attach(&attachment(context, record)).await;
    context.metrics.network("add", attached.is_ok(), begin.elapsed());
    Ok(attached.map_err(|e| PodError::host("attach the pod's network", e))?.ips)
}

fn make_network(at: &std::path::Path) -> Result<(), PodError> {
    crisp_host::namespace::new_network(at)
        .map_err(|e| PodError::host(format!("make a network namespace at {}", at.display()), e))
}

/// Whether the other side has said that it is done; false: it has failed.
async fn done(mut step: watch::Receiver<bool>) -> bool {
    step.wait_for(|done| *done).await.is_ok()
}

fn make_folder(dir: &std::path::Path) -> Result<(), PodError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o711).create(dir);
    made.map_err(|e| PodError::host(format!("make {}", dir.display()), e))
}

async fn start_infra(
    context: &Arc<Context>,
    record: &SandboxRecord,
    slot: &mut Option<Monitor>,
    network_at: Option<(PathBuf, watch::Receiver<bool>)>,
) -> Result<(Infra, mpsc::Receiver<Event>), PodError> {
    let binary = context.config.monitor.clone();
    let dir = context.pod_dir(&record.id);
    let (monitor, events) = Monitor::spawn(SpawnOptions { binary, dir, sandbox: record.id.clone() }).await?;
    *slot = Some(monitor.clone());
    let config = &record.config;
    let namespaces = &config.security.namespaces;
    let of_pod = |mode: &NamespaceMode| *mode == NamespaceMode::Pod;
    let network = of_pod(&namespaces.network);
    let netns = match network_at {
        Some((at, made)) => match done(made).await {
            true => Some(at),
            // What has failed says so itself.
            false => return Err(PodError::host("start the infra container", "it has no network namespace")),
        },
        None => None,
    };
    let infra = StartInfra {
        network,
        netns,
        ipc: of_pod(&namespaces.ipc),
        // The CRI has no mode for UTS: it goes with the network, as in every runtime.
        uts: network,
        pid: of_pod(&namespaces.pid),
        user: namespaces.user.clone(),
        hostname: files::hostname(config),
        sysctls: config.sysctls.clone(),
        cgroup: context.member_cgroup_request(
            &record.id,
            &config.cgroup_parent,
            record.id.as_str(),
            LinuxResources::default(),
        ),
        oom_score_adj: Some(-998),
        selinux_label: None,
    };
    Ok((monitor.start_infra(infra).await?, events))
}

/// Keeps the network namespace reachable after the infra container has died, so that the network can be taken down in order.
fn pin(pid: i32, at: &std::path::Path) -> Result<(), PodError> {
    let failed = |e: &dyn std::fmt::Display| {
        PodError::host(format!("pin the network namespace at {}", at.display()), e)
    };
    if let Some(folder) = at.parent() {
        std::fs::create_dir_all(folder).map_err(|e| failed(&e))?;
    }
    crisp_host::mountpoint::pin(std::path::Path::new(&format!("/proc/{pid}/ns/net")), at)
        .map_err(|e| failed(&e))
}

fn attachment(context: &Context, record: &SandboxRecord) -> PodAttachment {
    let config = &record.config;
    PodAttachment {
        sandbox: record.id.clone(),
        name: config.metadata.name.clone(),
        namespace: config.metadata.namespace.clone(),
        uid: config.metadata.uid.clone(),
        netns: context.netns(&record.id),
        port_mappings: config.port_mappings.clone(),
        dns: config.dns.clone(),
        aliases: Vec::new(),
        cgroup_parent: config.cgroup_parent.clone(),
        annotations: config.annotations.clone(),
    }
}
