//! The facts of the pod: its infra container, containers and execs.
//!
//! ```text
//!   Creating --worker reports init--> Created --Start--> Starting --execve--> Running --exit--> Exited --Delete--> (gone)
//!      |                                 \_______________________________ exit __________________/^
//!      \--worker fails--> (gone)
//! ```
//!
//! Only the loop changes them. Containers are few, so lists are searched.

use std::{os::fd::OwnedFd, path::PathBuf};

use crisp_host::cgroup::{CgroupFs, Scope};
use crisp_model::{ContainerId, ExecId, ExitStatus, time::Timestamp};
use crisp_monitor::protocol::{Cgroup, ContainerReport, Failure, Infra};
use nix::unistd::Pid;

use super::{failed, oom::Kills, output::Streams};

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Creating,
    Created,
    Starting,
    Running,
    Exited,
}

impl Phase {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Creating => "being created",
            Self::Created => "created",
            Self::Starting => "being started",
            Self::Running => "running",
            Self::Exited => "exited",
        }
    }
}

/// A container.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) id: ContainerId,
    pub(super) phase: Phase,
    /// Init, until it is reaped.
    pub(super) pid: Option<Pid>,
    pub(super) pidfd: Option<OwnedFd>,
    /// Its number, for reports, also later.
    pub(super) number: i32,
    /// Init is process 1 of a pid namespace of its own: the kernel kills the others with it.
    pub(super) own_pids: bool,
    pub(super) in_userns: bool,
    /// cgroup path.
    pub(super) cgroup: String,
    /// The job that waits for init's execve.
    pub(super) job: Option<u64>,
    pub(super) streams: Streams,
    pub(super) started_at: Option<Timestamp>,
    pub(super) exit: Option<ExitStatus>,
    /// systemd has made its cgroup, and removes it.
    pub(super) systemd: bool,
    pub(super) kills: Kills,
    /// A worker is removing it.
    pub(super) removing: bool,
    /// cgroups of execs that have ended and left processes behind.
    pub(super) lingering: Vec<ExecGroup>,
}

/// A process that was added to a container.
#[derive(Debug)]
pub(super) struct Exec {
    pub(super) id: ExecId,
    pub(super) container: ContainerId,
    pub(super) group: ExecGroup,
    /// Until it is reaped.
    pub(super) pid: Option<Pid>,
    /// Its number, once it has one.
    pub(super) number: Option<i32>,
    pub(super) job: Option<u64>,
    pub(super) terminal: Option<OwnedFd>,
    /// It has ended before its start was answered.
    pub(super) exit: Option<ExitStatus>,
}

/// The cgroup that finds everything an exec has started: below the container's, v1 in one hierarchy, v2 in the one there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ExecGroup {
    pub(super) exec: ExecId,
    /// Path of the container's.
    pub(super) container: String,
}

impl ExecGroup {
    /// cgroup path.
    pub(super) fn path(&self) -> String {
        format!("{}/exec-{}", self.container, self.exec)
    }

    /// Its folder.
    pub(super) fn folder(&self, cgroups: &CgroupFs) -> Result<PathBuf, Failure> {
        let path = self.path();
        // The freezer holds no resources, so a level more in it costs nothing; hosts without it have something else.
        for controller in ["freezer", "pids", "memory", "cpu"] {
            let folder = cgroups.path(controller, &path).map_err(failed("find the exec's cgroup"))?;
            if let (false, Some(folder)) = (cgroups.layout().is_v2(), folder) {
                return Ok(folder);
            }
        }
        let folders = cgroups.paths(&path).map_err(failed("find the exec's cgroup"))?;
        folders.into_iter().next().ok_or_else(|| failed("find the exec's cgroup")("there is no hierarchy"))
    }
}

/// cgroup path of either driver's cgroup.
pub(super) fn cgroup_path(cgroup: &Cgroup) -> Result<String, Failure> {
    if !cgroup.systemd {
        return Ok(cgroup.path.clone());
    }
    Scope::parse(&cgroup.path)
        .and_then(|scope| scope.path())
        .map_err(|e| super::invalid(format!("cgroup {}", cgroup.path), e))
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Pod {
    pub(super) infra_cgroup: Option<String>,
    pub(super) infra: Option<Infra>,
    /// Until it is reaped.
    pub(super) infra_pid: Option<Pid>,
    pub(super) infra_exit: Option<ExitStatus>,
    /// Out-of-memory kills of containers that are removed.
    pub(super) kills_of_removed: u64,
    pub(super) containers: Vec<Container>,
    pub(super) execs: Vec<Exec>,
}

impl Pod {
    pub(super) fn container(&mut self, id: &ContainerId) -> Result<&mut Container, Failure> {
        let found = self.containers.iter_mut().find(|c| c.id == *id);
        found.ok_or_else(|| Failure::NotFound { what: format!("container {id}") })
    }

    pub(super) fn exec(&mut self, id: &ExecId) -> Result<&mut Exec, Failure> {
        let found = self.execs.iter_mut().find(|e| e.id == *id);
        found.ok_or_else(|| Failure::NotFound { what: format!("exec {id}") })
    }

    /// Whether nothing lives any more.
    pub(super) fn is_dead(&self) -> bool {
        self.infra_pid.is_none()
            && self.containers.iter().all(|c| c.pid.is_none())
            && self.execs.iter().all(|e| e.pid.is_none())
    }
}

impl Container {
    /// Fails unless it is in this phase.
    pub(super) fn expect(&self, phase: Phase) -> Result<(), Failure> {
        if self.phase == phase {
            return Ok(());
        }
        Err(Failure::WrongState {
            what: format!("container {}", self.id),
            state: self.phase.name().into(),
            needed: phase.name().into(),
        })
    }

    pub(super) fn report(&self) -> ContainerReport {
        ContainerReport {
            container: self.id.clone(),
            pid: self.number,
            started_at: self.started_at,
            exit: self.exit.clone(),
        }
    }
}
