//! Workers that are at work, and what becomes of what they report.

use std::{
    os::fd::{AsFd, OwnedFd, RawFd},
    time::{Duration, Instant},
};

use crisp_host::{cgroup::CgroupFs, process as proc};
use crisp_model::{ContainerId, ExecId, time::Timestamp};
use crisp_monitor::protocol::{Answer, Event, Failure};
use nix::unistd::Pid;

use super::{
    failed, host,
    pod::Phase,
    report::{self, Heard, Report},
    server::{ReplyTo, Server, Source},
    worker::{self, Worker},
};

/// Workers at once. The daemon runs probes one beside the other, not hundreds; each takes a process.
const JOBS: usize = 256;
/// Text of libcontainer's trace that is kept for a failure's reason, bytes.
const TRACE: usize = 1 << 10;
/// How long a monitor that shuts down waits for killed processes to be reaped.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// What a worker is for.
#[derive(Debug)]
pub(super) enum Kind {
    Infra,
    /// It creates a container; the job lives on until the container's init has executed its program.
    Container(ContainerId),
    Exec(ExecId),
    Remove(ContainerId),
    Kill,
    Shutdown,
}

/// A worker, and who waits for it.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) kind: Kind,
    pub(super) worker: Pid,
    pub(super) reply: Option<ReplyTo>,
    reports: OwnedFd,
    failure: Option<Failure>,
    trace: String,
    done: bool,
}

impl Server {
    /// The host's cgroups.
    pub(super) fn cgroups(&mut self) -> Result<CgroupFs, Failure> {
        if let Some(cgroups) = &self.cgroups {
            return Ok(cgroups.clone());
        }
        let found = CgroupFs::detect().map_err(failed("look for the host's cgroups"))?;
        Ok(self.cgroups.insert(found).clone())
    }

    /// Enters a worker that was forked.
    pub(super) fn employ(
        &mut self,
        kind: Kind,
        worker: Worker,
        reply: Option<ReplyTo>,
    ) -> Result<u64, Failure> {
        let token = self.token(Source::Job);
        self.watch(&worker.reports, token).map_err(host("wait for a worker"))?;
        let job = Job {
            kind,
            worker: worker.pid,
            reply,
            reports: worker.reports,
            failure: None,
            trace: String::new(),
            done: false,
        };
        self.jobs.insert(token, job);
        Ok(token)
    }

    /// Forks a worker and enters it.
    pub(super) fn work(
        &mut self,
        kind: Kind,
        reply: Option<ReplyTo>,
        keep: &[RawFd],
        work: impl FnOnce(&report::Reporter) -> Result<(), Failure>,
    ) -> Result<u64, Failure> {
        if self.jobs.len() >= JOBS {
            return Err(failed("start a worker")(format!("{JOBS} are at work already")));
        }
        let worker = worker::fork(keep, work).map_err(host("fork a worker"))?;
        self.employ(kind, worker, reply)
    }

    /// Hears what all workers have to say.
    pub(super) fn hear_all(&mut self) {
        let tokens: Vec<u64> = self.jobs.keys().copied().collect();
        tokens.into_iter().for_each(|token| self.hear(token));
    }

    pub(super) fn hear(&mut self, token: u64) {
        let mut buffer = Vec::new();
        while let Some(job) = self.jobs.get_mut(&token) {
            match report::hear(job.reports.as_fd(), &mut buffer) {
                Ok(Heard::Nothing) => return,
                Ok(Heard::Report(report, descriptors)) => self.take(token, report, descriptors),
                Ok(Heard::End) => return self.finish(token),
                Err(error) => {
                    job.failure.get_or_insert_with(|| host("hear a worker")(error));
                    return self.finish(token);
                }
            }
        }
    }

    fn take(&mut self, token: u64, report: Report, mut descriptors: Vec<OwnedFd>) {
        let Some(job) = self.jobs.get_mut(&token) else { return };
        match (report, &job.kind) {
            (Report::Done, _) => job.done = true,
            (Report::Failed(failure), _) => {
                job.failure.get_or_insert(failure);
            }
            (Report::Trace(line), _) => {
                if job.trace.len() + line.len() <= TRACE {
                    job.trace += if job.trace.is_empty() { "" } else { "; " };
                    job.trace += &line;
                }
            }
            (Report::Infra { pid, start_time }, Kind::Infra) => {
                self.pod.infra_pid = Some(Pid::from_raw(pid));
                self.pod.infra = Some(crisp_monitor::protocol::Infra { pid, start_time });
                self.settle_early(Pid::from_raw(pid));
            }
            (Report::Created { pid, own_pids }, Kind::Container(id)) => {
                let (id, reply) = (id.clone(), job.reply.take());
                self.created(&id, pid, own_pids, reply);
            }
            (Report::Exec { pid }, Kind::Exec(id)) => {
                let id = id.clone();
                if let Ok(exec) = self.pod.exec(&id) {
                    exec.pid = Some(Pid::from_raw(pid));
                    exec.number = Some(pid);
                }
                self.settle_early(Pid::from_raw(pid));
            }
            (Report::Handed { pid }, _) => job.worker = Pid::from_raw(pid),
            (Report::Terminal, Kind::Container(id)) => {
                let id = id.clone();
                if let Some(master) = descriptors.pop() {
                    self.take_terminal(&id, master);
                }
            }
            (Report::Terminal, Kind::Exec(id)) => {
                let id = id.clone();
                if let Ok(exec) = self.pod.exec(&id) {
                    exec.terminal = descriptors.pop();
                }
            }
            (other, kind) => eprintln!("a worker of {kind:?} says {other:?}"),
        }
    }

    fn take_terminal(&mut self, id: &ContainerId, master: OwnedFd) {
        let token = self.token(Source::Output(id.clone(), 0));
        let taken = match self.pod.container(id) {
            Ok(container) => container.streams.set_terminal(master, token),
            Err(_) => return,
        };
        let watched = taken.and_then(|()| match self.pod.containers.iter().find(|c| c.id == *id) {
            Some(c) => c.streams.outputs[0].as_ref().map_or(Ok(()), |o| self.watch(&o.file, token)),
            None => Ok(()),
        });
        if let Err(error) = watched {
            eprintln!("the terminal of container {id}: {error}");
        }
    }

    fn created(&mut self, id: &ContainerId, pid: i32, own_pids: bool, reply: Option<ReplyTo>) {
        let pid = Pid::from_raw(pid);
        if let Ok(container) = self.pod.container(id) {
            container.phase = Phase::Created;
            container.pid = Some(pid);
            container.number = pid.as_raw();
            // It is not reaped yet, so the number is still its own.
            container.pidfd = proc::pidfd(pid).ok();
            container.own_pids = own_pids;
            if container.systemd {
                self.watch_kills(id);
            }
        }
        if let Some(to) = reply {
            self.reply(to, Ok(Answer::Created { pid: pid.as_raw() }), vec![]);
        }
        self.settle_early(pid);
    }

    /// A worker, and every process that spoke through it, has ended or has become its program.
    pub(super) fn finish(&mut self, token: u64) {
        let Some(job) = self.jobs.remove(&token) else { return };
        self.sources.remove(&token);
        if self.jobs.is_empty() {
            // What nobody has asked for by now were orphans of the containers.
            self.early = Vec::new();
        }
        let failure = job.failure.map(|failure| traced(failure, &job.trace));
        let died = || failed("wait for a worker")("it died without a word");
        match job.kind {
            Kind::Infra => {
                let answer = match (failure, &self.pod.infra) {
                    (None, Some(infra)) => Ok(Answer::Infra(infra.clone())),
                    (failure, _) => {
                        self.pod.infra = None;
                        Err(failure.unwrap_or_else(died))
                    }
                };
                self.answer(job.reply, answer);
            }
            Kind::Container(id) => self.finish_container(&id, job.reply, failure),
            Kind::Exec(id) => self.finish_exec(&id, job.reply, failure),
            Kind::Remove(id) => {
                let result = if job.done { Ok(Answer::Done) } else { Err(failure.unwrap_or_else(died)) };
                match &result {
                    Ok(_) => self.drop_container(&id),
                    Err(_) => {
                        if let Ok(container) = self.pod.container(&id) {
                            container.removing = false;
                        }
                    }
                }
                self.answer(job.reply, result);
            }
            Kind::Kill => {
                let result = if job.done { Ok(Answer::Done) } else { Err(failure.unwrap_or_else(died)) };
                self.answer(job.reply, result);
            }
            Kind::Shutdown => match (job.done, job.reply) {
                (true, Some(to)) => self.ending = Some((to, Instant::now() + LAST_WAIT)),
                (_, reply) => self.answer(reply, Err(failure.unwrap_or_else(died))),
            },
        }
    }

    pub(super) fn answer(&mut self, to: Option<ReplyTo>, result: Result<Answer, Failure>) {
        if let Some(to) = to {
            self.reply(to, result, vec![]);
        }
    }

    fn finish_container(&mut self, id: &ContainerId, reply: Option<ReplyTo>, failure: Option<Failure>) {
        let Ok(container) = self.pod.container(id) else { return };
        container.job = None;
        match container.phase {
            Phase::Creating => {
                self.drop_container(id);
                let died = || failed("create the container")("its worker died without a word");
                self.answer(reply, Err(failure.unwrap_or_else(died)));
            }
            Phase::Starting => self.started(id, reply, failure, Timestamp::now()),
            // Init has ended before it was started; its exit is reaped as any other.
            Phase::Created | Phase::Running | Phase::Exited => {
                if let Some(failure) = failure {
                    eprintln!("container {id}: {failure}");
                }
            }
        }
    }

    /// Init has ended, but the worker that made it may still be on its way out and hold the socket: nothing more will be
    /// heard of the start than was heard by now, and its answer goes before the exit.
    pub(super) fn settle_start(&mut self, id: &ContainerId, at: Timestamp) {
        let Ok(container) = self.pod.container(id) else { return };
        let (phase, job) = (container.phase, container.job);
        if phase == Phase::Starting
            && let Some(job) = job.and_then(|job| self.jobs.get_mut(&job))
        {
            let (reply, failure) = (job.reply.take(), job.failure.take());
            let failure = failure.map(|failure| traced(failure, &job.trace));
            self.started(id, reply, failure, at);
        }
    }

    fn started(&mut self, id: &ContainerId, reply: Option<ReplyTo>, failure: Option<Failure>, at: Timestamp) {
        let Ok(container) = self.pod.container(id) else { return };
        container.phase = Phase::Running;
        let result = match failure {
            None => {
                container.started_at = Some(at);
                Ok(Answer::Started { at })
            }
            Some(failure) => Err(failure),
        };
        self.answer(reply, result);
    }

    fn finish_exec(&mut self, id: &ExecId, reply: Option<ReplyTo>, failure: Option<Failure>) {
        let Some(at) = self.pod.execs.iter().position(|e| e.id == *id) else { return };
        let exec = &mut self.pod.execs[at];
        exec.job = None;
        let number = exec.number;
        match (failure, number) {
            (None, Some(pid)) => {
                let terminal = exec.terminal.as_ref().and_then(|t| t.try_clone().ok());
                let ended = exec.exit.take();
                if let Some(to) = reply {
                    self.reply(to, Ok(Answer::ExecStarted { pid }), terminal.into_iter().collect());
                }
                if let Some(status) = ended {
                    self.end_exec(at);
                    self.event(Event::ExecExited { exec: id.clone(), status });
                }
            }
            (failure, _) => {
                self.end_exec(at);
                let died = || failed("start the exec")("its worker died without a word");
                self.answer(reply, Err(failure.unwrap_or_else(died)));
            }
        }
    }
}

/// A failure with what libcontainer said before.
fn traced(failure: Failure, trace: &str) -> Failure {
    match failure {
        Failure::Host { operation, reason } if !trace.is_empty() => {
            Failure::Host { operation, reason: format!("{reason} ({trace})") }
        }
        other => other,
    }
}
