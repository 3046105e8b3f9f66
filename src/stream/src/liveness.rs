//! Whether a connection is still used, and whether its peer is still there.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use nix::{
    libc::POLLRDHUP,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use tokio::time::Instant;

/// When bytes last moved on a connection, in either direction.
#[derive(Debug, Clone)]
pub(crate) struct Activity {
    start: Instant,
    last: Arc<AtomicU64>,
}

impl Default for Activity {
    fn default() -> Self {
        Self { start: Instant::now(), last: Arc::default() }
    }
}

impl Activity {
    /// Bytes moved now.
    pub(crate) fn touch(&self) {
        self.last.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Ends when nothing has moved for `limit`.
    pub(crate) async fn idle(&self, limit: Duration) {
        loop {
            let due = self.start + Duration::from_millis(self.last.load(Ordering::Relaxed)) + limit;
            if due <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(due).await;
        }
    }
}

/// A second descriptor of the connection's socket, to see that the peer has closed it although bytes that nobody
/// can take yet stand in front of the end.
#[derive(Debug)]
pub(crate) struct Hangup(OwnedFd);

impl Hangup {
    /// How often a reader that waits for something else looks. A poll costs a microsecond.
    pub(crate) const INTERVAL: Duration = Duration::from_secs(1);

    pub(crate) fn new(socket: impl AsFd) -> std::io::Result<Self> {
        Ok(Self(socket.as_fd().try_clone_to_owned()?))
    }

    /// Whether the peer closed the connection, or it is broken.
    pub(crate) fn happened(&self) -> bool {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::from_bits_retain(POLLRDHUP))];
        match poll(&mut fds, PollTimeout::ZERO) {
            // `None` are flags that nix has no name for, such as the one we ask for.
            Ok(_) => fds[0].any() != Some(false),
            Err(_) => false,
        }
    }

    /// Waits for `work`, or for the end of the peer (`None`).
    pub(crate) async fn unless_gone<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        loop {
            match tokio::time::timeout(Self::INTERVAL, &mut work).await {
                Ok(done) => return Some(done),
                Err(_) if self.happened() => return None,
                Err(_) => {}
            }
        }
    }
}
