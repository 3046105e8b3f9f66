//! What readers see of a pod: published whole after every change, read without waiting for anybody.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, sync::Arc};

use crisp_model::{
    ContainerConfig, ContainerId, ContainerState, SandboxConfig, SandboxId, SandboxState, time::Timestamp,
};

use crisp_monitor::client::Monitor;

use crate::record::{ContainerRecord, SandboxRecord, User};

/// A pod at one moment.
#[derive(Debug, Clone, Default)]
pub struct PodView {
    /// Rises with every change of the pod.
    pub generation: u64,
    /// The sandbox; `None` while it is being made (readers do not see it) and after its removal.
    pub sandbox: Option<Arc<SandboxView>>,
    /// Containers that were created and not removed.
    pub containers: BTreeMap<ContainerId, Arc<ContainerView>>,
    /// The records behind `containers`, for execs.
    pub(crate) records: BTreeMap<ContainerId, Arc<ContainerRecord>>,
    /// The way to the pod's processes, while there is one.
    pub(crate) monitor: Option<Monitor>,
}

/// A sandbox.
#[derive(Debug, Clone, PartialEq)]
pub struct SandboxView {
    /// Id.
    pub id: SandboxId,
    /// What was asked for.
    pub config: Arc<SandboxConfig>,
    /// State.
    pub state: SandboxState,
    /// When it was made.
    pub created_at: Timestamp,
    /// Addresses, primary first; none for the host's network.
    pub ips: Vec<IpAddr>,
    /// Process id of the infra container while it runs.
    pub infra_pid: Option<i32>,
    /// cgroup of the whole pod.
    pub cgroup: String,
}

/// A container.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerView {
    /// Id.
    pub id: ContainerId,
    /// Its pod.
    pub sandbox: SandboxId,
    /// What was asked for, resources as updated since.
    pub config: Arc<ContainerConfig>,
    /// Image id.
    pub image_id: String,
    /// Repo digest or id.
    pub image_ref: String,
    /// State.
    pub state: ContainerState,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its program started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Exit code, 0 until it ended.
    pub exit_code: i32,
    /// CamelCase reason of its end.
    pub reason: String,
    /// For people.
    pub message: String,
    /// First process while it runs.
    pub pid: Option<i32>,
    /// Log file.
    pub log: Option<PathBuf>,
    /// User of the first process.
    pub user: User,
    /// cgroup.
    pub cgroup: String,
    /// Number of its stop signal.
    pub stop_signal: i32,
}

impl From<&ContainerRecord> for ContainerView {
    fn from(record: &ContainerRecord) -> Self {
        let exit = record.exit.as_ref();
        ContainerView {
            id: record.id.clone(),
            sandbox: record.sandbox.clone(),
            config: record.config.clone(),
            image_id: record.image_id.clone(),
            image_ref: record.image_ref.clone(),
            state: record.state(),
            created_at: record.created_at,
            started_at: record.started_at,
            finished_at: exit.map(|e| e.finished_at),
            exit_code: exit.map_or(0, |e| e.code),
            reason: record.reason().to_owned(),
            message: record.failure.as_ref().map(|f| f.message.clone()).unwrap_or_default(),
            pid: record.pid.filter(|_| exit.is_none()),
            log: record.log.clone(),
            user: record.user.clone(),
            cgroup: record.cgroup.clone(),
            stop_signal: record.stop_signal,
        }
    }
}

impl SandboxView {
    /// The view of a record; `cgroup` is the pod's.
    pub fn new(record: &SandboxRecord, cgroup: String) -> Self {
        let ready = record.state() == SandboxState::Ready;
        SandboxView {
            id: record.id.clone(),
            config: record.config.clone(),
            state: record.state(),
            created_at: record.created_at,
            ips: if ready { record.ips.clone() } else { Vec::new() },
            infra_pid: record.infra.as_ref().filter(|_| ready).map(|i| i.pid),
            cgroup,
        }
    }
}
