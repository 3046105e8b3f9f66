//! The daemon's side of a pod's monitor.
//!
//! [`Monitor`] is a cheap clone of one connection; calls of several tasks run at once and are told apart by their number. Nothing
//! here holds state that matters: after a crash of the daemon [`Monitor::adopt`] connects anew and [`Monitor::state`] tells all.
//! When the monitor dies every waiting call ends with [`MonitorError::Gone`] and the event receiver closes.

mod connection;
mod spawn;

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::Arc,
};

use crisp_model::{ContainerId, ExecId, ExitStatus, SandboxId, time::Timestamp};
use tokio::sync::{mpsc, oneshot};

use self::connection::Connection;
pub use self::spawn::SpawnOptions;
use crate::protocol::{
    Answer, CreateContainer, Event, Failure, Infra, Request, StartExec, StartInfra, State, Terminal,
};

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// The monitor says no.
    #[error(transparent)]
    Failure(#[from] Failure),
    /// The connection is lost: the monitor has died (or never lived, for [`Monitor::adopt`]).
    #[error("the pod's monitor is gone")]
    Gone,
    /// The monitor could not be started.
    #[error("{operation}: {source}")]
    Spawn {
        /// Operation and object.
        operation: String,
        /// The cause.
        source: io::Error,
    },
    /// The monitor said something that makes no sense.
    #[error("the pod's monitor broke the protocol: {reason}")]
    Protocol {
        /// What.
        reason: String,
    },
}

/// A process that was added to a container.
#[derive(Debug)]
pub struct Exec {
    /// In the monitor's pid namespace.
    pub pid: i32,
    /// Master of its terminal.
    pub terminal: Option<OwnedFd>,
    /// How it ended; closed without a value when the monitor is gone.
    pub exit: oneshot::Receiver<ExitStatus>,
}

/// A connection to a pod's monitor.
#[derive(Debug, Clone)]
pub struct Monitor {
    connection: Arc<Connection>,
}

impl Monitor {
    /// Starts a monitor and connects to it. The monitor outlives this process.
    pub async fn spawn(options: SpawnOptions) -> Result<(Self, mpsc::Receiver<Event>), MonitorError> {
        let stream = spawn::spawn(&options)?;
        let (connection, events) = Connection::new(stream);
        Ok((Self { connection }, events))
    }

    /// Connects to a monitor that an earlier process has started. [`MonitorError::Gone`] if none lives there.
    pub async fn adopt(
        dir: &Path,
        sandbox: &SandboxId,
    ) -> Result<(Self, mpsc::Receiver<Event>), MonitorError> {
        let (monitor, events, _state) = Self::adopt_with_state(dir, sandbox).await?;
        Ok((monitor, events))
    }

    /// As [`Monitor::adopt`], with the state that the monitor told when it was asked whose it is. What happens after that is among
    /// the events.
    pub async fn adopt_with_state(
        dir: &Path,
        sandbox: &SandboxId,
    ) -> Result<(Self, mpsc::Receiver<Event>, State), MonitorError> {
        let stream = spawn::connect(dir)?;
        let (connection, events) = Connection::new(stream);
        let monitor = Self { connection };
        let state = monitor.state().await?;
        if state.sandbox != *sandbox {
            return Err(unexpected(format!("monitor of {} in the folder of {sandbox}", state.sandbox)));
        }
        Ok((monitor, events, state))
    }

    /// Everything the monitor knows.
    pub async fn state(&self) -> Result<State, MonitorError> {
        match self.call(Request::State, vec![]).await? {
            (Answer::State(state), _) => Ok(*state),
            (other, _) => Err(unexpected(format!("{other:?} for State"))),
        }
    }

    /// Starts the infra container; once.
    pub async fn start_infra(&self, infra: StartInfra) -> Result<Infra, MonitorError> {
        match self.call(Request::StartInfra(Box::new(infra)), vec![]).await? {
            (Answer::Infra(infra), _) => Ok(infra),
            (other, _) => Err(unexpected(format!("{other:?} for StartInfra"))),
        }
    }

    /// Creates a container up to the point where its program would start; returns its pid. `seccomp`: a file with an
    /// array of `struct sock_filter`; [`CreateContainer::seccomp`] is set from it.
    pub async fn create(
        &self,
        mut create: CreateContainer,
        seccomp: Option<BorrowedFd<'_>>,
    ) -> Result<i32, MonitorError> {
        create.seccomp = seccomp.is_some();
        let descriptors = owned(seccomp)?;
        match self.call(Request::Create(Box::new(create)), descriptors).await? {
            (Answer::Created { pid }, _) => Ok(pid),
            (other, _) => Err(unexpected(format!("{other:?} for Create"))),
        }
    }

    /// Lets a created container's program start; returns since when it runs.
    pub async fn start(&self, container: &ContainerId) -> Result<Timestamp, MonitorError> {
        match self.call(Request::Start { container: container.clone() }, vec![]).await? {
            (Answer::Started { at }, _) => Ok(at),
            (other, _) => Err(unexpected(format!("{other:?} for Start"))),
        }
    }

    /// Sends a signal to the container's first process, or to all of its processes. No error if it has exited.
    pub async fn signal(&self, container: &ContainerId, signal: i32, all: bool) -> Result<(), MonitorError> {
        self.done(Request::Signal { container: container.clone(), signal, all }).await
    }

    /// Adds a process to a running container. `stdio`: those of standard input, output and error that
    /// [`StartExec::stdio`] names, in order (none for a terminal). Returns after its program has started.
    pub async fn exec(
        &self,
        mut exec: StartExec,
        stdio: Vec<OwnedFd>,
        seccomp: Option<BorrowedFd<'_>>,
    ) -> Result<Exec, MonitorError> {
        exec.seccomp = seccomp.is_some();
        let mut descriptors = stdio;
        descriptors.extend(owned(seccomp)?);
        let exit = self.connection.watch_exec(&exec.exec);
        let (answer, mut received) = self.call(Request::Exec(Box::new(exec)), descriptors).await?;
        match answer {
            Answer::ExecStarted { pid } => Ok(Exec { pid, terminal: received.pop(), exit: exit.receiver() }),
            other => Err(unexpected(format!("{other:?} for Exec"))),
        }
    }

    /// Kills all that an exec started. No error if nothing is left.
    pub async fn kill_exec(&self, exec: &ExecId) -> Result<(), MonitorError> {
        self.done(Request::KillExec { exec: exec.clone() }).await
    }

    /// Joins a client to a container's streams: the monitor copies output and errors into the pipes given, and returns
    /// a descriptor for the container's input if `stdin` (the master itself for a terminal).
    pub async fn attach(
        &self,
        container: &ContainerId,
        stdin: bool,
        stdout: Option<OwnedFd>,
        stderr: Option<OwnedFd>,
    ) -> Result<Option<OwnedFd>, MonitorError> {
        let request = Request::Attach {
            container: container.clone(),
            stdin,
            stdout: stdout.is_some(),
            stderr: stderr.is_some(),
        };
        let descriptors = stdout.into_iter().chain(stderr).collect();
        match self.call(request, descriptors).await? {
            (Answer::Attached, mut received) => Ok(received.pop()),
            (other, _) => Err(unexpected(format!("{other:?} for Attach"))),
        }
    }

    /// Closes the monitor's own end of a container's input.
    pub async fn close_stdin(&self, container: &ContainerId) -> Result<(), MonitorError> {
        self.done(Request::CloseStdin { container: container.clone() }).await
    }

    /// Sets a terminal's size.
    pub async fn resize(&self, terminal: Terminal, columns: u16, rows: u16) -> Result<(), MonitorError> {
        self.done(Request::Resize { terminal, columns, rows }).await
    }

    /// Closes the log file and opens its path anew; the new file exists when this returns.
    pub async fn reopen_log(&self, container: &ContainerId) -> Result<(), MonitorError> {
        self.done(Request::ReopenLog { container: container.clone() }).await
    }

    /// Forgets an exited (or never started) container and removes what is left of it. Idempotent.
    pub async fn delete(&self, container: &ContainerId) -> Result<(), MonitorError> {
        self.done(Request::Delete { container: container.clone() }).await
    }

    /// Kills everything in the pod and ends the monitor.
    pub async fn shutdown(&self) -> Result<(), MonitorError> {
        self.done(Request::Shutdown).await
    }

    async fn done(&self, request: Request) -> Result<(), MonitorError> {
        match self.call(request, vec![]).await? {
            (Answer::Done, _) => Ok(()),
            (other, _) => Err(unexpected(format!("{other:?} where Done belongs"))),
        }
    }

    async fn call(
        &self,
        request: Request,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(Answer, Vec<OwnedFd>), MonitorError> {
        let (result, received) = self.connection.call(request, descriptors).await?;
        Ok((result?, received))
    }
}

fn unexpected(reason: String) -> MonitorError {
    MonitorError::Protocol { reason }
}

fn owned(descriptor: Option<BorrowedFd<'_>>) -> Result<Vec<OwnedFd>, MonitorError> {
    let clone = descriptor.map(|d| d.as_fd().try_clone_to_owned()).transpose();
    let spawn = |source| MonitorError::Spawn { operation: "duplicate the seccomp program".into(), source };
    Ok(clone.map_err(spawn)?.into_iter().collect())
}
