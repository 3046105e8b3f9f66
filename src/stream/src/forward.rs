//! port-forward: each connection of the client is a pair of streams, `data` and `error`, with the same request id.
//!
//! Every pair has a task and a socket of its own, so that a refused or reset connection concerns nobody else. The
//! error stream carries text only when a connection could not be made: clients of client-go close everything when
//! they read a text. A connection that breaks later ends in a reset of its data stream.

use std::{collections::HashMap, io, os::fd::OwnedFd, sync::Arc, time::Duration};

use bytes::BytesMut;
use crisp_model::SandboxId;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    task::JoinSet,
    time::Instant,
};

use crate::{
    backend::{Backend, StreamError},
    inbox::{End, Next},
    outlet::CHUNK,
    spdy::{frame::Reset, headers::Headers, stream::Stream},
};

/// A connection to a pod that does not come about.
const DIAL: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Data,
    Error,
}

fn kind(headers: &Headers) -> Option<Kind> {
    match headers.get("streamtype") {
        Some("data") => Some(Kind::Data),
        Some("error") => Some(Kind::Error),
        _ => None,
    }
}

fn port(headers: &Headers) -> Option<u16> {
    headers.get("port")?.parse().ok().filter(|port| *port > 0)
}

/// A stream is welcome when it says what it is and which port it is for.
pub(crate) fn accept(headers: &Headers) -> Result<(), Reset> {
    match (kind(headers), port(headers)) {
        (Some(_), Some(_)) => Ok(()),
        _ => Err(Reset::Protocol),
    }
}

/// What belongs together. Clients from before there were ids open the error stream first and the data stream next.
fn pair_of(headers: &Headers, kind: Kind, stream: u32) -> String {
    match (headers.get("requestid"), kind) {
        (Some(id), _) if !id.is_empty() => id.to_owned(),
        (_, Kind::Error) => stream.to_string(),
        (_, Kind::Data) => stream.saturating_sub(2).to_string(),
    }
}

struct Waiting {
    kind: Kind,
    stream: Arc<Stream>,
    since: Instant,
}

/// The connections of one session.
pub(crate) struct Forwarder {
    backend: Arc<dyn Backend>,
    sandbox: SandboxId,
    creation: Duration,
    waiting: HashMap<String, Waiting>,
    connections: JoinSet<()>,
}

impl Forwarder {
    pub(crate) fn new(backend: Arc<dyn Backend>, sandbox: SandboxId, creation: Duration) -> Self {
        Self { backend, sandbox, creation, waiting: HashMap::new(), connections: JoinSet::new() }
    }

    /// Serves the streams that the client opens, until there are no more.
    pub(crate) async fn run(mut self, mut opened: mpsc::Receiver<Arc<Stream>>) {
        loop {
            let oldest = self.waiting.values().map(|waiting| waiting.since).min();
            let due = oldest.map_or_else(|| Instant::now() + self.creation, |since| since + self.creation);
            tokio::select! {
                stream = opened.recv() => match stream {
                    Some(stream) => self.add(stream).await,
                    None => break,
                },
                Some(_) = self.connections.join_next() => {}
                () = tokio::time::sleep_until(due) => self.expire().await,
            }
        }
        while self.connections.join_next().await.is_some() {}
    }

    async fn add(&mut self, stream: Arc<Stream>) {
        let (Some(kind), Some(port)) = (kind(&stream.headers), port(&stream.headers)) else {
            return stream.reset(Reset::Protocol).await;
        };
        let id = pair_of(&stream.headers, kind, stream.id);
        let Some(other) = self.waiting.remove(&id) else {
            self.waiting.insert(id, Waiting { kind, stream, since: Instant::now() });
            return;
        };
        if other.kind == kind {
            self.waiting.insert(id, other);
            return stream.reset(Reset::Protocol).await;
        }
        let (data, error) = if kind == Kind::Data { (stream, other.stream) } else { (other.stream, stream) };
        let backend = Arc::clone(&self.backend);
        let sandbox = self.sandbox.clone();
        self.connections.spawn(async move { connect(backend, sandbox, port, data, error).await });
    }

    /// A stream whose partner does not come.
    async fn expire(&mut self) {
        let now = Instant::now();
        let limit = self.creation;
        let late: Vec<_> = self.waiting.extract_if(|_, waiting| waiting.since + limit <= now).collect();
        for (_, Waiting { stream, .. }) in late {
            stream.reset(Reset::Cancel).await;
        }
    }
}

async fn connect(
    backend: Arc<dyn Backend>,
    sandbox: SandboxId,
    port: u16,
    data: Arc<Stream>,
    error: Arc<Stream>,
) {
    // The client sends nothing on it; what it sends all the same must not pile up.
    error.inbox.discard();
    let dialled = tokio::time::timeout(DIAL, backend.dial(sandbox.clone(), port)).await;
    let socket = match dialled {
        Err(_) => Err(StreamError::Refused(format!("no connection after {} s", DIAL.as_secs()))),
        Ok(Ok(fd)) => tcp(fd).map_err(|e| StreamError::Failed(e.to_string())),
        Ok(Err(error)) => Err(error),
    };
    match socket {
        Ok(socket) => relay(socket, &data).await,
        Err(reason) => {
            let text = format!("error forwarding port {port} to pod {sandbox}: {reason}");
            let _ = error.send(text.into()).await;
            data.reset(Reset::Cancel).await;
        }
    }
    error.finish().await;
}

fn tcp(fd: OwnedFd) -> io::Result<TcpStream> {
    let stream = std::net::TcpStream::from(fd);
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    TcpStream::from_std(stream)
}

/// Both directions at once, each to its own end. A direction that breaks ends the other.
async fn relay(socket: TcpStream, data: &Stream) {
    let (mut read, mut write) = socket.into_split();
    let result = tokio::try_join!(upload(&mut write, data), download(&mut read, data));
    // The pod's side first: telling the client may take as long as the client likes.
    drop((read, write));
    if result.is_err() {
        data.reset(Reset::Cancel).await;
    }
}

#[derive(Debug)]
struct Broken;

async fn upload(write: &mut OwnedWriteHalf, data: &Stream) -> Result<(), Broken> {
    loop {
        match data.next().await {
            Next::Chunk(mut chunk) => {
                let size = chunk.len();
                write.write_all_buf(&mut chunk).await.map_err(|_| Broken)?;
                data.used(size).await;
            }
            Next::End(End::Finished) => return write.shutdown().await.map_err(|_| Broken),
            Next::End(End::Reset) => return Err(Broken),
        }
    }
}

async fn download(read: &mut OwnedReadHalf, data: &Stream) -> Result<(), Broken> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        if read.read_buf(&mut buffer).await.map_err(|_| Broken)? == 0 {
            data.finish().await;
            return Ok(());
        }
        data.send(buffer.split().freeze()).await.map_err(|_| Broken)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> Headers {
        Headers::new(pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())))
    }

    #[test]
    fn which_streams_are_welcome() {
        for (pairs, welcome) in [
            (&[("streamType", "data"), ("port", "80")][..], true),
            (&[("streamtype", "error"), ("port", "65535"), ("requestid", "7")], true),
            (&[("streamtype", "data"), ("port", "0")], false),
            (&[("streamtype", "data"), ("port", "65536")], false),
            (&[("streamtype", "data"), ("port", "http")], false),
            (&[("streamtype", "stdin"), ("port", "80")], false),
            (&[("port", "80")], false),
            (&[], false),
        ] {
            assert_eq!(accept(&headers(pairs)).is_ok(), welcome, "{pairs:?}");
        }
    }

    #[test]
    fn pairs() {
        let with = headers(&[("requestID", "x")]);
        assert_eq!(pair_of(&with, Kind::Data, 9), "x");
        assert_eq!(pair_of(&headers(&[]), Kind::Error, 5), "5");
        assert_eq!(pair_of(&headers(&[]), Kind::Data, 7), "5");
        assert_eq!(pair_of(&headers(&[]), Kind::Data, 1), "0");
    }
}
