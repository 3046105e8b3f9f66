//! A blob as a stream that survives broken connections: what has arrived is kept, and the rest asked for by range.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{StatusCode, header};
use reqwest::Response;
use tokio::sync::mpsc::Sender;

use super::{Failure, Session};
use crate::{digest::Digest, error::ImageError};

/// Progress that makes up for earlier failures. Less would let a trickling host keep a pull alive for ever.
const WORTH: u64 = 64 << 10;

/// A blob on its way; shared with whoever watches.
#[derive(Debug)]
pub(crate) struct Transfer {
    pub(crate) blob: Digest,
    pub(crate) size: u64,
    received: AtomicU64,
    host: Mutex<String>,
}

impl Transfer {
    pub(crate) fn new(blob: Digest, size: u64) -> Arc<Self> {
        Arc::new(Self { blob, size, received: AtomicU64::new(0), host: Mutex::default() })
    }

    /// Bytes that have arrived.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Where they come from.
    pub(crate) fn host(&self) -> String {
        self.host.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_host(&self, host: String) {
        *self.host.lock().unwrap_or_else(PoisonError::into_inner) = host;
    }

    /// Sends the blob's bytes into `sink`, in order and each once. Ends early, without an error, if the receiver is
    /// gone: it knows why. `avoid` names a host that has sent wrong bytes.
    pub(crate) async fn run(
        &self,
        session: &Session,
        sink: Sender<Bytes>,
        avoid: Option<&str>,
    ) -> Result<(), ImageError> {
        let mut hosts = session.pulling();
        if hosts.len() > 1 {
            hosts.retain(|(host, _)| Some(host.authority().as_str()) != avoid);
        }
        self.received.store(0, Ordering::Relaxed);
        let (mut attempt, mut counted) = (0, 0);
        loop {
            let mut failures = Vec::new();
            for (host, credentials) in &hosts {
                let offset = self.received();
                let opened = session.open_blob(host, credentials.as_ref(), &self.blob, offset).await;
                let outcome = match opened {
                    Ok(response) => {
                        self.set_host(host.authority());
                        self.pump(session, response, offset, &sink).await
                    }
                    Err(failure) => Err(failure),
                };
                match outcome {
                    Ok(()) => return Ok(()),
                    Err(Failure::Local(error)) => return Err(error),
                    Err(failure) => {
                        tracing::debug!(blob = %self.blob, at = self.received(), failure = %failure.detail(), "a transfer broke");
                        failures.push(failure);
                    }
                }
                if self.received() >= counted + WORTH {
                    (counted, attempt) = (self.received(), 0);
                    // The host that delivers is asked again before any other.
                    break;
                }
            }
            attempt += 1;
            match session.pause(&failures, attempt) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(session.verdict(failures)),
            }
        }
    }

    async fn pump(
        &self,
        session: &Session,
        mut response: Response,
        offset: u64,
        sink: &Sender<Bytes>,
    ) -> Result<(), Failure> {
        let place = self.host();
        let patience = session.registries.settings.progress_timeout;
        let mut skip = skipped(&response, offset, &place)?;
        loop {
            let chunk = match tokio::time::timeout(patience, response.chunk()).await {
                Err(_) => return Err(Failure::Local(self.stalled(patience))),
                Ok(Err(error)) => {
                    let why = super::describe(&error);
                    let at = format!("at byte {} of {}", self.received(), self.size);
                    return Err(Failure::Transient(format!("{place}: {why}, {at}"), None));
                }
                Ok(Ok(chunk)) => chunk,
            };
            let Some(mut chunk) = chunk else {
                if self.received() == self.size {
                    return Ok(());
                }
                let why = format!("{place}: ended at byte {} of {}", self.received(), self.size);
                return Err(Failure::Transient(why, None));
            };
            let unwanted = skip.min(chunk.len() as u64);
            skip -= unwanted;
            let chunk = chunk.split_off(unwanted as usize);
            let length = chunk.len() as u64;
            if self.received() + length > self.size {
                return Err(Failure::Permanent(format!(
                    "{place}: blob {} is longer than {} bytes",
                    self.blob, self.size
                )));
            }
            if length > 0 && sink.send(chunk).await.is_err() {
                return Ok(());
            }
            self.received.fetch_add(length, Ordering::Relaxed);
        }
    }

    fn stalled(&self, patience: Duration) -> ImageError {
        ImageError::Stalled {
            blob: self.blob.clone(),
            byte: self.received(),
            size: self.size,
            host: self.host(),
            seconds: patience.as_secs(),
        }
    }
}

/// Bytes at the start of an answer that are here already: all of them if the host does not know ranges.
fn skipped(response: &Response, offset: u64, place: &str) -> Result<u64, Failure> {
    if response.status() != StatusCode::PARTIAL_CONTENT {
        return Ok(offset);
    }
    let range = response
        .headers()
        .get(header::CONTENT_RANGE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let start = range
        .strip_prefix("bytes ")
        .and_then(|r| r.split('-').next())
        .and_then(|start| start.trim().parse::<u64>().ok());
    match start {
        Some(start) if start <= offset => Ok(offset - start),
        _ => Err(Failure::Permanent(format!("{place}: answered byte {offset} with the range {range:?}"))),
    }
}
