//! ExecSync: a command in a running container, its output and its exit code.
//!
//! No owner is asked: an exec changes nothing of the pod. The output comes straight from the process by pipes that end here;
//! the monitor only says how it ended.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use crisp_model::{ContainerState, ExecId, ExitStatus};
use crisp_monitor::{
    client::{Exec, Monitor},
    protocol::StartExec,
};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::{net::unix::pipe, time::Instant};

use crate::{error::PodError, record::ContainerRecord, registry::Pods};

/// Bytes of one read.
const CHUNK: usize = 16 << 10;

/// What an ExecSync brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutput {
    /// Exit code; 128 + signal for a killed process.
    pub code: i32,
    /// Standard output, the first [`crate::PodsConfig::exec_output_limit`] bytes of it.
    pub stdout: Vec<u8>,
    /// Standard error, likewise.
    pub stderr: Vec<u8>,
}

/// A running container and the way to it.
pub(crate) struct Target {
    pub monitor: Monitor,
    pub record: Arc<ContainerRecord>,
    pub seccomp: Option<OwnedFd>,
}

impl Pods {
    /// Finds a running container for an exec or an attach.
    pub(crate) async fn target(&self, container: &str) -> Result<Target, PodError> {
        let (pod, id) = self.find_container(container)?;
        let seen = pod.view();
        let view = seen.containers.get(&id).ok_or_else(|| PodError::not_found("container", &id))?;
        if view.state != ContainerState::Running {
            return Err(PodError::WrongState {
                what: format!("container {id}"),
                state: format!("{:?}", view.state),
                needed: "a running container",
            });
        }
        let monitor = seen.monitor.clone().ok_or_else(|| PodError::Unavailable {
            what: format!("the monitor of sandbox {}", pod.id),
            reason: "it is not connected".into(),
        })?;
        let record = seen.records.get(&id).cloned().ok_or_else(|| PodError::not_found("container", &id))?;
        let seccomp = match &record.seccomp {
            Some(file) => {
                let open = std::fs::File::open(file);
                Some(open.map_err(|e| PodError::host(format!("open {}", file.display()), e))?.into())
            }
            None => None,
        };
        Ok(Target { monitor, record, seccomp })
    }

    /// Runs `command` in a container and waits for it. `timeout` zero: no limit. What is still running at the timeout, or
    /// when the caller goes away, is killed with all that it started.
    pub async fn exec_sync(
        &self,
        container: &str,
        command: Vec<String>,
        timeout: Duration,
    ) -> Result<ExecOutput, PodError> {
        let target = self.target(container).await?;
        let process = crisp_spec::exec(&target.record.process, command, false)?;
        let (stdout, stdout_end) = pipe()?;
        let (stderr, stderr_end) = pipe()?;
        let exec = ExecId::random();
        let start = StartExec {
            exec: exec.clone(),
            container: target.record.id.clone(),
            process,
            stdio: [false, true, true],
            seccomp: target.seccomp.is_some(),
        };
        let seccomp = target.seccomp.as_ref().map(AsFd::as_fd);
        // From here on the process may exist: whatever ends this future, it must not stay.
        let mut guard = KillOnDrop { monitor: Some(target.monitor.clone()), exec };
        let running = target.monitor.exec(start, vec![stdout_end, stderr_end], seccomp).await?;
        let limit = self.context.config.exec_output_limit;
        let work = collect(running, stdout, stderr, limit);
        let result = match timeout {
            Duration::ZERO => Some(work.await),
            limit => tokio::time::timeout_at(Instant::now() + limit, work).await.ok(),
        };
        match result {
            Some(result) => {
                guard.monitor = None;
                result
            }
            None => {
                guard.kill().await;
                Err(PodError::ExecTimeout { seconds: timeout.as_secs() })
            }
        }
    }
}

struct KillOnDrop {
    monitor: Option<Monitor>,
    exec: ExecId,
}

impl KillOnDrop {
    async fn kill(&mut self) {
        if let Some(monitor) = self.monitor.take()
            && let Err(error) = monitor.kill_exec(&self.exec).await
        {
            tracing::warn!(exec = %self.exec, %error, "kill an exec that ran out of time");
        }
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(monitor) = self.monitor.take() {
            let exec = self.exec.clone();
            tokio::spawn(async move { monitor.kill_exec(&exec).await });
        }
    }
}

fn pipe() -> Result<(pipe::Receiver, OwnedFd), PodError> {
    let failed = |e: io::Error| PodError::host("make a pipe", e);
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|e| failed(e.into()))?;
    // Only our end does not block: the process's own must, as every program expects.
    Ok((pipe::Receiver::from_owned_fd(read).map_err(failed)?, write))
}

/// Reads both streams until the process has ended and the pipes hold nothing more. A child that it left behind may keep
/// the pipes open: it is not waited for.
async fn collect(
    exec: Exec,
    stdout: pipe::Receiver,
    stderr: pipe::Receiver,
    limit: usize,
) -> Result<ExecOutput, PodError> {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let status = {
        let reading = async {
            tokio::join!(fill(&stdout, &mut out, limit), fill(&stderr, &mut err, limit));
            std::future::pending::<()>().await
        };
        tokio::select! {
            status = exec.exit => status,
            () = reading => unreachable!("it never ends"),
        }
    };
    let status: ExitStatus = status.map_err(|_| PodError::Unavailable {
        what: "the pod's monitor".into(),
        reason: "it died while the command ran".into(),
    })?;
    drain(&stdout, &mut out, limit);
    drain(&stderr, &mut err, limit);
    Ok(ExecOutput { code: status.code, stdout: out, stderr: err })
}

/// Reads until end-of-file.
async fn fill(pipe: &pipe::Receiver, into: &mut Vec<u8>, limit: usize) {
    while pipe.readable().await.is_ok() {
        match read_some(pipe, into, limit) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

/// Reads what is there, and not what is still being written: a child that was left behind may go on for ever. By `read` itself, because
/// the runtime takes a pipe of whose data it has not heard yet for an empty one.
fn drain(pipe: &pipe::Receiver, into: &mut Vec<u8>, limit: usize) {
    let size = fcntl(pipe.as_raw_fd(), FcntlArg::F_GETPIPE_SZ).unwrap_or_default();
    let mut rest = usize::try_from(size).unwrap_or_default();
    let mut buffer = [0; CHUNK];
    while rest > 0 {
        match nix::unistd::read(pipe.as_raw_fd(), &mut buffer) {
            Err(nix::errno::Errno::EINTR) => {}
            Ok(0) | Err(_) => return,
            Ok(count) => {
                keep(&buffer[..count], into, limit);
                rest = rest.saturating_sub(count);
            }
        }
    }
}

/// One read.
fn read_some(pipe: &pipe::Receiver, into: &mut Vec<u8>, limit: usize) -> io::Result<usize> {
    let mut buffer = [0; CHUNK];
    let count = pipe.try_read(&mut buffer)?;
    keep(&buffer[..count], into, limit);
    Ok(count)
}

/// What is over the limit is dropped: the process must not block because of it.
fn keep(bytes: &[u8], into: &mut Vec<u8>, limit: usize) {
    let room = limit.saturating_sub(into.len()).min(bytes.len());
    into.extend_from_slice(&bytes[..room]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_nobody_was_told_of_yet_is_read_too() {
        let (pipe, end) = pipe().expect("a pipe");
        let mut out = Vec::new();
        drain(&pipe, &mut out, 10);
        // The test has one thread and does not wait: no news of this come before the read.
        nix::unistd::write(&end, b"0123456789abc").expect("write");
        drain(&pipe, &mut out, 10);
        assert_eq!(out, b"0123456789");
    }
}
