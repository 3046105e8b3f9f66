//! The receiving side of a connection: bytes into a buffer, whatever they are wrapped in.

use std::{io, sync::Arc};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

use tokio::sync::mpsc;

use crate::{
    liveness::{Activity, Hangup},
    outlet::Packet,
    websocket::frame::{self, Decoder, Event},
};

/// Bytes of room made before a read: a few frames of every client in one system call.
const READ: usize = 256 * 1024;

/// A socket's reading half, of plain TCP or TLS.
pub(crate) type BoxRead = Box<dyn AsyncRead + Send + Sync + Unpin>;

/// Where a session's bytes come from.
pub(crate) enum Source {
    /// The socket itself.
    Plain(BoxRead),
    /// Binary WebSocket messages, whose borders mean nothing.
    Tunnel(Box<Tunnel>),
}

/// A connection inside WebSocket messages.
pub(crate) struct Tunnel {
    socket: BoxRead,
    /// Bytes of the socket that are not unwrapped yet.
    raw: BytesMut,
    decoder: Decoder,
    /// For the answers to pings.
    outlet: mpsc::Sender<Packet>,
}

/// The receiving side of one connection.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) source: Source,
    /// What was read already, behind the HTTP request.
    pub(crate) buffer: BytesMut,
    pub(crate) hangup: Arc<Hangup>,
    pub(crate) activity: Activity,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plain(_) => f.write_str("Plain"),
            Self::Tunnel(_) => f.write_str("Tunnel"),
        }
    }
}

impl Source {
    /// Reads more bytes behind those in `buffer`. `false` at the end.
    pub(crate) async fn fill(&mut self, buffer: &mut BytesMut) -> io::Result<bool> {
        match self {
            Self::Plain(socket) => Ok(read_some(socket, buffer).await? > 0),
            Self::Tunnel(tunnel) => tunnel.fill(buffer).await,
        }
    }
}

impl Wire {
    /// The same connection, inside WebSocket messages.
    pub(crate) fn tunnelled(mut self, outlet: mpsc::Sender<Packet>) -> Self {
        let raw = std::mem::take(&mut self.buffer);
        self.source = match self.source {
            Source::Plain(socket) => {
                Source::Tunnel(Box::new(Tunnel { socket, raw, decoder: Decoder::default(), outlet }))
            }
            tunnel @ Source::Tunnel(_) => tunnel,
        };
        self
    }
}

impl Tunnel {
    async fn fill(&mut self, buffer: &mut BytesMut) -> io::Result<bool> {
        let before = buffer.len();
        loop {
            while let Some(event) = self.decoder.next(&mut self.raw).map_err(io::Error::other)? {
                match event {
                    Event::Data { payload, .. } => buffer.extend_from_slice(&payload),
                    // A peer that asks faster than it reads gets no answer to some of its questions.
                    Event::Ping(payload) => drop(self.outlet.try_send(Packet::Raw(frame::pong(&payload)))),
                    Event::Pong => {}
                    Event::Close(_) => return Ok(false),
                }
            }
            if buffer.len() > before {
                return Ok(true);
            }
            if read_some(&mut self.socket, &mut self.raw).await? == 0 {
                return Ok(false);
            }
        }
    }
}

/// One read with much room. The memory of chunks that were used is used again.
pub(crate) async fn read_some(socket: &mut BoxRead, buffer: &mut BytesMut) -> io::Result<usize> {
    if buffer.capacity() - buffer.len() < READ / 4 {
        buffer.reserve(READ);
    }
    socket.read_buf(buffer).await
}
