//! From the wire into the model: every field of a request is checked here, once, and nowhere below.
//!
//! A wrong field gives [`Invalid`] with its path; the services answer it with `InvalidArgument`. Nothing here does
//! I/O, knows what exists, or panics, whatever the message (a property test holds it to that). What depends on the
//! state of the host or of other objects (does the image exist, is there such a handler) is decided further down.
//!
//! May use: `crisp-model`, `crisp-proto`, and of the configuration what a handler forbids. A crash in the middle leaves nothing, since nothing is done.

pub mod container;
pub mod error;
pub mod filter;
pub mod handler;
pub mod id;
pub mod image;
mod mount;
mod namespaces;
mod profile;
pub mod request;
pub mod resources;
pub mod sandbox;
#[allow(deprecated, reason = "profiles named by the old strings are understood too")]
mod security;
pub mod signal;
mod sysctl;
mod text;

#[cfg(test)]
mod arbitrary;

pub use container::{container_config, fits_sandbox};
pub use error::{At, Invalid};
pub use filter::{ContainerFilter, SandboxFilter};
pub use id::IdQuery;
pub use resources::linux_resources;
pub use sandbox::sandbox_config;
