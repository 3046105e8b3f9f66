//! A SPDY session: reads the client's frames and keeps the table of streams.
//!
//! One task reads. It answers pings and opens streams by itself, fills inboxes, and waits when one is full: see
//! [`crate::inbox`] for why nothing else would be right. Everything ends with the session's `gone` token.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::frame::{self, Decoder, Frame, FrameError, GoAway, Reset, StreamId};
use super::headers::{Deflater, HeaderError, Headers};
use super::stream::{Gone, Shared, Stream};
use crate::{
    inbox::End,
    liveness::{Activity, Hangup},
    outlet::Packet,
    source::{Source, Wire},
};

/// Streams of one session that are open at the same time. A port-forward connection needs two each.
pub(crate) const MAX_STREAMS: usize = 2048;

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    /// The peer sent what is not SPDY.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The connection broke.
    #[error("connection: {0}")]
    Connection(#[from] io::Error),
    /// The peer closed the connection, or we did.
    #[error("the peer is gone")]
    Gone,
    /// A stream of ours cannot be answered.
    #[error("header compression: {0}")]
    Compression(#[from] HeaderError),
}

impl From<Gone> for SessionError {
    fn from(Gone: Gone) -> Self {
        Self::Gone
    }
}

/// Decides whether a new stream is welcome.
pub(crate) type Accept = fn(&Headers) -> Result<(), Reset>;

/// How long a stream may keep the others waiting before it is reset, if there are others. `None` for ever.
pub(crate) type Patience = Option<Duration>;

/// The reading side of one session.
pub(crate) struct Reader {
    shared: Arc<Shared>,
    source: Source,
    buffer: BytesMut,
    hangup: Arc<Hangup>,
    activity: Activity,
    accept: Accept,
    patience: Patience,
    opened: mpsc::Sender<Arc<Stream>>,
    streams: HashMap<StreamId, Arc<Stream>>,
    prune_at: usize,
    last: StreamId,
    decoder: Decoder,
    deflater: Deflater,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("streams", &self.streams.len()).field("last", &self.last).finish()
    }
}

impl Reader {
    /// A session over `wire` that writes to `outlet`, and the queue of streams that the client opens.
    pub(crate) fn new(
        wire: Wire,
        outlet: mpsc::Sender<Packet>,
        accept: Accept,
        patience: Patience,
    ) -> Result<(Self, mpsc::Receiver<Arc<Stream>>), SessionError> {
        let (opened, streams) = mpsc::channel(MAX_STREAMS);
        let reader = Self {
            shared: Arc::new(Shared::new(outlet)),
            source: wire.source,
            buffer: wire.buffer,
            hangup: wire.hangup,
            activity: wire.activity,
            accept,
            patience,
            opened,
            streams: HashMap::new(),
            prune_at: 64,
            last: 0,
            decoder: Decoder::default(),
            deflater: Deflater::new()?,
        };
        Ok((reader, streams))
    }

    /// Serves until the peer is gone or breaks the rules; then every stream is at its end and `gone` is set.
    pub(crate) async fn run(mut self, gone: CancellationToken) -> SessionError {
        let error = match self.serve().await {
            Err(error) => error,
            Ok(never) => match never {},
        };
        if let SessionError::Frame(_) = &error {
            let _ = self.shared.outlet.try_send(frame::go_away(self.last, GoAway::Protocol).into());
        }
        for stream in self.streams.values() {
            stream.set_reset();
        }
        gone.cancel();
        error
    }

    async fn serve(&mut self) -> Result<std::convert::Infallible, SessionError> {
        loop {
            while let Some(frame) = self.decoder.next(&mut self.buffer)? {
                self.handle(frame).await?;
            }
            if !self.source.fill(&mut self.buffer).await? {
                return Err(SessionError::Gone);
            }
            self.activity.touch();
        }
    }

    async fn handle(&mut self, frame: Frame) -> Result<(), SessionError> {
        match frame {
            Frame::SynStream { stream, fin, headers } => self.open(stream, fin, headers).await?,
            Frame::Data { stream, payload, fin } => self.data(stream, payload, fin).await?,
            Frame::Headers { stream, fin: true, .. } => self.finished(stream),
            Frame::Reset { stream, .. } => {
                if let Some(stream) = self.streams.remove(&stream) {
                    stream.set_reset();
                }
            }
            // Even numbers would be answers to pings of ours, which we never send.
            Frame::Ping { id } if id % 2 == 1 => self.send(frame::ping(id)).await?,
            Frame::WindowUpdate { stream: 0, delta } => {
                if !self.shared.add_window(None, delta) {
                    return Err(SessionError::Gone);
                }
            }
            Frame::WindowUpdate { stream, delta } => {
                if let Some(stream) = self.streams.get(&stream).cloned()
                    && !self.shared.add_window(Some(&stream), delta)
                {
                    stream.reset(Reset::FlowControl).await;
                }
            }
            Frame::Settings { initial_window: Some(size) } => {
                self.shared.set_initial_window(size & 0x7fff_ffff, self.streams.values().cloned());
            }
            Frame::Settings { .. }
            | Frame::Ping { .. }
            | Frame::SynReply { .. }
            | Frame::Headers { .. }
            | Frame::GoAway { .. }
            | Frame::Unknown => {}
        }
        Ok(())
    }

    /// Sends a small frame. A peer that sends questions and takes no answers is held up, and noticed when it goes.
    async fn send(&self, frame: Bytes) -> Result<(), SessionError> {
        let sent = self.hangup.unless_gone(self.shared.send(frame)).await;
        Ok(sent.ok_or(SessionError::Gone)??)
    }

    async fn open(&mut self, id: StreamId, fin: bool, headers: Headers) -> Result<(), SessionError> {
        if id.is_multiple_of(2) || id <= self.last {
            return self.send(frame::reset(id, Reset::Protocol)).await;
        }
        self.last = id;
        if self.streams.len() >= self.prune_at {
            self.streams.retain(|_, stream| !stream.is_over());
            self.prune_at = self.streams.len() * 2 + 64;
        }
        let verdict =
            if self.streams.len() < MAX_STREAMS { (self.accept)(&headers) } else { Err(Reset::Refused) };
        if let Err(status) = verdict {
            return self.send(frame::reset(id, status)).await;
        }
        let stream = Arc::new(Stream::new(id, headers, Arc::clone(&self.shared)));
        // The reply first: whoever takes the stream may send on it at once.
        let reply = frame::syn_reply(id, &self.deflater.pack(&Headers::default())?);
        self.send(reply).await?;
        self.streams.insert(id, Arc::clone(&stream));
        if self.opened.try_send(Arc::clone(&stream)).is_err() {
            stream.reset(Reset::Refused).await;
        }
        if fin {
            self.finished(id);
        }
        Ok(())
    }

    async fn data(&mut self, id: StreamId, payload: Bytes, fin: bool) -> Result<(), SessionError> {
        let size = payload.len();
        let Some(stream) = self.streams.get(&id).cloned() else {
            self.shared.received(None, size);
            self.shared.used(None, size).await;
            // Of a stream that has ended a few frames may still be under way.
            return if id > self.last {
                self.send(frame::reset(id, Reset::InvalidStream)).await
            } else {
                Ok(())
            };
        };
        self.shared.received(Some(&stream), size);
        if !stream.inbox.push(payload) {
            self.shared.used(Some(&stream), size).await;
        }
        if fin {
            self.finished(id);
        } else if stream.inbox.is_full() {
            self.wait_for_room(&stream).await?;
        }
        Ok(())
    }

    fn finished(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get(&id) {
            stream.finished_by_peer.store(true, Ordering::Release);
            stream.inbox.end(End::Finished);
        }
    }

    async fn wait_for_room(&self, stream: &Stream) -> Result<(), SessionError> {
        let room = self.hangup.unless_gone(stream.inbox.room());
        let others = self.streams.values().any(|other| other.id != stream.id && !other.is_over());
        let Some(patience) = self.patience.filter(|_| others) else {
            return room.await.ok_or(SessionError::Gone);
        };
        match tokio::time::timeout(patience, room).await {
            Ok(done) => done.ok_or(SessionError::Gone),
            Err(_) => {
                stream.reset(Reset::FlowControl).await;
                Ok(())
            }
        }
    }
}
