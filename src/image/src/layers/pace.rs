//! When the trash may be emptied.
//!
//! Deleting takes the disk and the processor from pulls that run, so it waits for them, but never for long, and not
//! at all if space is short: then what is deleted is what the pulls need.

use std::{
    path::Path,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// The longest time that one emptying waits for pulls, over all its steps.
const PATIENCE: Duration = Duration::from_secs(60);
/// Space is short if less than one part in this many is free. Kubelets collect images from 85 % on.
const SCARCE: u64 = 4;

/// Shared between the thread that deletes and those it would disturb.
#[derive(Debug, Default)]
pub(super) struct Pace {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Layers being unpacked or synced.
    busy: usize,
    /// Pulls that cannot go on before space is free.
    waiting: usize,
    /// Emptyings that have begun and ended.
    begun: u64,
    ended: u64,
}

impl Pace {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(&self) {
        self.state().busy += 1;
    }

    pub(super) fn leave(&self) {
        self.state().busy -= 1;
        self.changed.notify_all();
    }

    /// An emptying begins; until when it may be kept waiting.
    pub(super) fn begin(&self) -> Instant {
        self.state().begun += 1;
        Instant::now() + PATIENCE
    }

    pub(super) fn end(&self) {
        let mut state = self.state();
        state.ended = state.begun;
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until the next step of an emptying would disturb nobody, or has to be.
    pub(super) fn turn(&self, folder: &Path, until: Instant) {
        let mut state = self.state();
        while state.busy > 0 && state.waiting == 0 && !is_scarce(folder) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            // Space may become short without anybody saying so.
            let pause = left.min(Duration::from_secs(1));
            state = self.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Emptyings that have ended.
    pub(super) fn ended(&self) -> u64 {
        self.state().ended
    }

    /// Waits for an emptying that begins after this call. `wake` makes one begin. Blocking.
    pub(super) fn hurry(&self, wake: impl Fn(), at_most: Duration) {
        let until = Instant::now() + at_most;
        let mut state = self.state();
        state.waiting += 1;
        let wanted = state.begun + 1;
        self.changed.notify_all();
        while state.ended < wanted && Instant::now() < until {
            // Again and again: one wake-up may have been taken by the emptying that is going on.
            wake();
            let pause = Duration::from_millis(200);
            state = self.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.waiting -= 1;
    }
}

fn is_scarce(folder: &Path) -> bool {
    match nix::sys::statvfs::statvfs(folder) {
        Ok(found) => {
            found.blocks_available() < found.blocks() / SCARCE
                // File systems without a table of inodes say nought.
                || (found.files() > 0 && found.files_available() < found.files() / SCARCE)
        }
        Err(_) => true,
    }
}
