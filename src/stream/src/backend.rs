//! What the streams act on: the interface that the pods implement.

use std::{fmt, os::fd::OwnedFd};

use crisp_model::{ContainerId, SandboxId};
use futures::future::BoxFuture;

/// A process to be started in a running container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecRequest {
    /// The container.
    pub container: ContainerId,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Whether the process gets a terminal.
    pub tty: bool,
    /// Whether the client sends the standard input.
    pub stdin: bool,
    /// Whether the client wants the standard output.
    pub stdout: bool,
    /// Whether the client wants the standard error. Not with a terminal, which has one output.
    pub stderr: bool,
}

/// A wish to see and feed a container's own process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachRequest {
    /// The container.
    pub container: ContainerId,
    /// Whether the container has a terminal.
    pub tty: bool,
    /// Whether the client sends the standard input.
    pub stdin: bool,
    /// Whether the client wants the standard output.
    pub stdout: bool,
    /// Whether the client wants the standard error. Not with a terminal, which has one output.
    pub stderr: bool,
}

/// Ports of a sandbox to be reached. Without ports, any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortForwardRequest {
    /// The sandbox.
    pub sandbox: SandboxId,
    /// The ports that the client named when it asked for the address.
    pub ports: Vec<u16>,
}

/// Why a stream cannot be served. The text goes to the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The container, the sandbox or the program does not exist.
    #[error("{0}")]
    NotFound(String),
    /// It exists, but is not in a state for this.
    #[error("{0}")]
    NotRunning(String),
    /// Nobody listens on the port, or the process cannot be started.
    #[error("{0}")]
    Refused(String),
    /// The host or the monitor failed.
    #[error("{0}")]
    Failed(String),
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The process of an exec ended with this code (128 + the number of a signal that killed it).
    Exited(i32),
    /// An attached container ended, or detached the client.
    Ended,
}

/// A process, or an attached container, and its streams.
///
/// The descriptors are made non-blocking and polled: pipes, sockets and terminals, no files and no /dev/null. After the
/// process has ended its output is read to the end, so a child that keeps the output open keeps the session: as with
/// the other runtimes.
pub struct Session {
    /// Where the client's input goes: a pipe, a socket or a terminal's master. `None` if none was asked for.
    pub stdin: Option<OwnedFd>,
    /// Where the output comes from; with a terminal a duplicate of the same master.
    pub stdout: Option<OwnedFd>,
    /// Where the errors come from.
    pub stderr: Option<OwnedFd>,
    /// The process itself. Dropped when the session is over or the client has gone.
    pub control: Box<dyn SessionControl>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stdin, stdout, stderr, control: _ } = self;
        f.debug_struct("Session")
            .field("stdin", stdin)
            .field("stdout", stdout)
            .field("stderr", stderr)
            .finish()
    }
}

/// What can be done to a session beside moving its bytes. Dropping it says that the client has gone.
pub trait SessionControl: Send {
    /// The client's window has a new size, in characters.
    fn resize(&mut self, columns: u16, rows: u16);

    /// The client sends no more input. Our descriptor of it is closed already.
    fn close_stdin(&mut self);

    /// Waits for the end. The future is dropped and made anew whenever something else is to be done, so no outcome
    /// may be lost with it.
    fn wait(&mut self) -> BoxFuture<'_, Result<Outcome, StreamError>>;
}

/// The pods, as the streams see them. Futures are dropped when the client goes away while they run.
pub trait Backend: Send + Sync + 'static {
    /// Starts a process in a container.
    fn exec(&self, request: ExecRequest) -> BoxFuture<'_, Result<Session, StreamError>>;

    /// Joins the streams of a container's own process.
    fn attach(&self, request: AttachRequest) -> BoxFuture<'_, Result<Session, StreamError>>;

    /// A TCP connection to a port, made inside the pod's network namespace.
    fn dial(&self, sandbox: SandboxId, port: u16) -> BoxFuture<'_, Result<OwnedFd, StreamError>>;
}
