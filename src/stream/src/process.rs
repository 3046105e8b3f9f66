//! exec and attach: moves bytes between a client's streams and a process, and tells the client how it ended.
//!
//! The pumps are tasks of their own, one a stream, and own their descriptor; they die with the future of [`serve`],
//! which the connection drops when the client goes. The process's control goes with them, and the backend decides
//! what becomes of the process.

use std::{
    future::pending,
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::Arc,
};

use bytes::{Buf, BytesMut};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::pipe,
    task::JoinSet,
};

use crate::{
    backend::{Backend, Outcome, Session, SessionControl, StreamError},
    channel::{Input, Output},
    inbox::{End, Next},
    negotiate::Version,
    outlet::CHUNK,
    resize::Sizes,
    status::Verdict,
    token::Ticket,
};

/// What we ask the kernel to buffer in a pipe; fewer wake-ups a MiB. It may say no.
const PIPE: i32 = 256 * 1024;

/// A client's streams.
#[derive(Debug)]
pub(crate) struct Channels {
    pub(crate) stdin: Option<Input>,
    pub(crate) stdout: Option<Output>,
    pub(crate) stderr: Option<Output>,
    pub(crate) resize: Option<Input>,
    pub(crate) error: Output,
    pub(crate) version: Version,
}

/// Runs the request to its end and tells the client. Dropped when the client goes first.
pub(crate) async fn serve(mut channels: Channels, ticket: Ticket, backend: Arc<dyn Backend>) {
    let (what, session) = match ticket {
        Ticket::Exec(request) => ("error executing command in container", backend.exec(request).await),
        Ticket::Attach(request) => ("error attaching to container", backend.attach(request).await),
        Ticket::PortForward(_) => return,
    };
    let result = match session {
        Ok(session) => run(session, &mut channels).await,
        Err(error) => Err(error),
    };
    let verdict = match result {
        Ok(Outcome::Ended | Outcome::Exited(0)) => Verdict::Success,
        Ok(Outcome::Exited(code)) => Verdict::Exit(code),
        Err(error) => Verdict::Failure(what, error),
    };
    // A failed send means that the client has gone, which ends everything anyway.
    for output in [&channels.stdout, &channels.stderr].into_iter().flatten() {
        output.finish().await;
    }
    let text = verdict.encode(channels.version);
    if !text.is_empty() {
        let _ = channels.error.send(text).await;
    }
    channels.error.finish().await;
    for input in [&channels.stdin, &channels.resize].into_iter().flatten() {
        input.give_up().await;
    }
}

async fn run(session: Session, channels: &mut Channels) -> Result<Outcome, StreamError> {
    let Session { stdin, stdout, stderr, mut control } = session;
    let broken = |error: io::Error| StreamError::Failed(format!("stream of the process: {error}"));
    let mut outputs = JoinSet::new();
    for (fd, output) in [(stdout, channels.stdout.take()), (stderr, channels.stderr.take())] {
        match (fd, output) {
            (Some(fd), Some(output)) => {
                let pipe = receiver(fd).map_err(broken)?;
                outputs.spawn(pump_out(pipe, output));
            }
            (_, Some(output)) => output.finish().await,
            (_, None) => {}
        }
    }
    let mut inputs = JoinSet::new();
    match (stdin, channels.stdin.clone()) {
        (Some(fd), Some(input)) => {
            let pipe = sender(fd).map_err(broken)?;
            inputs.spawn(pump_in(pipe, input));
        }
        (_, Some(input)) => input.give_up().await,
        (_, None) => {}
    }
    watch(control.as_mut(), outputs, inputs, channels.resize.as_ref()).await
}

/// The life of a session: until the process has ended and all its output is sent.
async fn watch(
    control: &mut dyn SessionControl,
    mut outputs: JoinSet<()>,
    mut inputs: JoinSet<Option<End>>,
    resize: Option<&Input>,
) -> Result<Outcome, StreamError> {
    let mut outcome = None;
    let mut resize = resize;
    let mut sizes = Sizes::default();
    loop {
        if let Some(outcome) = outcome
            && outputs.is_empty()
        {
            return Ok(outcome);
        }
        tokio::select! {
            ended = control.wait(), if outcome.is_none() => outcome = Some(ended?),
            Some(_) = outputs.join_next() => {}
            Some(end) = inputs.join_next() => {
                if matches!(end, Ok(Some(End::Finished))) {
                    control.close_stdin();
                }
            }
            next = next_size(resize) => match next {
                Next::Chunk(chunk) => {
                    for (columns, rows) in sizes.push(&chunk) {
                        control.resize(columns, rows);
                    }
                }
                Next::End(_) => resize = None,
            }
        }
    }
}

async fn next_size(resize: Option<&Input>) -> Next {
    let Some(resize) = resize else { return pending().await };
    let next = resize.next().await;
    if let Next::Chunk(chunk) = &next {
        resize.used(chunk.len()).await;
    }
    next
}

/// How the client's data ended; `None` when the process takes no more.
async fn pump_in(mut pipe: pipe::Sender, input: Input) -> Option<End> {
    loop {
        let mut chunk = match input.next().await {
            Next::Chunk(chunk) => chunk,
            Next::End(end) => return Some(end),
        };
        let size = chunk.remaining();
        if pipe.write_all_buf(&mut chunk).await.is_err() {
            // It has closed its input or is gone. What follows is not wanted, and must not hold up other streams.
            input.give_up().await;
            return None;
        }
        input.used(size).await;
    }
}

async fn pump_out(mut pipe: pipe::Receiver, output: Output) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        match pipe.read_buf(&mut buffer).await {
            Ok(0) => break,
            // A terminal says EIO when nobody has its other end open.
            Err(_) => break,
            Ok(_) => {}
        }
        if output.send(buffer.split().freeze()).await.is_err() {
            return;
        }
    }
    output.finish().await;
}

fn receiver(fd: OwnedFd) -> io::Result<pipe::Receiver> {
    prepare(&fd)?;
    pipe::Receiver::from_owned_fd_unchecked(fd)
}

fn sender(fd: OwnedFd) -> io::Result<pipe::Sender> {
    prepare(&fd)?;
    pipe::Sender::from_owned_fd_unchecked(fd)
}

/// Non-blocking, and a larger buffer where the descriptor is a pipe and the kernel agrees.
fn prepare(fd: &OwnedFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd.as_raw_fd(), FcntlArg::F_GETFL)?);
    fcntl(fd.as_raw_fd(), FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    let _ = fcntl(fd.as_raw_fd(), FcntlArg::F_SETPIPE_SZ(PIPE));
    Ok(())
}
