//! A backend without containers: real local processes with pipes or a terminal, and ports of this host.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    process::Stdio,
    sync::Mutex,
};

use crisp_model::SandboxId;
use crisp_stream::{AttachRequest, Backend, ExecRequest, Outcome, Session, SessionControl, StreamError};
use futures::{FutureExt, future::BoxFuture};
use nix::{fcntl::OFlag, pty::openpty, unistd::pipe2};
use tokio::{
    process::{Child, Command},
    sync::watch,
};

/// Processes of this host. An attach starts the command that was set for the container.
#[derive(Debug, Default)]
pub struct Local {
    /// What an attach starts, by container.
    pub attached: Mutex<HashMap<String, Vec<String>>>,
    /// Sessions that are not dropped yet.
    pub live: watch::Sender<usize>,
}

struct Control {
    child: Child,
    terminal: Option<String>,
    attached: bool,
    live: watch::Sender<usize>,
}

impl Drop for Control {
    fn drop(&mut self) {
        self.live.send_modify(|live| *live -= 1);
    }
}

impl SessionControl for Control {
    fn resize(&mut self, columns: u16, rows: u16) {
        let Some(terminal) = &self.terminal else { return };
        let (columns, rows) = (columns.to_string(), rows.to_string());
        let stty = std::process::Command::new("stty")
            .args(["-F", terminal, "cols", &columns, "rows", &rows])
            .status();
        assert!(stty.is_ok_and(|status| status.success()), "stty {terminal}");
    }

    fn close_stdin(&mut self) {}

    fn wait(&mut self) -> BoxFuture<'_, Result<Outcome, StreamError>> {
        async {
            let status = self.child.wait().await.map_err(|e| StreamError::Failed(e.to_string()))?;
            if self.attached {
                return Ok(Outcome::Ended);
            }
            use std::os::unix::process::ExitStatusExt;
            Ok(Outcome::Exited(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))))
        }
        .boxed()
    }
}

struct Wanted {
    command: Vec<String>,
    tty: bool,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    attached: bool,
}

fn input(wanted: bool) -> io::Result<(Stdio, Option<OwnedFd>)> {
    if !wanted {
        return Ok((Stdio::null(), None));
    }
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    Ok((read.into(), Some(write)))
}

fn output(wanted: bool) -> io::Result<(Stdio, Option<OwnedFd>)> {
    if !wanted {
        return Ok((Stdio::null(), None));
    }
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    Ok((write.into(), Some(read)))
}

fn cloexec(fd: OwnedFd) -> io::Result<OwnedFd> {
    // `try_clone` sets it on the copy.
    fd.try_clone()
}

fn start(wanted: Wanted, live: watch::Sender<usize>) -> io::Result<Session> {
    let Some((program, arguments)) = wanted.command.split_first() else {
        return Err(io::Error::other("no command"));
    };
    if wanted.tty {
        let pty = openpty(None, None)?;
        let (master, slave) = (cloexec(pty.master)?, cloexec(pty.slave)?);
        let name = std::fs::read_link(format!("/proc/self/fd/{}", slave.as_raw_fd()))?;
        let child = Command::new("setsid")
            .args(["--ctty", "--wait", program])
            .args(arguments)
            .stdin(slave.try_clone()?)
            .stdout(slave.try_clone()?)
            .stderr(slave)
            .kill_on_drop(true)
            .spawn()?;
        live.send_modify(|live| *live += 1);
        let terminal = Some(name.display().to_string());
        let control = Box::new(Control { child, terminal, attached: wanted.attached, live });
        let stdin = if wanted.stdin { Some(master.as_fd().try_clone_to_owned()?) } else { None };
        return Ok(Session { stdin, stdout: Some(master), stderr: None, control });
    }
    let (child_in, stdin) = input(wanted.stdin)?;
    let (child_out, stdout) = output(wanted.stdout)?;
    let (child_err, stderr) = output(wanted.stderr)?;
    let child = Command::new(program)
        .args(arguments)
        .stdin(child_in)
        .stdout(child_out)
        .stderr(child_err)
        .kill_on_drop(true)
        .spawn()?;
    live.send_modify(|live| *live += 1);
    let control = Box::new(Control { child, terminal: None, attached: wanted.attached, live });
    Ok(Session { stdin, stdout, stderr, control })
}

fn refused(error: io::Error) -> StreamError {
    StreamError::Refused(error.to_string())
}

impl Backend for Local {
    fn exec(&self, request: ExecRequest) -> BoxFuture<'_, Result<Session, StreamError>> {
        let ExecRequest { container: _, command, tty, stdin, stdout, stderr } = request;
        async move {
            start(Wanted { command, tty, stdin, stdout, stderr, attached: false }, self.live.clone())
                .map_err(refused)
        }
        .boxed()
    }

    fn attach(&self, request: AttachRequest) -> BoxFuture<'_, Result<Session, StreamError>> {
        let AttachRequest { container, tty, stdin, stdout, stderr } = request;
        async move {
            let command =
                self.attached.lock().expect("nobody panics with it").get(container.as_str()).cloned();
            let command =
                command.ok_or_else(|| StreamError::NotFound(format!("no container {container}")))?;
            start(Wanted { command, tty, stdin, stdout, stderr, attached: true }, self.live.clone())
                .map_err(refused)
        }
        .boxed()
    }

    fn dial(&self, _sandbox: SandboxId, port: u16) -> BoxFuture<'_, Result<OwnedFd, StreamError>> {
        async move {
            let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.map_err(refused)?;
            Ok(stream.into_std().map_err(refused)?.into())
        }
        .boxed()
    }
}
