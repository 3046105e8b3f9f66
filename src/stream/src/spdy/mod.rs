//! SPDY/3.1, the server's side (draft 3.1 of the SPDY protocol).
//!
//! [`frame`], [`headers`] and the dictionary are pure; `session` does the reading, `stream` is what the rest of the
//! crate uses. Public for the fuzz targets only.

pub(crate) mod dictionary;
pub mod frame;
pub mod headers;
pub(crate) mod session;
pub(crate) mod stream;
