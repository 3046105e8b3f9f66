//! The receiving side of a connection: bytes into a buffer, whatever they are wrapped in.

use std::{io, sync::Arc};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::liveness::{Activity, Hangup};

/// Bytes of room made before a read: a few frames of every client in one system call.
const READ: usize = 256 * 1024;

/// A socket's reading half, of plain TCP or TLS.
pub(crate) type BoxRead = Box<dyn AsyncRead + Send + Sync + Unpin>;

/// Where a session's bytes come from.
pub(crate) enum Source {
    /// The socket itself.
    Plain(BoxRead),
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
        }
    }
}

impl Source {
    /// Reads more bytes behind those in `buffer`. `false` at the end.
    pub(crate) async fn fill(&mut self, buffer: &mut BytesMut) -> io::Result<bool> {
        match self {
            Self::Plain(socket) => Ok(read_some(socket, buffer).await? > 0),
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
