//! WebSocket, the server's side (RFC 6455), as far as the protocols of Kubernetes use it.
//!
//! [`frame`] is pure and public for the fuzz targets only.

pub(crate) mod channels;
pub mod frame;
pub(crate) mod handshake;
