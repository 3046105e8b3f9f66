//! What has arrived on one stream and was not used yet: a bounded queue between a connection's reader and the pump
//! of one stream.
//!
//! The reader never loses data and never grows without limit: when an inbox is full it stops reading the
//! connection, so that the peer's TCP connection fills up. A consumer that wants no more data discards what comes,
//! which keeps the connection's other streams moving.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::Notify;

/// Bytes of one stream that may wait. Clients of client-go ignore the windows of SPDY, so this is all that keeps a
/// slow process apart from the other streams of its connection.
pub(crate) const MAX_BYTES: usize = 1024 * 1024;

/// Chunks of one stream that may wait: bounds the overhead of one-byte frames.
pub(crate) const MAX_CHUNKS: usize = 4096;

/// How a stream's data ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The peer has sent everything.
    Finished,
    /// The peer gave the stream up, or is gone itself.
    Reset,
}

/// What a consumer gets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Some bytes.
    Chunk(Bytes),
    /// No more bytes will come.
    End(End),
}

#[derive(Debug, Default)]
struct Inner {
    chunks: VecDeque<Bytes>,
    bytes: usize,
    end: Option<End>,
    discarding: bool,
}

impl Inner {
    fn full(&self) -> bool {
        self.bytes >= MAX_BYTES || self.chunks.len() >= MAX_CHUNKS
    }
}

/// The queue of one stream.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    inner: Mutex<Inner>,
    filled: Notify,
    emptied: Notify,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds bytes. `false` when they were thrown away, because nobody wants them.
    pub(crate) fn push(&self, chunk: Bytes) -> bool {
        let mut inner = self.lock();
        if inner.discarding || inner.end.is_some() {
            return false;
        }
        if chunk.is_empty() {
            return true;
        }
        inner.bytes += chunk.len();
        inner.chunks.push_back(chunk);
        drop(inner);
        self.filled.notify_one();
        true
    }

    /// Says that no more bytes come. The first end counts; a reset also drops what waits.
    pub(crate) fn end(&self, end: End) {
        let mut inner = self.lock();
        if end == End::Reset {
            inner.chunks.clear();
            inner.bytes = 0;
            inner.end = Some(End::Reset);
        }
        inner.end.get_or_insert(end);
        drop(inner);
        self.filled.notify_one();
        self.emptied.notify_one();
    }

    /// Throws away what is here and what will come.
    pub(crate) fn discard(&self) {
        let mut inner = self.lock();
        inner.discarding = true;
        inner.chunks.clear();
        inner.bytes = 0;
        drop(inner);
        self.emptied.notify_one();
    }

    /// Whether the reader has to wait before it adds more.
    pub(crate) fn is_full(&self) -> bool {
        self.lock().full()
    }

    /// Waits until there is room. One waiter at a time: the connection's reader.
    pub(crate) async fn room(&self) {
        while self.is_full() {
            self.emptied.notified().await;
        }
    }

    /// The next bytes or the end. One consumer at a time; dropping the future loses nothing.
    pub(crate) async fn next(&self) -> Next {
        loop {
            if let Some(next) = self.take() {
                return next;
            }
            self.filled.notified().await;
        }
    }

    fn take(&self) -> Option<Next> {
        let mut inner = self.lock();
        let Some(chunk) = inner.chunks.pop_front() else { return inner.end.map(Next::End) };
        let was_full = inner.full();
        inner.bytes -= chunk.len();
        let has_room = !inner.full();
        drop(inner);
        if was_full || has_room {
            self.emptied.notify_one();
        }
        Some(Next::Chunk(chunk))
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn bytes_come_out_in_order_and_then_the_end() {
        let inbox = Inbox::default();
        assert!(inbox.push(Bytes::from_static(b"a")));
        assert!(inbox.push(Bytes::new()));
        assert!(inbox.push(Bytes::from_static(b"b")));
        inbox.end(End::Finished);
        inbox.end(End::Finished);
        assert!(!inbox.push(Bytes::from_static(b"late")));
        assert_eq!(inbox.next().await, Next::Chunk(Bytes::from_static(b"a")));
        assert_eq!(inbox.next().await, Next::Chunk(Bytes::from_static(b"b")));
        assert_eq!(inbox.next().await, Next::End(End::Finished));
    }

    #[tokio::test]
    async fn a_full_inbox_makes_the_reader_wait() {
        let inbox = Inbox::default();
        inbox.push(Bytes::from(vec![0; MAX_BYTES]));
        assert!(inbox.room().now_or_never().is_none());
        inbox.next().await;
        inbox.room().await;
        for _ in 0..MAX_CHUNKS {
            inbox.push(Bytes::from_static(b"x"));
        }
        assert!(inbox.is_full());
        inbox.discard();
        inbox.room().await;
        assert!(!inbox.push(Bytes::from_static(b"x")));
    }

    #[tokio::test]
    async fn a_reset_drops_what_waits() {
        let inbox = Inbox::default();
        inbox.push(Bytes::from(vec![0; MAX_BYTES]));
        inbox.end(End::Finished);
        inbox.end(End::Reset);
        inbox.room().await;
        assert_eq!(inbox.next().await, Next::End(End::Reset));
    }
}
