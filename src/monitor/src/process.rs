//! The per-pod process.
//!
//! ```text
//!   start      what the process makes of itself before anything else
//!   server     the loop: epoll, and which source belongs to whom
//!   peer       connections of the daemon: frames in, frames out
//!   request    the part of a request that the loop itself reads
//!   handle     what is done for each request
//!   pod        the facts: infra container, containers, execs
//!   jobs       workers at work, and what becomes of what they report
//!   reap       exits: exit codes, records, events; `oom` counts out-of-memory kills
//!   output     the containers' streams: log, attached clients
//!   worker     the fork; `report` is what a worker tells
//!     infra, create, exec, remove   what workers do
//!     last_leg                      the last steps before execve, of inits and execs
//! ```
//!
//! Memory is the point of this shape: everything that parses much or calls libcontainer runs in a worker, whose pages go with
//! it. What the loop allocates is bounded by the number of containers and of calls in flight.
//!
//! Crash in the middle: the pod's processes live on, without anybody who reads their output; the daemon sees the connection
//! end and kills the pod. Exits that were reaped are in `DIR/exits`.

mod create;
mod exec;
mod group;
mod handle;
mod infra;
mod jobs;
mod last_leg;
mod log_file;
mod oom;
mod output;
mod pause;
mod peer;
mod pod;
mod reap;
mod remove;
mod report;
mod request;
mod rootfs;
mod server;
mod start;
mod worker;

use std::{fmt::Display, io, path::PathBuf};

use crisp_model::SandboxId;

use crate::process::server::Server;
use crisp_monitor::protocol::Failure;

/// Runs until the daemon shuts the pod down.
pub(crate) fn run(dir: PathBuf, sandbox: SandboxId) -> io::Result<()> {
    let start = start::start()?;
    Server::new(start, dir, sandbox)?.run()
}

/// A failure of the host: operation with its object, and the cause.
fn host(operation: impl Into<String>) -> impl FnOnce(io::Error) -> Failure {
    let operation = operation.into();
    move |cause| Failure::Host { operation, reason: cause.to_string() }
}

/// The same for other errors.
fn failed<E: Display>(operation: impl Into<String>) -> impl FnOnce(E) -> Failure {
    let operation = operation.into();
    move |cause| Failure::Host { operation, reason: cause.to_string() }
}

/// Something that was named does not exist or is of no use.
fn invalid(object: impl Into<String>, reason: impl Display) -> Failure {
    Failure::Invalid { object: object.into(), reason: reason.to_string() }
}
