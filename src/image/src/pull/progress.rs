//! How far pulls are: for logs, metrics, progress bars, and the errors of callers who give up.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::registry::Transfer;

/// A pull that is going on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullProgress {
    /// The image.
    pub reference: String,
    /// Since when.
    pub elapsed: Duration,
    /// Layers that are fetched; those already here are left out.
    pub layers: Vec<LayerProgress>,
    /// Everything has arrived and is being made durable.
    pub storing: bool,
}

/// A layer of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerProgress {
    /// Digest of the blob.
    pub blob: String,
    /// Bytes that have arrived.
    pub received: u64,
    /// Bytes in all.
    pub size: u64,
    /// Where they come from; empty before the first.
    pub host: String,
}

impl PullProgress {
    /// Bytes that have arrived, and bytes in all.
    pub fn bytes(&self) -> (u64, u64) {
        self.layers.iter().fold((0, 0), |(got, all), layer| (got + layer.received, all + layer.size))
    }
}

impl std::fmt::Display for PullProgress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (received, size) = self.bytes();
        let seconds = self.elapsed.as_secs_f64();
        let rate = received as f64 / seconds.max(0.001) / 1e6;
        write!(
            f,
            "pulling {} for {seconds:.0} s: {received} of {size} bytes, {rate:.1} MB/s",
            self.reference
        )?;
        if self.storing {
            return write!(f, ", storing");
        }
        for layer in self.layers.iter().filter(|layer| layer.received < layer.size).take(8) {
            let host = if layer.host.is_empty() { "waiting" } else { &layer.host };
            let blob = layer.blob.get(7..19).unwrap_or(&layer.blob);
            write!(f, "; layer {blob} at {} of {} from {host}", layer.received, layer.size)?;
        }
        Ok(())
    }
}

/// All pulls.
#[derive(Debug, Default)]
pub(crate) struct Board {
    pulls: Mutex<HashMap<u64, Weak<Pull>>>,
    next: AtomicU64,
}

/// One pull's entry; gone when dropped.
#[derive(Debug)]
pub(crate) struct Pull {
    reference: String,
    started: Instant,
    transfers: Mutex<Vec<Arc<Transfer>>>,
    storing: AtomicBool,
}

impl Board {
    pub(crate) fn start(&self, reference: String) -> Arc<Pull> {
        let pull = Arc::new(Pull {
            reference,
            started: Instant::now(),
            transfers: Mutex::default(),
            storing: AtomicBool::new(false),
        });
        let mut pulls = self.pulls.lock().unwrap_or_else(PoisonError::into_inner);
        pulls.retain(|_, pull| pull.strong_count() > 0);
        pulls.insert(self.next.fetch_add(1, Ordering::Relaxed), Arc::downgrade(&pull));
        pull
    }

    pub(crate) fn list(&self) -> Vec<PullProgress> {
        let pulls = self.pulls.lock().unwrap_or_else(PoisonError::into_inner);
        let mut numbered: Vec<_> =
            pulls.iter().filter_map(|(number, pull)| Some((*number, pull.upgrade()?))).collect();
        drop(pulls);
        numbered.sort_by_key(|(number, _)| *number);
        numbered.into_iter().map(|(_, pull)| pull.snapshot()).collect()
    }
}

impl Pull {
    pub(crate) fn follow(&self, transfer: &Arc<Transfer>) {
        self.transfers.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(transfer));
    }

    pub(crate) fn storing(&self) {
        self.storing.store(true, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> PullProgress {
        let transfers = self.transfers.lock().unwrap_or_else(PoisonError::into_inner);
        let layer = |transfer: &Arc<Transfer>| LayerProgress {
            blob: transfer.blob.to_string(),
            received: transfer.received(),
            size: transfer.size,
            host: transfer.host(),
        };
        PullProgress {
            reference: self.reference.clone(),
            elapsed: self.started.elapsed(),
            layers: transfers.iter().map(layer).collect(),
            storing: self.storing.load(Ordering::Relaxed),
        }
    }
}
