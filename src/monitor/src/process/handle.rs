//! What is done for each request.
//!
//! Either the answer is given at once, or a worker is forked and the answer follows its reports.

mod given;

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
};

use crisp_host::terminal;
use crisp_model::{ContainerId, ExecId};
use crisp_monitor::{
    frame::{self, FrameError},
    log_line::Stream,
    protocol::{self, Answer, Failure, PROTOCOL, State, Terminal},
};
use nix::sys::signal::{Signal, kill};

use self::given::{full, hand_over, notify, owner, seccomp, stdio};
use super::{
    create, exec, failed, host, infra, invalid,
    jobs::Kind,
    log_file::LogFile,
    oom::Kills,
    output::{self, Output, Streams},
    pod::{Container, Exec, ExecGroup, Phase, cgroup_path},
    remove,
    request::{Call, Create, Exec as ExecRequest, Request},
    server::{ReplyTo, Server, Source},
};

/// Execs of a pod at once; each is a process of the pod, and probes overlap little.
const EXECS: usize = 512;

/// What a request comes to if it does not fail at once.
enum Outcome {
    Answer(Answer),
    With(Answer, Vec<OwnedFd>),
    /// A worker's reports bring it.
    Later,
}

const DONE: Result<Outcome, Failure> = Ok(Outcome::Answer(Answer::Done));

impl Server {
    /// Takes a request. An error means that the other side does not speak the protocol.
    pub(super) fn handle(
        &mut self,
        peer: u64,
        body: &[u8],
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), FrameError> {
        let call: Call = frame::decode(body)?;
        let to = ReplyTo { peer, seq: call.seq };
        match self.perform(call.request, to, body, descriptors) {
            Ok(Outcome::Answer(answer)) => self.reply(to, Ok(answer), vec![]),
            Ok(Outcome::With(answer, descriptors)) => self.reply(to, Ok(answer), descriptors),
            Ok(Outcome::Later) => {}
            Err(failure) => self.reply(to, Err(failure), vec![]),
        }
        Ok(())
    }

    fn perform(
        &mut self,
        request: Request,
        to: ReplyTo,
        body: &[u8],
        descriptors: Vec<OwnedFd>,
    ) -> Result<Outcome, Failure> {
        match request {
            Request::State => Ok(Outcome::Answer(Answer::State(Box::new(self.state())))),
            Request::StartInfra(wanted) => self.start_infra(&wanted.cgroup, to, body),
            Request::Create(wanted) => self.create(*wanted, to, body, descriptors),
            Request::Start { container } => self.start(&container, to),
            Request::Signal { container, signal, all } => self.signal(&container, signal, all, to),
            Request::Exec(wanted) => self.exec(*wanted, to, body, descriptors),
            Request::KillExec { exec } => self.kill_exec(&exec, to),
            Request::Attach { container, stdin, stdout, stderr } => {
                self.attach(&container, stdin, [stdout, stderr], descriptors)
            }
            Request::CloseStdin { container } => {
                self.pod.container(&container)?.streams.input = None;
                DONE
            }
            Request::Resize { terminal, columns, rows } => self.resize(&terminal, columns, rows),
            Request::ReopenLog { container } => {
                if let Some(log) = &mut self.pod.container(&container)?.streams.log {
                    log.reopen().map_err(host("open the log anew"))?;
                }
                DONE
            }
            Request::Delete { container } => self.delete(&container, to),
            Request::Shutdown => self.shut_down(to),
        }
    }

    fn state(&self) -> State {
        State {
            protocol: PROTOCOL,
            sandbox: self.sandbox.clone(),
            infra: self.pod.infra.clone(),
            infra_exit: self.pod.infra_exit.clone(),
            containers: self
                .pod
                .containers
                .iter()
                .filter(|c| c.phase != Phase::Creating)
                .map(Container::report)
                .collect(),
        }
    }

    fn start_infra(
        &mut self,
        cgroup: &protocol::Cgroup,
        to: ReplyTo,
        body: &[u8],
    ) -> Result<Outcome, Failure> {
        let starting = self.jobs.values().any(|job| matches!(job.kind, Kind::Infra));
        if starting || self.pod.infra.is_some() {
            return Err(wrong_state("the infra container", "started", "not started"));
        }
        let (cgroups, oom_score) = (self.cgroups()?, self.oom_score);
        self.pod.infra_cgroup = Some(cgroup_path(cgroup)?);
        self.work(Kind::Infra, Some(to), &[], |reporter| {
            let protocol::Request::StartInfra(wanted) = full(body)? else { return Err(mismatch()) };
            infra::start(reporter, &wanted, &cgroups, oom_score)
        })?;
        Ok(Outcome::Later)
    }

    fn create(
        &mut self,
        wanted: Create,
        to: ReplyTo,
        body: &[u8],
        mut descriptors: Vec<OwnedFd>,
    ) -> Result<Outcome, Failure> {
        if let Ok(existing) = self.pod.container(&wanted.container) {
            return Err(wrong_state(format!("container {}", wanted.container), existing.phase.name(), "new"));
        }
        let seccomp = seccomp(wanted.seccomp, &mut descriptors)?;
        let cgroups = self.cgroups()?;
        let mut container = container(&wanted)?;
        let stdio = self.open_streams(&wanted, &mut container.streams)?;
        let given = create::Given {
            dir: self.dir.clone(),
            stdio,
            seccomp,
            oom_score: self.oom_score,
            infra: self.pod.infra_pid.map(nix::unistd::Pid::as_raw),
        };
        let keep: Vec<RawFd> = given.stdio.iter().map(AsRawFd::as_raw_fd).collect();
        let kind = Kind::Container(wanted.container.clone());
        let employed = self.work(kind, Some(to), &keep, |reporter| {
            let protocol::Request::Create(full) = full(body)? else { return Err(mismatch()) };
            create::create(reporter, *full, given, &cgroups)
        });
        match employed {
            Ok(job) => {
                container.job = Some(job);
                self.pod.containers.push(container);
                Ok(Outcome::Later)
            }
            Err(failure) => {
                self.drop_container(&wanted.container);
                Err(failure)
            }
        }
    }

    /// Opens the log and makes the pipes; returns the container's ends.
    fn open_streams(&mut self, wanted: &Create, streams: &mut Streams) -> Result<[OwnedFd; 3], Failure> {
        if let Some(path) = &wanted.log {
            let log = LogFile::open(path).map_err(|e| invalid(format!("log {}", path.display()), e))?;
            streams.log = Some(log);
        }
        let null = || -> io::Result<OwnedFd> {
            Ok(File::options().read(true).write(true).open("/dev/null")?.into())
        };
        if wanted.process.terminal.is_some() {
            let open = || null().map_err(host("open /dev/null"));
            return Ok([open()?, open()?, open()?]);
        }
        let owner = owner(&wanted.process, wanted.user.as_ref());
        let mut stdin = null().map_err(host("open /dev/null"))?;
        if wanted.stdin {
            let (reader, writer) = output::pipe().map_err(host("make a pipe"))?;
            hand_over(&reader, owner)?;
            (stdin, streams.input) = (reader, Some(writer));
        }
        let mut ends = Vec::with_capacity(2);
        for (which, stream) in [Stream::Stdout, Stream::Stderr].into_iter().enumerate() {
            let (reader, writer) = output::pipe().map_err(host("make a pipe"))?;
            hand_over(&writer, owner)?;
            let token = self.token(Source::Output(wanted.container.clone(), which));
            let output = Output::new(reader, token, stream).map_err(host("make a pipe"))?;
            self.watch(&output.file, token).map_err(host("wait for a pipe"))?;
            streams.outputs[which] = Some(output);
            ends.push(writer);
        }
        let stderr = ends.pop().ok_or_else(mismatch)?;
        let stdout = ends.pop().ok_or_else(mismatch)?;
        Ok([stdin, stdout, stderr])
    }

    fn start(&mut self, id: &ContainerId, to: ReplyTo) -> Result<Outcome, Failure> {
        let dir = create::state_root(&self.dir).join(id.as_str());
        let container = self.pod.container(id)?;
        container.expect(Phase::Created)?;
        let Some(job) = container.job else {
            return Err(wrong_state(format!("container {id}"), "ending", "created"));
        };
        notify(&dir).map_err(host("tell the container to start"))?;
        container.phase = Phase::Starting;
        if let Some(job) = self.jobs.get_mut(&job) {
            job.reply = Some(to);
        }
        Ok(Outcome::Later)
    }

    fn signal(&mut self, id: &ContainerId, signal: i32, all: bool, to: ReplyTo) -> Result<Outcome, Failure> {
        let signal =
            Signal::try_from(signal).map_err(|_| invalid(format!("signal {signal}"), "no such signal"))?;
        let container = self.pod.container(id)?;
        if !all {
            if let Some(pid) = container.pid {
                // Not reaped yet, so the number is its own.
                kill(pid, signal).map_err(failed(format!("send {signal} to container {id}")))?;
            }
            return DONE;
        }
        let group = container.cgroup.clone();
        let cgroups = self.cgroups()?;
        if signal != Signal::SIGKILL {
            let sent = cgroups.signal_all(&group, signal as i32);
            sent.map_err(failed(format!("send {signal} to all of container {id}")))?;
            return DONE;
        }
        self.work(Kind::Kill, Some(to), &[], |reporter| remove::kill(reporter, &cgroups, &group))?;
        Ok(Outcome::Later)
    }

    fn exec(
        &mut self,
        wanted: ExecRequest,
        to: ReplyTo,
        body: &[u8],
        mut descriptors: Vec<OwnedFd>,
    ) -> Result<Outcome, Failure> {
        let seccomp = seccomp(wanted.seccomp, &mut descriptors)?;
        let cgroups = self.cgroups()?;
        let oom_score = self.oom_score;
        if self.pod.exec(&wanted.exec).is_ok() {
            return Err(wrong_state(format!("exec {}", wanted.exec), "running", "new"));
        }
        if self.pod.execs.len() >= EXECS {
            return Err(failed("start an exec")(format!("{EXECS} are running already")));
        }
        let container = self.pod.container(&wanted.container)?;
        container.expect(Phase::Running)?;
        let (Some(init), Some(pidfd)) = (container.pid, container.pidfd.as_ref()) else {
            return Err(wrong_state(format!("container {}", wanted.container), "ending", "running"));
        };
        let group = ExecGroup { exec: wanted.exec.clone(), container: container.cgroup.clone() };
        let given = exec::Given {
            init: init.as_raw(),
            pidfd: pidfd.try_clone().map_err(host("dup"))?,
            in_userns: container.in_userns,
            group: group.clone(),
            stdio: stdio(wanted.stdio, wanted.process.terminal.is_some(), descriptors)?,
            seccomp,
            oom_score,
        };
        let mut keep: Vec<RawFd> = given.stdio.iter().flatten().map(AsRawFd::as_raw_fd).collect();
        keep.push(given.pidfd.as_raw_fd());
        let job = self.work(Kind::Exec(wanted.exec.clone()), Some(to), &keep, |reporter| {
            let protocol::Request::Exec(full) = full(body)? else { return Err(mismatch()) };
            exec::start(reporter, *full, given, &cgroups)
        })?;
        self.pod.execs.push(Exec {
            id: wanted.exec,
            container: wanted.container,
            group,
            pid: None,
            number: None,
            job: Some(job),
            terminal: None,
            exit: None,
        });
        Ok(Outcome::Later)
    }

    fn kill_exec(&mut self, id: &ExecId, to: ReplyTo) -> Result<Outcome, Failure> {
        let running = self.pod.execs.iter().map(|e| &e.group);
        let left = self.pod.containers.iter().flat_map(|c| &c.lingering);
        let Some(group) = running.chain(left).find(|g| g.exec == *id).map(ExecGroup::path) else {
            return DONE;
        };
        let cgroups = self.cgroups()?;
        self.work(Kind::Kill, Some(to), &[], |reporter| remove::kill(reporter, &cgroups, &group))?;
        Ok(Outcome::Later)
    }

    fn attach(
        &mut self,
        id: &ContainerId,
        stdin: bool,
        wanted: [bool; 2],
        descriptors: Vec<OwnedFd>,
    ) -> Result<Outcome, Failure> {
        let mut descriptors = descriptors.into_iter();
        let [stdout, stderr] = wanted.map(|w| if w { descriptors.next() } else { None });
        let container = self.pod.container(id)?;
        if container.phase == Phase::Creating || container.phase == Phase::Exited {
            container.expect(Phase::Running)?;
        }
        let input = if stdin { container.streams.input().map_err(host("dup"))? } else { None };
        container.streams.attach(stdout, stderr).map_err(host(format!("attach to container {id}")))?;
        Ok(Outcome::With(Answer::Attached, input.into_iter().collect()))
    }

    fn resize(&mut self, which: &Terminal, columns: u16, rows: u16) -> Result<Outcome, Failure> {
        let master = match which {
            Terminal::Container(id) => self.pod.container(id)?.streams.terminal.as_ref(),
            Terminal::Exec(id) => self.pod.exec(id)?.terminal.as_ref(),
        };
        let master =
            master.ok_or_else(|| wrong_state("the process", "without a terminal", "one with a terminal"))?;
        terminal::resize(master.as_fd(), columns, rows).map_err(host("resize the terminal"))?;
        DONE
    }

    fn delete(&mut self, id: &ContainerId, to: ReplyTo) -> Result<Outcome, Failure> {
        let cgroups = self.cgroups()?;
        let dir = self.dir.clone();
        let Ok(container) = self.pod.container(id) else { return DONE };
        if container.removing || !matches!(container.phase, Phase::Created | Phase::Exited) {
            let state = if container.removing { "being removed" } else { container.phase.name() };
            return Err(wrong_state(format!("container {id}"), state, "exited, or never started"));
        }
        let group = container.cgroup.clone();
        // Mostly nothing is in it any more, and no worker has to be made. What goes wrong here is the worker's to report.
        if cgroups.remove_empty(&group).unwrap_or_default() {
            remove::forget(&dir, id.as_str());
            self.drop_container(id);
            return DONE;
        }
        if let Ok(container) = self.pod.container(id) {
            container.removing = true;
        }
        let employed = self.work(Kind::Remove(id.clone()), Some(to), &[], |reporter| {
            remove::container(reporter, &cgroups, &dir, (id.as_str(), &group))
        });
        if employed.is_err()
            && let Ok(container) = self.pod.container(id)
        {
            container.removing = false;
        }
        employed.map(|_| Outcome::Later)
    }

    fn shut_down(&mut self, to: ReplyTo) -> Result<Outcome, Failure> {
        let cgroups = self.cgroups()?;
        let dir = self.dir.clone();
        let mut groups: Vec<String> = self.pod.containers.iter().map(|c| c.cgroup.clone()).collect();
        groups.extend(self.pod.infra_cgroup.clone());
        self.work(Kind::Shutdown, Some(to), &[], |reporter| remove::pod(reporter, &cgroups, &dir, &groups))?;
        Ok(Outcome::Later)
    }
}

fn container(wanted: &Create) -> Result<Container, Failure> {
    Ok(Container {
        id: wanted.container.clone(),
        phase: Phase::Creating,
        pid: None,
        pidfd: None,
        number: 0,
        own_pids: false,
        in_userns: wanted.user.is_some(),
        cgroup: cgroup_path(&wanted.cgroup)?,
        job: None,
        streams: Streams::default(),
        started_at: None,
        exit: None,
        systemd: wanted.cgroup.systemd,
        kills: Kills::default(),
        removing: false,
        lingering: Vec::new(),
    })
}

fn wrong_state(what: impl Into<String>, state: &str, needed: &str) -> Failure {
    Failure::WrongState { what: what.into(), state: state.into(), needed: needed.into() }
}

fn mismatch() -> Failure {
    failed("read the request")("a worker finds another one than the loop")
}
