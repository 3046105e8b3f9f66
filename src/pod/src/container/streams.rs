//! exec, attach and port-forward sessions: what the stream server acts on.
//!
//! Descriptors go from the monitor to the stream server; no byte passes through the pods.

use std::os::fd::{AsFd, OwnedFd};

use crisp_model::{ContainerId, ExecId, SandboxId, SandboxState};
use crisp_monitor::{
    client::{Exec, Monitor},
    protocol::{StartExec, Terminal},
};
use crisp_stream::{AttachRequest, Backend, ExecRequest, Outcome, Session, SessionControl, StreamError};
use futures::{FutureExt, future::BoxFuture};
use nix::fcntl::OFlag;
use tokio::sync::watch;

use crate::{error::PodError, registry::Pods, view::PodView};

impl From<PodError> for StreamError {
    fn from(error: PodError) -> Self {
        let text = error.to_string();
        match error {
            PodError::NotFound { .. } => StreamError::NotFound(text),
            PodError::WrongState { .. } => StreamError::NotRunning(text),
            PodError::Invalid { .. } => StreamError::Refused(text),
            _ => StreamError::Failed(text),
        }
    }
}

impl Backend for Pods {
    fn exec(&self, request: ExecRequest) -> BoxFuture<'_, Result<Session, StreamError>> {
        async move { Ok(self.open_exec(request).await?) }.boxed()
    }

    fn attach(&self, request: AttachRequest) -> BoxFuture<'_, Result<Session, StreamError>> {
        async move { Ok(self.open_attach(request).await?) }.boxed()
    }

    fn dial(&self, sandbox: SandboxId, port: u16) -> BoxFuture<'_, Result<OwnedFd, StreamError>> {
        async move { self.open_port(&sandbox, port).await }.boxed()
    }
}

type Pipe = (OwnedFd, OwnedFd);

fn pipe() -> Result<Pipe, PodError> {
    nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|e| PodError::host("make a pipe", e))
}

fn pipe_if(wanted: bool) -> Result<Option<Pipe>, PodError> {
    wanted.then(pipe).transpose()
}

impl Pods {
    async fn open_exec(&self, request: ExecRequest) -> Result<Session, PodError> {
        let target = self.target(request.container.as_str()).await?;
        let process = crisp_spec::exec(&target.record.process, request.command, request.tty)?;
        let piped = !request.tty;
        let (stdin, stdout, stderr) = (
            pipe_if(piped && request.stdin)?,
            pipe_if(piped && request.stdout)?,
            pipe_if(piped && request.stderr)?,
        );
        let exec = ExecId::random();
        let start = StartExec {
            exec: exec.clone(),
            container: target.record.id.clone(),
            process,
            stdio: [stdin.is_some(), stdout.is_some(), stderr.is_some()],
            seccomp: target.seccomp.is_some(),
        };
        let (stdin_end, stdin) = stdin.unzip();
        let (stdout, stdout_end) = stdout.unzip();
        let (stderr, stderr_end) = stderr.unzip();
        let ends = [stdin_end, stdout_end, stderr_end].into_iter().flatten().collect();
        let seccomp = target.seccomp.as_ref().map(AsFd::as_fd);
        let Exec { terminal, exit, .. } = target.monitor.exec(start, ends, seccomp).await?;
        let control = ExecControl { monitor: target.monitor, exec, exit: Some(exit), outcome: None };
        let (stdin, stdout) = match terminal {
            Some(master) => {
                let copy = master.try_clone().map_err(|e| PodError::host("duplicate a terminal", e))?;
                (request.stdin.then_some(copy), Some(master))
            }
            None => (stdin, stdout),
        };
        Ok(Session { stdin, stdout, stderr, control: Box::new(control) })
    }

    async fn open_attach(&self, request: AttachRequest) -> Result<Session, PodError> {
        let target = self.target(request.container.as_str()).await?;
        let (stdout, stderr) = (pipe_if(request.stdout)?, pipe_if(request.stderr && !request.tty)?);
        let (stdout, stdout_end) = stdout.unzip();
        let (stderr, stderr_end) = stderr.unzip();
        let config = &target.record.config;
        let wants_stdin = request.stdin && config.stdin;
        let stdin = target.monitor.attach(&target.record.id, wants_stdin, stdout_end, stderr_end).await?;
        let (pod, id) = self.find_container(request.container.as_str())?;
        let control = AttachControl {
            close_stdin: wants_stdin && config.stdin_once,
            monitor: target.monitor,
            container: id,
            view: pod.view.clone(),
        };
        Ok(Session { stdin, stdout, stderr, control: Box::new(control) })
    }

    async fn open_port(&self, sandbox: &SandboxId, port: u16) -> Result<OwnedFd, StreamError> {
        let view = self.sandbox(sandbox.as_str())?;
        if view.state != SandboxState::Ready {
            return Err(StreamError::NotRunning(format!("sandbox {sandbox} is not ready")));
        }
        let netns = self.context.netns(sandbox);
        let own = view.config.security.namespaces.network == crisp_model::security::NamespaceMode::Pod;
        // A thread of its own: it changes its network namespace and is not given back to any pool.
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let spawned = std::thread::Builder::new().name("dial".into()).stack_size(64 << 10).spawn(move || {
            let _ = sender.send(dial(own.then_some(netns.as_path()), port));
        });
        spawned.map_err(|e| StreamError::Failed(format!("start a thread: {e}")))?;
        receiver.await.map_err(|_| StreamError::Failed("the dialling thread died".into()))?
    }
}

/// How long a connect may take: it is local, so a full backlog is the only reason to wait.
const DIAL: std::time::Duration = std::time::Duration::from_secs(10);

fn dial(netns: Option<&std::path::Path>, port: u16) -> Result<OwnedFd, StreamError> {
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
    if let Some(path) = netns {
        let enter = || -> std::io::Result<()> {
            nix::sched::setns(std::fs::File::open(path)?, nix::sched::CloneFlags::CLONE_NEWNET)?;
            Ok(())
        };
        enter().map_err(|e| StreamError::Failed(format!("enter the pod's network namespace: {e}")))?;
    }
    let addresses =
        [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))];
    let mut refused = String::new();
    for address in addresses {
        match TcpStream::connect_timeout(&address, DIAL) {
            Ok(stream) => {
                let _ = stream.set_nodelay(true);
                let nonblocking = stream.set_nonblocking(true);
                nonblocking.map_err(|e| StreamError::Failed(format!("connection to port {port}: {e}")))?;
                return Ok(stream.into());
            }
            Err(error) if refused.is_empty() => refused = format!("connect to {address} in the pod: {error}"),
            Err(_) => {}
        }
    }
    Err(StreamError::Refused(refused))
}

/// An exec with streams. When the client goes its pipes or terminal close, which the process notices; it is not killed,
/// as with the other runtimes.
struct ExecControl {
    monitor: Monitor,
    exec: ExecId,
    exit: Option<tokio::sync::oneshot::Receiver<crisp_model::ExitStatus>>,
    outcome: Option<Result<Outcome, StreamError>>,
}

impl SessionControl for ExecControl {
    fn resize(&mut self, columns: u16, rows: u16) {
        resize(&self.monitor, Terminal::Exec(self.exec.clone()), columns, rows);
    }

    fn close_stdin(&mut self) {}

    fn wait(&mut self) -> BoxFuture<'_, Result<Outcome, StreamError>> {
        async move {
            if let Some(exit) = &mut self.exit {
                let ended = exit.await;
                self.exit = None;
                self.outcome = Some(match ended {
                    Ok(status) => Ok(Outcome::Exited(status.code)),
                    Err(_) => Err(StreamError::Failed("the pod's monitor died".into())),
                });
            }
            self.outcome.clone().unwrap_or(Ok(Outcome::Ended))
        }
        .boxed()
    }
}

/// An attached client.
struct AttachControl {
    monitor: Monitor,
    container: ContainerId,
    close_stdin: bool,
    view: watch::Receiver<std::sync::Arc<PodView>>,
}

impl AttachControl {
    /// The end of the first client's input is the end of a `stdin_once` container's input.
    fn end_of_input(&mut self) {
        if std::mem::take(&mut self.close_stdin) {
            let (monitor, container) = (self.monitor.clone(), self.container.clone());
            tokio::spawn(async move {
                if let Err(error) = monitor.close_stdin(&container).await {
                    tracing::debug!(%container, %error, "close the container's input");
                }
            });
        }
    }
}

impl SessionControl for AttachControl {
    fn resize(&mut self, columns: u16, rows: u16) {
        resize(&self.monitor, Terminal::Container(self.container.clone()), columns, rows);
    }

    fn close_stdin(&mut self) {
        self.end_of_input();
    }

    fn wait(&mut self) -> BoxFuture<'_, Result<Outcome, StreamError>> {
        async move {
            let id = self.container.clone();
            let over = |pod: &std::sync::Arc<PodView>| {
                pod.containers.get(&id).is_none_or(|c| c.finished_at.is_some())
            };
            let _ = self.view.wait_for(over).await;
            Ok(Outcome::Ended)
        }
        .boxed()
    }
}

impl Drop for AttachControl {
    fn drop(&mut self) {
        self.end_of_input();
    }
}

fn resize(monitor: &Monitor, terminal: Terminal, columns: u16, rows: u16) {
    let monitor = monitor.clone();
    tokio::spawn(async move {
        if let Err(error) = monitor.resize(terminal, columns, rows).await {
            tracing::debug!(%error, "resize a terminal");
        }
    });
}
