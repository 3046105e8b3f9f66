//! Lifecycle events of pods and containers, gapless for every client that keeps up.
//!
//! Owns the sequence of events and a bounded ring of the last ones in files that survive the daemon (not the machine: a
//! boot ends every pod). Publishing costs one write to a file in memory and never waits for a client; a client reads at its own
//! pace from the ring and gets every event in order, or a clear end when it fell too far behind.
//!
//! The CRI gives a client no way to say what it has seen. So the bus remembers for each client that went (or that the
//! daemon's own end cut off) how far it had got, and a client that comes within [`GRACE`] is given everything since
//! then: at least once, some of it perhaps twice, none of it never. A client that comes when nobody is missed starts
//! with the present.
//!
//! Crash: an event is in the ring before `publish` returns. A record that was half-written is cut off at the next start.

mod cursors;
mod record;
mod ring;

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crisp_model::{ContainerId, SandboxId, time::Timestamp};
use tokio::sync::watch;

use cursors::Cursors;
use ring::{Limits, Ring};

/// How long a client that went is expected back.
pub const GRACE: Duration = Duration::from_secs(300);

/// What a client was given this short before it went may not have reached it.
const IN_FLIGHT: Duration = Duration::from_secs(1);

/// What happened (CRI `ContainerEventType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// Made.
    Created,
    /// Runs.
    Started,
    /// Runs no more.
    Stopped,
    /// Removed.
    Deleted,
}

/// An event that is to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// The pod.
    pub sandbox: SandboxId,
    /// The container; `None`: it is about the pod itself.
    pub container: Option<ContainerId>,
    /// What happened.
    pub kind: EventKind,
    /// When.
    pub created_at: Timestamp,
}

/// An event with its place in the order of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// One more than that of the event before; goes on over restarts of the daemon, not over a boot.
    pub sequence: u64,
    /// What happened.
    pub event: NewEvent,
}

/// Why a subscription ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubscriptionEnd {
    /// The client fell behind by more than the ring holds, and has to list everything anew.
    #[error("{missed} events were not read in time; list everything and subscribe again")]
    Lagged {
        /// At least so many.
        missed: u64,
    },
    /// The ring's file could not be read.
    #[error("event {sequence} cannot be read: {reason}")]
    Unreadable {
        /// Which.
        sequence: u64,
        /// Why.
        reason: String,
    },
}

/// Counters for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EventCounts {
    /// Since the daemon started.
    pub published: u64,
    /// Events that clients missed because they were too slow.
    pub dropped: u64,
    /// Clients that are subscribed now.
    pub subscribers: u64,
}

/// The bus. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct EventBus {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// The sequence that comes next; wakes who waits for it.
    next: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    ring: Ring,
    cursors: Cursors,
    counts: EventCounts,
}

impl Shared {
    /// A panic elsewhere cannot leave the ring half-changed.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EventBus {
    /// Opens (or begins) the ring in a folder that survives the daemon and is lost with a boot, under `/run`. The
    /// folder is made if it is missing.
    pub fn open(dir: &Path) -> io::Result<Self> {
        Self::open_limited(dir, Limits::default())
    }

    fn open_limited(dir: &Path, limits: Limits) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let ring = Ring::open(dir, limits)?;
        let cursors = Cursors::open(dir, Instant::now());
        let next = watch::Sender::new(ring.next_sequence());
        let state = Mutex::new(State { ring, cursors, counts: EventCounts::default() });
        Ok(Self { shared: Arc::new(Shared { state, next }) })
    }

    /// Adds an event and returns its sequence. Never waits for a client and never fails: when the file cannot be
    /// written the event is kept in memory.
    pub fn publish(&self, event: NewEvent) -> u64 {
        let mut state = self.shared.lock();
        let sequence = state.ring.push(event);
        state.counts.published += 1;
        // Under the lock, so that nobody who waits is woken with an older number after a newer one.
        self.shared.next.send_replace(sequence + 1);
        sequence
    }

    /// Begins to read: where a client that went had got to, else with the next event.
    pub fn subscribe(&self) -> Subscription {
        let mut state = self.shared.lock();
        let present = state.ring.next_sequence();
        let (client, next) = state.cursors.join(present, Instant::now());
        state.counts.subscribers += 1;
        let woken = self.shared.next.subscribe();
        Subscription { shared: self.shared.clone(), woken, client, next, ended: false }
    }

    /// Counters.
    pub fn counts(&self) -> EventCounts {
        self.shared.lock().counts
    }
}

/// A client's place in the events. Dropping it says that the client went.
#[derive(Debug)]
pub struct Subscription {
    shared: Arc<Shared>,
    woken: watch::Receiver<u64>,
    client: u64,
    next: u64,
    ended: bool,
}

impl Subscription {
    /// The next event, as soon as there is one; `None` after an end was reported. May be cancelled at any await
    /// without losing an event.
    pub async fn next(&mut self) -> Option<Result<Event, SubscriptionEnd>> {
        loop {
            if self.ended {
                return None;
            }
            self.woken.borrow_and_update();
            if let Some(result) = self.try_next() {
                return Some(result);
            }
            // The sender lives as long as this subscription does.
            self.woken.changed().await.ok()?;
        }
    }

    /// The next event if there is one already.
    pub fn try_next(&mut self) -> Option<Result<Event, SubscriptionEnd>> {
        if self.ended {
            return None;
        }
        let mut state = self.shared.lock();
        let oldest = state.ring.oldest_sequence();
        let result = if self.next < oldest {
            let missed = oldest - self.next;
            state.counts.dropped += missed;
            Err(SubscriptionEnd::Lagged { missed })
        } else {
            match state.ring.read(self.next)? {
                Ok(event) => Ok(event),
                Err(error) => {
                    Err(SubscriptionEnd::Unreadable { sequence: self.next, reason: error.to_string() })
                }
            }
        };
        // One whose stream broke lists everything anew: it is not given again what it could not be given.
        self.ended = result.is_err();
        self.next = if self.ended { state.ring.next_sequence() } else { self.next + 1 };
        state.cursors.advance(self.client, self.next, self.ended, Instant::now());
        Some(result)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.cursors.leave(self.client, Instant::now());
        state.counts.subscribers = state.counts.subscribers.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests;
