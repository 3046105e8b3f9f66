//! One download for everybody who wants the same layer.
//!
//! The work runs in a task of its own. Those who wait hold the flight; when the last of them goes, the task is
//! aborted.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::{sync::watch, task::AbortHandle};

use crate::{digest::Digest, error::ImageError, layers::Layer, registry::Transfer};

type Outcome = Result<Arc<Layer>, ImageError>;

/// Downloads that are going on, by diff id.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    running: Mutex<HashMap<Digest, Weak<Flight>>>,
}

/// A place in a flight.
#[derive(Debug)]
pub(crate) struct Flight {
    outcome: watch::Receiver<Option<Outcome>>,
    task: AbortHandle,
    /// How far it is.
    pub(crate) transfer: Arc<Transfer>,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Flights {
    /// Joins the flight for a layer, or starts it. The flag says whether it was started.
    pub(crate) fn join<F>(
        &self,
        diff_id: &Digest,
        transfer: &Arc<Transfer>,
        start: impl FnOnce() -> F,
    ) -> (Arc<Flight>, bool)
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = running.get(diff_id).and_then(Weak::upgrade) {
            // One that failed is of no use to somebody who may have better credentials.
            let failed = matches!(&*flight.outcome.borrow(), Some(Err(_)));
            if !failed {
                return (flight, false);
            }
        }
        running.retain(|_, flight| flight.strong_count() > 0);
        let (sender, outcome) = watch::channel(None);
        let work = start();
        let task = tokio::spawn(async move {
            let result = work.await;
            // Nobody waits any more: then the layer is dropped here.
            let _ = sender.send(Some(result));
        });
        let flight = Arc::new(Flight { outcome, task: task.abort_handle(), transfer: Arc::clone(transfer) });
        running.insert(diff_id.clone(), Arc::downgrade(&flight));
        (flight, true)
    }
}

impl Flight {
    /// Waits for the end.
    pub(crate) async fn wait(&self) -> Outcome {
        let mut outcome = self.outcome.clone();
        let cancelled = || ImageError::Cancelled { what: format!("the download of {}", self.transfer.blob) };
        match outcome.wait_for(Option::is_some).await {
            Ok(result) => result.clone().unwrap_or_else(|| Err(cancelled())),
            Err(_) => Err(cancelled()),
        }
    }
}
