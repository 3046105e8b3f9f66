//! The per-pod monitor: its protocol, its client, and the process that runs libcontainer.
//!
//! The library is what the daemon uses ([`client`], [`protocol`]) and what both sides share ([`frame`], [`log_line`]); the
//! process itself is the binary `crisp-monitor` (`main.rs`), of which nothing is linked into the daemon.

pub mod client;
pub mod frame;
pub mod log_line;
pub mod protocol;

pub use client::{Exec, Monitor, MonitorError, SpawnOptions};
