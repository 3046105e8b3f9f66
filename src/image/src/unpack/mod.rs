//! Archives into layers: compressed stream in, overlayfs folder, digests and recipe out.
//!
//! ```text
//!   stream --> [thread: sha256, decompress] --> 1 MiB buffers --> [thread: sha256, tar, files]
//! ```
//!
//! Two threads a layer, a bounded number of buffers between them. Owns the staging folder until it returns; after a
//! crash or an error the caller throws that folder away.

mod apply;
pub mod archive;
pub(crate) mod attributes;
mod decompress;
mod header;
pub(crate) mod path;
mod pax;
mod pipeline;
mod rebuild;
pub mod recipe;
mod sparse;
pub(crate) mod tree;

#[cfg(test)]
mod tests;

pub use apply::{Cause, Limits, UnpackError, Unpacked, unpack};

pub(crate) use decompress::decoder;
pub(crate) use pipeline::{ChunkReader, Expected, StreamLimits, unpack_layer};
pub(crate) use rebuild::{Rebuilt, check_layer};
pub use sparse::Segment;
