//! What is stored of pods and containers: intent before an effect, the fact after it. States are derived, not stored.

use std::{net::IpAddr, path::PathBuf, sync::Arc};

use crisp_model::{
    ContainerConfig, ContainerId, ContainerState, ExitStatus, SandboxConfig, SandboxId, SandboxState,
    process::Process, time::Timestamp,
};
use crisp_monitor::protocol::Infra;
use crisp_spec::selinux::Labels;
use serde::{Deserialize, Serialize};

/// A pod sandbox on disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SandboxRecord {
    /// Its id.
    pub id: SandboxId,
    /// What was asked for.
    pub config: Arc<SandboxConfig>,
    /// When.
    pub created_at: Timestamp,
    /// `/proc/sys/kernel/random/boot_id` of that time: after a reboot nothing of it runs, whatever has its pids.
    pub boot_id: String,
    /// The infra container; `None` while it is being made.
    #[serde(default)]
    pub infra: Option<Infra>,
    /// Addresses, primary first.
    #[serde(default)]
    pub ips: Vec<IpAddr>,
    /// The network was, or may have been, attached, and not detached since.
    #[serde(default)]
    pub attached: bool,
    /// The infra container ended, or StopPodSandbox was called.
    #[serde(default)]
    pub ended: bool,
    /// StopPodSandbox is complete: nothing of the pod is left on the host.
    #[serde(default)]
    pub stopped: bool,
    /// Its labels; `None`: SELinux was off when it was made.
    #[serde(default)]
    pub selinux: Option<Labels>,
}

impl crisp_store::Record for SandboxRecord {
    const VERSION: u32 = 1;
}

impl SandboxRecord {
    /// CRI state.
    pub fn state(&self) -> SandboxState {
        if self.infra.is_some() && !self.ended { SandboxState::Ready } else { SandboxState::NotReady }
    }
}

/// The user a container's first process runs as (CRI `ContainerUser`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// A container on disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// Its id.
    pub id: ContainerId,
    /// Its pod.
    pub sandbox: SandboxId,
    /// What was asked for; resources as updated since.
    pub config: Arc<ContainerConfig>,
    /// Image id.
    pub image_id: String,
    /// Repo digest, or the id where there is none.
    pub image_ref: String,
    /// When.
    pub created_at: Timestamp,
    /// Its first process; `None` while it is being made.
    #[serde(default)]
    pub pid: Option<i32>,
    /// The first process as it was to be: execs take user, capabilities and environment from it.
    #[serde(default)]
    pub process: Process,
    /// File with the compiled seccomp program, for execs.
    #[serde(default)]
    pub seccomp: Option<PathBuf>,
    /// Stop signal, from the request or the image.
    pub stop_signal: i32,
    /// Log file.
    #[serde(default)]
    pub log: Option<PathBuf>,
    /// cgroup path below every hierarchy's root.
    pub cgroup: String,
    /// User of the first process.
    #[serde(default)]
    pub user: User,
    /// When its program started.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    /// How it ended.
    #[serde(default)]
    pub exit: Option<ExitStatus>,
    /// Why, where the exit status does not say it: it could not be started, its monitor died, the host rebooted.
    #[serde(default)]
    pub failure: Option<Failed>,
}

/// A reason beside the exit status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// CamelCase.
    pub reason: String,
    /// For people.
    pub message: String,
}

impl crisp_store::Record for ContainerRecord {
    const VERSION: u32 = 1;
}

impl ContainerRecord {
    /// CRI state.
    pub fn state(&self) -> ContainerState {
        match (&self.exit, self.started_at) {
            (Some(_), _) => ContainerState::Exited,
            (None, Some(_)) => ContainerState::Running,
            (None, None) => ContainerState::Created,
        }
    }

    /// CamelCase reason of an exited container; empty for one that has not.
    pub fn reason(&self) -> &str {
        match (&self.failure, &self.exit) {
            (Some(failed), _) => &failed.reason,
            (None, None) => "",
            (None, Some(exit)) if exit.oom_killed => "OOMKilled",
            (None, Some(exit)) if exit.code == 0 => "Completed",
            (None, Some(_)) => "Error",
        }
    }

    /// An exit that nobody saw.
    pub fn lose(&mut self, reason: &str, message: &str) {
        if self.exit.is_none() {
            self.exit = Some(ExitStatus {
                code: 255,
                signal: None,
                oom_killed: false,
                finished_at: Timestamp::now(),
            });
            self.failure = Some(Failed { reason: reason.into(), message: message.into() });
        }
    }
}
