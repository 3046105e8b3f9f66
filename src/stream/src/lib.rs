//! exec, attach and port-forward streams over SPDY/3.1 and WebSocket.
//!
//! Owns the small HTTP server whose one-time addresses the CRI's Exec, Attach and PortForward hand out, and every
//! byte between a client and a process from then on. It calls down only through [`Backend`], which the pods
//! implement. Nothing here is stored: when the daemon dies, the streams die with it and clients ask again.
//!
//! The way of a request: `server` accepts, `service` checks the token and the upgrade, `spdy` or
//! `websocket` turn the connection into streams, `process` (exec, attach) or `forward` move the bytes.

pub(crate) mod backend;
pub(crate) mod channel;
pub(crate) mod forward;
pub(crate) mod inbox;
pub(crate) mod liveness;
pub(crate) mod negotiate;
pub(crate) mod outlet;
pub(crate) mod process;
pub(crate) mod resize;
pub(crate) mod server;
pub(crate) mod service;
pub(crate) mod source;
pub mod spdy;
pub(crate) mod status;
pub(crate) mod tls;
pub(crate) mod token;
pub(crate) mod upgraded;
pub mod websocket;

pub use backend::{
    AttachRequest, Backend, ExecRequest, Outcome, PortForwardRequest, Session, SessionControl, StreamError,
};
pub use server::{ServerError, StreamConfig, StreamServer};
pub use tls::{Tls, TlsError};
