//! A connection after its HTTP upgrade: the two halves of the socket, and the task that writes.

use std::{io, sync::Arc, time::Duration};

use bytes::BytesMut;
use hyper::upgrade::{Parts, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::{io::AsyncWrite, net::TcpStream, sync::mpsc, time::timeout};
use tokio_rustls::server::TlsStream;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    liveness::{Activity, Hangup},
    outlet::{self, Envelope, Packet},
    source::{Source, Wire},
};

/// How long a client may take to close its side after ours. Closing first, with unread bytes of the client, would
/// make the kernel throw away what the client has not read yet.
const LINGER: Duration = Duration::from_secs(10);

type BoxWrite = Box<dyn AsyncWrite + Send + Unpin>;

/// An upgraded connection that nothing was sent on yet.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) wire: Wire,
    pub(crate) writer: Writer,
}

/// The writing task and what goes with it.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) outlet: mpsc::Sender<Packet>,
    task: AbortOnDropHandle<io::Result<()>>,
}

impl Connection {
    /// Takes the socket out of the HTTP server's hands. `None` cannot be: it is TCP or TLS.
    pub(crate) fn new(upgraded: Upgraded, hangup: Arc<Hangup>, envelope: Envelope) -> Option<Self> {
        let (source, writer, buffer) = split(upgraded)?;
        let activity = Activity::default();
        let (outlet, packets) = mpsc::channel(outlet::QUEUE);
        let task = tokio::spawn(outlet::write_loop(packets, writer, envelope, activity.clone()));
        Some(Self {
            wire: Wire { source, buffer, hangup, activity },
            writer: Writer { outlet, task: AbortOnDropHandle::new(task) },
        })
    }
}

fn split(upgraded: Upgraded) -> Option<(Source, BoxWrite, BytesMut)> {
    match upgraded.downcast::<TokioIo<TcpStream>>() {
        Ok(Parts { io, read_buf, .. }) => {
            let (read, write) = io.into_inner().into_split();
            Some((Source::Plain(Box::new(read)), Box::new(write), BytesMut::from(read_buf)))
        }
        Err(upgraded) => {
            let Parts { io, read_buf, .. } = upgraded.downcast::<TokioIo<TlsStream<TcpStream>>>().ok()?;
            let (read, write) = tokio::io::split(io.into_inner());
            Some((Source::Plain(Box::new(read)), Box::new(write), BytesMut::from(read_buf)))
        }
    }
}

impl Writer {
    /// Sends what is queued, says that nothing follows, and waits for the client to close its side (`gone`).
    pub(crate) async fn finish(self, gone: &CancellationToken) {
        let end = async {
            let _ = self.outlet.send(Packet::End).await;
            let _ = self.task.await;
        };
        tokio::select! {
            () = end => {}
            () = gone.cancelled() => return,
        }
        let _ = timeout(LINGER, gone.cancelled()).await;
    }
}
