//! One stream of a session, and the windows.
//!
//! # Flow control with clients that have none
//!
//! The clients that matter (everything made with client-go) neither send WINDOW_UPDATE nor heed it. So:
//!
//! - Sending, a window is counted from the start but binds us only once the peer has shown that it has windows: by
//!   a WINDOW_UPDATE (for streams or for the session, each on its own) or by SETTINGS with an initial window.
//!   Before that TCP alone slows us down.
//! - Receiving, we give credit for what was really used. A peer that has sent more than it was allowed does not
//!   look at credit, and gets no more of it. What holds it back is a full inbox: the session stops reading.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicI64, Ordering},
};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};

use super::frame::{self, Reset, StreamId};
use super::headers::Headers;
use crate::{
    inbox::{End, Inbox, Next},
    outlet::{Head, Packet},
};

/// The window of a stream and of the session until someone says otherwise (SPDY draft 3.1, 2.6.8).
const INITIAL_WINDOW: i64 = 64 * 1024;

/// Used bytes after which credit is given: half a window, so that a peer that heeds it never waits.
const CREDIT: i64 = INITIAL_WINDOW / 2;

/// Data bytes of one frame we send. Clients allocate a buffer for each frame.
const MAX_DATA: usize = 128 * 1024;

/// The peer is gone, or has reset the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone;

/// How much the peer lets us send.
#[derive(Debug)]
struct SendWindows {
    /// The peer heeds windows of streams.
    streams_bind: bool,
    /// The peer heeds the window of the session.
    session_binds: bool,
    initial: i64,
    session: i64,
}

/// What the streams of a session share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) outlet: mpsc::Sender<Packet>,
    windows: Mutex<SendWindows>,
    changed: Notify,
    /// The peer sends without looking at credit.
    ignores_credit: AtomicBool,
    /// Session bytes that were received or used, not credited yet.
    received: AtomicI64,
    used: AtomicI64,
}

impl Shared {
    pub(crate) fn new(outlet: mpsc::Sender<Packet>) -> Self {
        let windows = SendWindows {
            streams_bind: false,
            session_binds: false,
            initial: INITIAL_WINDOW,
            session: INITIAL_WINDOW,
        };
        Self {
            outlet,
            windows: Mutex::new(windows),
            changed: Notify::new(),
            ignores_credit: AtomicBool::new(false),
            received: AtomicI64::new(0),
            used: AtomicI64::new(0),
        }
    }

    fn windows(&self) -> MutexGuard<'_, SendWindows> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// SETTINGS: the windows of all streams move by the difference.
    pub(crate) fn set_initial_window(&self, size: u32, streams: impl Iterator<Item = Arc<Stream>>) {
        let mut windows = self.windows();
        let difference = i64::from(size) - windows.initial;
        windows.initial = i64::from(size);
        windows.streams_bind = true;
        for stream in streams {
            stream.send_window.fetch_add(difference, Ordering::Relaxed);
        }
        drop(windows);
        self.changed.notify_waiters();
    }

    /// WINDOW_UPDATE for the session (`None`) or a stream. `false` if the window becomes impossibly large.
    pub(crate) fn add_window(&self, stream: Option<&Stream>, delta: u32) -> bool {
        let mut windows = self.windows();
        let delta = i64::from(delta);
        let size = match stream {
            None => {
                windows.session_binds = true;
                windows.session += delta;
                windows.session
            }
            Some(stream) => {
                windows.streams_bind = true;
                stream.send_window.fetch_add(delta, Ordering::Relaxed) + delta
            }
        };
        drop(windows);
        self.changed.notify_waiters();
        size <= i64::from(i32::MAX)
    }

    /// Takes up to `wanted` bytes out of the windows; 0 when they are used up.
    fn take_window(&self, stream: &Stream, wanted: usize) -> usize {
        let mut windows = self.windows();
        let mut size = i64::try_from(wanted).unwrap_or(i64::MAX);
        if windows.streams_bind {
            size = size.min(stream.send_window.load(Ordering::Relaxed));
        }
        if windows.session_binds {
            size = size.min(windows.session);
        }
        let size = size.max(0);
        stream.send_window.fetch_sub(size, Ordering::Relaxed);
        windows.session -= size;
        size as usize
    }

    /// Notes bytes that came in, and finds out whether the peer heeds the windows.
    pub(crate) fn received(&self, stream: Option<&Stream>, size: usize) {
        let size = size as i64;
        let session = self.received.fetch_add(size, Ordering::Relaxed) + size;
        let own = stream.map_or(0, |stream| stream.received.fetch_add(size, Ordering::Relaxed) + size);
        if session > INITIAL_WINDOW || own > INITIAL_WINDOW {
            self.ignores_credit.store(true, Ordering::Relaxed);
        }
    }

    /// Gives credit for bytes that were used or thrown away.
    pub(crate) async fn used(&self, stream: Option<&Stream>, size: usize) {
        if self.ignores_credit.load(Ordering::Relaxed) {
            return;
        }
        let size = size as i64;
        if let Some(stream) = stream.filter(|s| !s.is_reset()) {
            credit(&self.outlet, stream.id, &stream.used, &stream.received, size).await;
        }
        credit(&self.outlet, 0, &self.used, &self.received, size).await;
    }

    pub(crate) async fn send(&self, frame: Bytes) -> Result<(), Gone> {
        self.outlet.send(frame.into()).await.map_err(|_| Gone)
    }
}

async fn credit(
    outlet: &mpsc::Sender<Packet>,
    id: StreamId,
    used: &AtomicI64,
    received: &AtomicI64,
    size: i64,
) {
    if used.fetch_add(size, Ordering::Relaxed) + size < CREDIT {
        return;
    }
    let delta = used.swap(0, Ordering::Relaxed);
    received.fetch_sub(delta, Ordering::Relaxed);
    // A session that has ended needs no credit.
    if let Ok(delta) = u32::try_from(delta) {
        let _ = outlet.send(frame::window_update(id, delta).into()).await;
    }
}

/// One stream, opened by the client.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) id: StreamId,
    pub(crate) headers: Headers,
    pub(crate) inbox: Inbox,
    shared: Arc<Shared>,
    send_window: AtomicI64,
    received: AtomicI64,
    used: AtomicI64,
    reset: AtomicBool,
    pub(crate) finished_by_peer: AtomicBool,
    finished_by_us: AtomicBool,
}

impl Stream {
    pub(crate) fn new(id: StreamId, headers: Headers, shared: Arc<Shared>) -> Self {
        let send_window = AtomicI64::new(shared.windows().initial);
        Self {
            id,
            headers,
            inbox: Inbox::default(),
            shared,
            send_window,
            received: AtomicI64::new(0),
            used: AtomicI64::new(0),
            reset: AtomicBool::new(false),
            finished_by_peer: AtomicBool::new(false),
            finished_by_us: AtomicBool::new(false),
        }
    }

    fn is_reset(&self) -> bool {
        self.reset.load(Ordering::Acquire)
    }

    /// Both sides are done with it.
    pub(crate) fn is_over(&self) -> bool {
        self.is_reset()
            || (self.finished_by_peer.load(Ordering::Acquire) && self.finished_by_us.load(Ordering::Acquire))
    }

    /// The peer has given it up, or is gone.
    pub(crate) fn set_reset(&self) {
        self.reset.store(true, Ordering::Release);
        self.inbox.end(End::Reset);
        self.shared.changed.notify_waiters();
    }

    /// The next bytes from the client. Each chunk is to be [`used`](Self::used) afterwards.
    pub(crate) async fn next(&self) -> Next {
        self.inbox.next().await
    }

    /// Bytes of the client have reached their goal: give credit for them.
    pub(crate) async fn used(&self, size: usize) {
        self.shared.used(Some(self), size).await;
    }

    /// Sends bytes, as fast as the peer takes them.
    pub(crate) async fn send(&self, mut data: Bytes) -> Result<(), Gone> {
        while !data.is_empty() {
            let size = self.window(data.len().min(MAX_DATA)).await?;
            let head = Head::new(&frame::data_head(self.id, false, size));
            let packet = Packet::Frame(head, data.split_to(size));
            self.shared.outlet.send(packet).await.map_err(|_| Gone)?;
        }
        Ok(())
    }

    async fn window(&self, wanted: usize) -> Result<usize, Gone> {
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.is_reset() {
                return Err(Gone);
            }
            match self.shared.take_window(self, wanted) {
                0 => changed.await,
                size => return Ok(size),
            }
        }
    }

    /// Says that we send nothing more. Further calls do nothing.
    pub(crate) async fn finish(&self) {
        if self.is_reset() || self.finished_by_us.swap(true, Ordering::AcqRel) {
            return;
        }
        let head = Head::new(&frame::data_head(self.id, true, 0));
        let _ = self.shared.outlet.send(Packet::Frame(head, Bytes::new())).await;
    }

    /// Gives the stream up in both directions.
    pub(crate) async fn reset(&self, status: Reset) {
        if self.reset.swap(true, Ordering::AcqRel) {
            return;
        }
        self.inbox.end(End::Reset);
        self.shared.changed.notify_waiters();
        let _ = self.shared.send(frame::reset(self.id, status)).await;
    }
}
