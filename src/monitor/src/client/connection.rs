//! One connection: a task that writes calls, a task that reads replies and events.

use std::{
    collections::HashMap,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream as StdStream,
    },
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use crisp_host::socket;
use crisp_model::{ExecId, ExitStatus};
use tokio::{
    io::Interest,
    net::UnixStream,
    sync::{mpsc, oneshot},
    task::AbortHandle,
};

use super::MonitorError;
use crate::{
    frame::{self, HEADER},
    protocol::{Answer, Call, Event, Failure, Message, Request},
};

/// Calls that may wait to be written. The socket's buffer takes them at once as a rule; a caller waits here if not.
const CALLS: usize = 16;
/// Events that the pod's owner may be behind. Containers exit once, so more than a few mean that the owner hangs; the
/// connection is then given up, and whoever adopts the monitor anew learns everything from its state.
const EVENTS: usize = 1024;

type Answered = (Result<Answer, Failure>, Vec<OwnedFd>);

#[derive(Debug, Default)]
struct Waiting {
    /// The connection is lost.
    closed: bool,
    last: u64,
    calls: HashMap<u64, oneshot::Sender<Answered>>,
    execs: HashMap<ExecId, oneshot::Sender<ExitStatus>>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Connection {
    waiting: Mutex<Waiting>,
    writer: mpsc::Sender<(Vec<u8>, Vec<OwnedFd>)>,
    reader: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The writer ends by itself, when its channel closes.
        self.reader.abort();
    }
}

/// A place in the table of execs; it is given back if the exec does not come to run.
pub(super) struct WatchedExec<'a> {
    connection: &'a Connection,
    exec: ExecId,
    receiver: Option<oneshot::Receiver<ExitStatus>>,
}

impl WatchedExec<'_> {
    /// The exec runs.
    pub(super) fn receiver(mut self) -> oneshot::Receiver<ExitStatus> {
        self.receiver.take().expect("only this method takes it, and it consumes the place")
    }
}

impl Drop for WatchedExec<'_> {
    fn drop(&mut self) {
        if self.receiver.is_some() {
            self.connection.waiting().execs.remove(&self.exec);
        }
    }
}

/// A place in the table of calls; it is given back if the caller goes away.
struct WaitingCall<'a> {
    connection: &'a Connection,
    seq: u64,
}

impl Drop for WaitingCall<'_> {
    fn drop(&mut self) {
        self.connection.waiting().calls.remove(&self.seq);
    }
}

impl Connection {
    pub(super) fn new(stream: StdStream) -> (Arc<Self>, mpsc::Receiver<Event>) {
        let (writer, calls) = mpsc::channel(CALLS);
        let (events, receiver) = mpsc::channel(EVENTS);
        let connection = Arc::new_cyclic(|weak: &Weak<Self>| {
            let weak = weak.clone();
            let reader = tokio::spawn(run(stream, weak, calls, events)).abort_handle();
            Self { waiting: Mutex::default(), writer, reader }
        });
        (connection, receiver)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn watch_exec(&self, exec: &ExecId) -> WatchedExec<'_> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.waiting();
        if !waiting.closed {
            waiting.execs.insert(exec.clone(), sender);
        }
        WatchedExec { connection: self, exec: exec.clone(), receiver: Some(receiver) }
    }

    pub(super) async fn call(
        &self,
        request: Request,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Answered, MonitorError> {
        let (sender, receiver) = oneshot::channel();
        let seq = {
            let mut waiting = self.waiting();
            if waiting.closed {
                return Err(MonitorError::Gone);
            }
            waiting.last += 1;
            let seq = waiting.last;
            waiting.calls.insert(seq, sender);
            seq
        };
        let _place = WaitingCall { connection: self, seq };
        let bytes = frame::encode(&Call { seq, request })
            .map_err(|e| MonitorError::Protocol { reason: e.to_string() })?;
        self.writer.send((bytes, descriptors)).await.map_err(|_| MonitorError::Gone)?;
        receiver.await.map_err(|_| MonitorError::Gone)
    }

    fn route(
        &self,
        message: Message,
        descriptors: Vec<OwnedFd>,
        events: &mpsc::Sender<Event>,
    ) -> io::Result<()> {
        match message {
            Message::Reply(reply) => {
                if let Some(waiting) = self.waiting().calls.remove(&reply.seq) {
                    let _ = waiting.send((reply.result, descriptors));
                }
            }
            Message::Event(Event::ExecExited { exec, status }) => {
                if let Some(waiting) = self.waiting().execs.remove(&exec) {
                    let _ = waiting.send(status);
                }
            }
            Message::Event(event) => match events.try_send(event) {
                Err(mpsc::error::TrySendError::Full(_)) => {
                    return Err(io::Error::other("the events of the pod are not taken"));
                }
                // A caller may have no use for events.
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
            },
        }
        Ok(())
    }

    fn close(&self) {
        let mut waiting = self.waiting();
        waiting.closed = true;
        waiting.calls.clear();
        waiting.execs.clear();
    }
}

async fn run(
    stream: StdStream,
    connection: Weak<Connection>,
    mut calls: mpsc::Receiver<(Vec<u8>, Vec<OwnedFd>)>,
    events: mpsc::Sender<Event>,
) {
    let result = async {
        stream.set_nonblocking(true)?;
        let stream = UnixStream::from_std(stream)?;
        tokio::select! {
            r = write_calls(&stream, &mut calls) => r,
            r = read_messages(&stream, &connection, &events) => r,
        }
    }
    .await;
    if let Err(error) = result {
        tracing::debug!(%error, "connection to a monitor ended");
    }
    if let Some(connection) = connection.upgrade() {
        connection.close();
    }
}

async fn write_calls(
    stream: &UnixStream,
    calls: &mut mpsc::Receiver<(Vec<u8>, Vec<OwnedFd>)>,
) -> io::Result<()> {
    while let Some((bytes, descriptors)) = calls.recv().await {
        let mut attached: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let sent =
                stream.async_io(Interest::WRITABLE, || socket::send(stream.as_fd(), rest, &attached)).await?;
            attached.clear();
            rest = &rest[sent..];
        }
    }
    Ok(())
}

async fn read_messages(
    stream: &UnixStream,
    connection: &Weak<Connection>,
    events: &mpsc::Sender<Event>,
) -> io::Result<()> {
    loop {
        let mut header = [0; HEADER];
        let descriptors = read_exact(stream, &mut header).await?;
        let length = frame::length(header).map_err(io::Error::other)?;
        let mut body = vec![0; length];
        read_exact(stream, &mut body).await?;
        let message: Message = frame::decode(&body).map_err(io::Error::other)?;
        let Some(connection) = connection.upgrade() else { return Ok(()) };
        connection.route(message, descriptors, events)?;
    }
}

async fn read_exact(stream: &UnixStream, buffer: &mut [u8]) -> io::Result<Vec<OwnedFd>> {
    let (mut done, mut descriptors) = (0, Vec::new());
    while done < buffer.len() {
        let rest = &mut buffer[done..];
        let (n, more) = stream.async_io(Interest::READABLE, || socket::receive(stream.as_fd(), rest)).await?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        descriptors.extend(more);
        done += n;
    }
    Ok(descriptors)
}
