//! Registries: who is asked for an image, with which credentials, and how failures are survived.
//!
//! ```text
//!   hosts (certs.d) -> session (one image) -> request (one host: auth, redirects) -> transfer (retries, resuming)
//! ```
//!
//! Keeps clients, connections and tokens, nothing on disk.

pub(crate) mod auth;
pub mod challenge;
mod docker_config;
pub mod hosts;
mod request;
mod session;
mod tls;
mod transfer;

pub use auth::Credentials;
pub(crate) use request::{Failure, describe};
pub(crate) use session::{Fetched, Session};
pub(crate) use transfer::Transfer;

use std::{path::PathBuf, time::Duration};

use auth::Tokens;
use tls::Clients;

/// What the registry part needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) certs_dirs: Vec<PathBuf>,
    pub(crate) docker_config: Option<PathBuf>,
    /// Nothing arriving for this long is a failure.
    pub(crate) progress_timeout: Duration,
    /// Tries in a row without any progress.
    pub(crate) attempts: u32,
    /// First pause between tries; doubles.
    pub(crate) backoff: Duration,
}

/// All registries.
#[derive(Debug)]
pub(crate) struct Registries {
    pub(crate) settings: Settings,
    clients: Clients,
    tokens: Tokens,
}

impl Registries {
    pub(crate) fn new(settings: Settings) -> Self {
        Self { settings, clients: Clients::default(), tokens: Tokens::default() }
    }
}
