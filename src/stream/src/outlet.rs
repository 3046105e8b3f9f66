//! The sending side of a connection: one task owns the socket's writing half, and everybody else gives it packets
//! over a short queue. A client that reads slowly therefore stops the pumps of its own connection, and nothing else.

use std::io;

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::mpsc,
};

use crate::{liveness::Activity, websocket::frame as ws};

/// Packets that may wait for the socket. Each holds at most [`CHUNK`] bytes: half a MiB for a stuck client.
pub(crate) const QUEUE: usize = 4;

/// Bytes of process output in one packet: large enough that system calls and frame headers do not count.
pub(crate) const CHUNK: usize = 128 * 1024;

/// What one write consists of: a frame's header and its payload, which is not copied.
#[derive(Debug)]
pub(crate) enum Packet {
    /// Bytes of the inner protocol.
    Frame(Head, Bytes),
    /// Bytes that go out without an envelope: WebSocket control frames of a tunnel.
    Raw(Bytes),
    /// Nothing follows: finish the connection's sending side.
    End,
}

impl From<Bytes> for Packet {
    fn from(frame: Bytes) -> Self {
        Self::Frame(Head::default(), frame)
    }
}

/// The first bytes of a frame.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Head {
    bytes: [u8; 16],
    length: u8,
}

impl Head {
    /// A header of up to 16 bytes; longer ones are cut.
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let mut head = Self::default();
        for byte in bytes {
            head.push(*byte);
        }
        head
    }

    /// Adds a byte, if there is room.
    pub(crate) fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(usize::from(self.length)) {
            *slot = byte;
            self.length += 1;
        }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// What is put around each packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Envelope {
    /// Nothing.
    None,
    /// A binary WebSocket message; a close message ends the connection.
    WebSocket,
}

/// The packets of one connection, written until [`Packet::End`] or an error.
pub(crate) async fn write_loop<W: AsyncWrite + Unpin>(
    mut packets: mpsc::Receiver<Packet>,
    mut io: W,
    envelope: Envelope,
    activity: Activity,
) -> io::Result<()> {
    while let Some(packet) = packets.recv().await {
        match packet {
            Packet::Frame(head, body) => {
                let length = head.as_slice().len() + body.len();
                let outer = match envelope {
                    Envelope::None => Head::default(),
                    Envelope::WebSocket => ws::head(ws::Opcode::Binary, length),
                };
                let mut bytes = outer.as_slice().chain(head.as_slice()).chain(body);
                io.write_all_buf(&mut bytes).await?;
            }
            Packet::Raw(mut bytes) => io.write_all_buf(&mut bytes).await?,
            Packet::End => break,
        }
        // TLS keeps bytes back until it is told; a TCP socket does nothing here.
        if packets.is_empty() {
            io.flush().await?;
        }
        activity.touch();
    }
    if envelope == Envelope::WebSocket {
        io.write_all(&ws::close(ws::CLOSE_NORMAL)).await?;
    }
    io.flush().await?;
    io.shutdown().await
}
