//! The stream server as clients see it, over real local processes.

#![allow(missing_docs, clippy::unwrap_used)]

mod client;
mod http;
mod local;
mod spdy;
