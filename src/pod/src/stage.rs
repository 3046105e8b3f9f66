//! What an operation is doing right now: the answer to "why does it hang".

use std::{
    borrow::Cow,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Shared between an operation, which enters stages, and whoever asks about it.
#[derive(Debug, Clone)]
pub struct Stage(Arc<Mutex<(Cow<'static, str>, Instant)>>);

impl Default for Stage {
    fn default() -> Self {
        Self(Arc::new(Mutex::new((Cow::Borrowed("waiting for its turn"), Instant::now()))))
    }
}

impl Stage {
    /// Begins a stage; also a trace event, so that a timeline can be drawn.
    pub fn enter(&self, what: impl Into<Cow<'static, str>>) {
        let what = what.into();
        tracing::debug!(target: "crisp::stage", stage = %what);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (what, Instant::now());
    }

    /// The present stage and how long it has lasted.
    pub fn now(&self) -> (String, Duration) {
        let guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (guard.0.to_string(), guard.1.elapsed())
    }
}
