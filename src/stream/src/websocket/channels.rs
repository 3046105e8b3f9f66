//! The streams of a process as messages of one WebSocket connection: the first byte (or, in base64, the first
//! digit) of each message is the number of its channel.
//!
//! Channels: 0 stdin, 1 stdout, 2 stderr, 3 error, 4 resize (`{"Width":80,"Height":24}`), and from version 5 on 255
//! with the number of a channel that the client has finished.

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::frame::{self, Decoder, Event, FrameError, Opcode};
use crate::{
    inbox::{End, Inbox, Next},
    liveness::{Activity, Hangup},
    negotiate::{ProcessProtocol, Version},
    outlet::{CHUNK, Packet},
    source::{Source, Wire},
    spdy::stream::Gone,
};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// Bytes to one channel of the client.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    outlet: mpsc::Sender<Packet>,
    channel: u8,
    base64: bool,
}

impl Sender {
    pub(crate) async fn send(&self, mut data: Bytes) -> Result<(), Gone> {
        loop {
            let piece = data.split_to(data.len().min(CHUNK));
            self.outlet.send(self.message(piece)).await.map_err(|_| Gone)?;
            if data.is_empty() {
                return Ok(());
            }
        }
    }

    fn message(&self, data: Bytes) -> Packet {
        if self.base64 {
            let text = Bytes::from(BASE64_STANDARD.encode(&data));
            let mut head = frame::head(Opcode::Text, text.len() + 1);
            head.push(b'0' + self.channel);
            return Packet::Frame(head, text);
        }
        let mut head = frame::head(Opcode::Binary, data.len() + 1);
        head.push(self.channel);
        Packet::Frame(head, data)
    }
}

/// Bytes of one channel of the client.
#[derive(Debug, Clone)]
pub(crate) struct Receiver(Arc<Inbox>);

impl Receiver {
    pub(crate) async fn next(&self) -> Next {
        self.0.next().await
    }

    pub(crate) fn discard(&self) {
        self.0.discard();
    }
}

/// The senders of a connection.
#[derive(Debug)]
pub(crate) struct Senders {
    pub(crate) stdout: Sender,
    pub(crate) stderr: Sender,
    pub(crate) error: Sender,
}

impl Senders {
    pub(crate) fn new(outlet: &mpsc::Sender<Packet>, protocol: ProcessProtocol) -> Self {
        let sender = |channel| Sender { outlet: outlet.clone(), channel, base64: protocol.base64 };
        Self { stdout: sender(STDOUT), stderr: sender(STDERR), error: sender(ERROR) }
    }
}

/// Which part of a message is arriving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// The number of its channel is still to come.
    Number,
    /// Data of this channel.
    Channel(u8),
    /// Data of a channel that nobody reads.
    Ignored,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChannelsError {
    /// The client sent what is not WebSocket, or not base64.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A message that is not base64, although that was agreed on.
    #[error("a message is not base64")]
    Base64,
    /// The connection broke.
    #[error("connection: {0}")]
    Connection(#[from] std::io::Error),
    /// The client closed the connection.
    #[error("the client is gone")]
    Gone,
}

/// The reading side of one connection.
#[derive(Debug)]
pub(crate) struct Reader {
    source: Source,
    buffer: BytesMut,
    hangup: Arc<Hangup>,
    activity: Activity,
    outlet: mpsc::Sender<Packet>,
    protocol: ProcessProtocol,
    decoder: Decoder,
    part: Part,
    /// Digits of base64 that do not make a group of four yet.
    digits: Vec<u8>,
    stdin: Arc<Inbox>,
    resize: Arc<Inbox>,
}

impl Reader {
    /// Reads `wire`; what it has to answer goes to `outlet`. Also gives the channels for stdin and resize.
    pub(crate) fn new(
        wire: Wire,
        outlet: mpsc::Sender<Packet>,
        protocol: ProcessProtocol,
    ) -> (Self, Receiver, Receiver) {
        let (stdin, resize) = (Arc::<Inbox>::default(), Arc::<Inbox>::default());
        let reader = Self {
            source: wire.source,
            buffer: wire.buffer,
            hangup: wire.hangup,
            activity: wire.activity,
            outlet,
            protocol,
            decoder: Decoder::default(),
            part: Part::Number,
            digits: Vec::new(),
            stdin: Arc::clone(&stdin),
            resize: Arc::clone(&resize),
        };
        (reader, Receiver(stdin), Receiver(resize))
    }

    /// Serves until the client is gone or breaks the rules; then `gone` is set.
    pub(crate) async fn run(mut self, gone: CancellationToken) -> ChannelsError {
        let error = match self.serve().await {
            Err(error) => error,
            Ok(never) => match never {},
        };
        if matches!(error, ChannelsError::Frame(_) | ChannelsError::Base64) {
            let _ = self.outlet.try_send(Packet::Raw(frame::close(frame::CLOSE_PROTOCOL)));
        }
        self.stdin.end(End::Reset);
        self.resize.end(End::Reset);
        gone.cancel();
        error
    }

    async fn serve(&mut self) -> Result<std::convert::Infallible, ChannelsError> {
        loop {
            while let Some(event) = self.decoder.next(&mut self.buffer)? {
                match event {
                    Event::Data { first, payload, last, .. } => self.data(first, payload, last).await?,
                    Event::Ping(payload) => {
                        let pong = self.outlet.send(Packet::Raw(frame::pong(&payload)));
                        let sent = self.hangup.unless_gone(pong).await;
                        sent.ok_or(ChannelsError::Gone)?.map_err(|_| ChannelsError::Gone)?;
                    }
                    Event::Pong => {}
                    Event::Close(_) => return Err(ChannelsError::Gone),
                }
            }
            if !self.source.fill(&mut self.buffer).await? {
                return Err(ChannelsError::Gone);
            }
            self.activity.touch();
        }
    }

    async fn data(&mut self, first: bool, mut payload: Bytes, last: bool) -> Result<(), ChannelsError> {
        if first {
            self.part = Part::Number;
            self.digits.clear();
        }
        if self.part == Part::Number && !payload.is_empty() {
            let number = payload.split_to(1)[0];
            let number = if self.protocol.base64 { number.wrapping_sub(b'0') } else { number };
            self.part = match number {
                STDIN | RESIZE => Part::Channel(number),
                CLOSE if self.protocol.version >= Version::V5 => Part::Channel(CLOSE),
                _ => Part::Ignored,
            };
        }
        let Part::Channel(channel) = self.part else { return Ok(()) };
        let data = if self.protocol.base64 { self.unwrap_base64(&payload, last)? } else { payload };
        let inbox = match channel {
            STDIN => &self.stdin,
            RESIZE => &self.resize,
            _ => {
                self.close(&data);
                return Ok(());
            }
        };
        inbox.push(data);
        if inbox.is_full() {
            self.hangup.unless_gone(inbox.room()).await.ok_or(ChannelsError::Gone)?;
        }
        Ok(())
    }

    /// The close channel names channels that the client has finished. It writes on no other than stdin and resize.
    fn close(&self, channels: &[u8]) {
        for channel in channels {
            match *channel {
                STDIN => self.stdin.end(End::Finished),
                RESIZE => self.resize.end(End::Finished),
                _ => {}
            }
        }
    }

    fn unwrap_base64(&mut self, text: &[u8], last: bool) -> Result<Bytes, ChannelsError> {
        self.digits.extend_from_slice(text);
        let whole = if last { self.digits.len() } else { self.digits.len() / 4 * 4 };
        let data = BASE64_STANDARD.decode(&self.digits[..whole]).map_err(|_| ChannelsError::Base64)?;
        self.digits.drain(..whole);
        Ok(data.into())
    }
}
