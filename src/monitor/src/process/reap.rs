//! Exits: what a process ended with, the record, the event.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crisp_model::{ExitStatus, time::Timestamp};
use crisp_monitor::protocol::Event;
use nix::{
    sys::wait::{WaitPidFlag, WaitStatus, waitpid},
    unistd::Pid,
};

use super::{jobs::Kind, output::Pumped, pod::Phase, server::Server};

/// Exits of processes that no worker has reported yet, kept until it does. Each worker makes a handful of processes.
const EARLY: usize = 64;
/// Rounds of reading each stream of a container that has exited: twice what a pipe holds. Others may go on writing to it for ever.
const LAST_ROUNDS: usize = 2;

/// Where the exit of a container (or of `infra`) is written.
pub(super) fn record(dir: &Path, name: &str) -> PathBuf {
    dir.join("exits").join(format!("{name}.json"))
}

fn write_record(dir: &Path, name: &str, status: &ExitStatus) {
    let path = record(dir, name);
    let temporary = path.with_extension("tmp");
    // On a file system in memory: rename is all that it takes to be whole.
    let written = serde_json::to_vec(status)
        .map_err(std::io::Error::other)
        .and_then(|bytes| fs::create_dir_all(dir.join("exits")).and_then(|()| fs::write(&temporary, bytes)))
        .and_then(|()| fs::rename(&temporary, &path));
    if let Err(error) = written {
        eprintln!("exit record {}: {error}", path.display());
    }
}

fn status(code: i32, signal: Option<i32>) -> ExitStatus {
    ExitStatus { code, signal, oom_killed: false, finished_at: Timestamp::now() }
}

impl Server {
    /// Takes every exit that there is.
    pub(super) fn reap(&mut self) {
        loop {
            match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => self.exited(pid, code, None),
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    self.exited(pid, 128 + signal as i32, Some(signal as i32));
                }
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    fn exited(&mut self, pid: Pid, code: i32, signal: Option<i32>) {
        self.look_before_it_goes(pid);
        // What it has reported is older than its end.
        self.hear_all();
        let status = status(code, signal);
        if !self.settle_exit(pid, &status) && !self.jobs.is_empty() {
            if self.early.len() >= EARLY {
                self.early.remove(0);
            }
            self.early.push((pid, status));
        }
    }

    /// A process became known that may have ended already.
    pub(super) fn settle_early(&mut self, pid: Pid) {
        if let Some(at) = self.early.iter().position(|(p, _)| *p == pid) {
            let (pid, status) = self.early.remove(at);
            self.settle_exit(pid, &status);
        }
    }

    fn settle_exit(&mut self, pid: Pid, status: &ExitStatus) -> bool {
        if self.pod.infra_pid == Some(pid) {
            self.infra_exited(status.clone());
        } else if let Some(at) = self.pod.containers.iter().position(|c| c.pid == Some(pid)) {
            let id = self.pod.containers[at].id.clone();
            self.settle_start(&id, status.finished_at);
            self.container_exited(at, status.clone());
        } else if let Some(at) = self.pod.execs.iter().position(|e| e.pid == Some(pid)) {
            self.exec_exited(at, status.clone());
        } else {
            return self.worker_exited(pid);
        }
        true
    }

    fn infra_exited(&mut self, status: ExitStatus) {
        self.pod.infra_pid = None;
        write_record(&self.dir, "infra", &status);
        self.pod.infra_exit = Some(status.clone());
        self.event(Event::InfraExited(status));
    }

    fn container_exited(&mut self, at: usize, mut status: ExitStatus) {
        let container = &mut self.pod.containers[at];
        container.pid = None;
        container.pidfd = None;
        if let (false, Some(cgroups)) = (container.own_pids, &self.cgroups) {
            // With a pid namespace of its own the kernel has done it.
            let _ = cgroups.signal_all(&container.cgroup, libc::SIGKILL);
        }
        for which in 0..2 {
            for _ in 0..LAST_ROUNDS {
                let token = container.streams.outputs[which].as_ref().map(|o| o.token);
                match container.streams.pump(which, &mut self.scratch) {
                    Pumped::Busy => {}
                    Pumped::Idle => break,
                    Pumped::Ended => {
                        if let Some(token) = token {
                            self.sources.remove(&token);
                        }
                        break;
                    }
                }
            }
        }
        container.streams.detach_all();
        container.streams.input = None;
        status.oom_killed = self.settle_kills(at, &status);
        let container = &mut self.pod.containers[at];
        container.phase = Phase::Exited;
        container.exit = Some(status.clone());
        let id = container.id.clone();
        write_record(&self.dir, id.as_str(), &status);
        self.event(Event::Exited { container: id, status });
    }

    fn exec_exited(&mut self, at: usize, status: ExitStatus) {
        let exec = &mut self.pod.execs[at];
        exec.pid = None;
        let id = exec.id.clone();
        if exec.job.is_some() {
            // Its start is not answered yet: the answer goes first.
            exec.exit = Some(status);
            return;
        }
        self.end_exec(at);
        self.event(Event::ExecExited { exec: id, status });
    }

    /// Forgets an exec, and its cgroup if nothing is left in it.
    pub(super) fn end_exec(&mut self, at: usize) {
        let exec = self.pod.execs.swap_remove(at);
        let Some(cgroups) = &self.cgroups else { return };
        let Ok(container) = self.pod.container(&exec.container) else { return };
        container.lingering.push(exec.group);
        container.lingering.retain(|group| match group.folder(cgroups) {
            Ok(folder) => matches!(fs::remove_dir(folder), Err(e) if e.raw_os_error() == Some(libc::EBUSY)),
            Err(_) => false,
        });
        if container.lingering.len() > super::server::LINGERING {
            // Its processes still belong to the container, and go with it.
            container.lingering.remove(0);
        }
    }

    /// A worker that has ended without a word that was expected of it: its processes may hold the socket open.
    fn worker_exited(&mut self, pid: Pid) -> bool {
        let Some((token, job)) = self.jobs.iter().find(|(_, job)| job.worker == pid) else { return false };
        let token = *token;
        let unfinished = match &job.kind {
            Kind::Container(id) => {
                let id = id.clone();
                self.pod.container(&id).is_ok_and(|c| c.phase == Phase::Creating)
            }
            Kind::Infra => self.pod.infra_pid.is_none(),
            Kind::Exec(id) => {
                let id = id.clone();
                self.pod.exec(&id).is_ok_and(|e| e.pid.is_none() && e.exit.is_none())
            }
            Kind::Remove(_) | Kind::Kill | Kind::Shutdown => false,
        };
        if unfinished {
            self.finish(token);
        }
        true
    }
}
