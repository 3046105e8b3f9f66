//! References, registries, pulls, layers and the index of images.
//!
//! ```text
//!   reference, platform, manifest      what is asked for, and what the answers say (pure)
//!        |
//!   registry   hosts.toml, TLS, credentials, requests, transfers that resume
//!        |
//!   pull       documents -> layers all at once (one flight a layer, whoever asks) -> commit -> record
//!        |
//!   unpack     stream -> sha256, decompress -> sha256, tar -> files in overlayfs form + recipe
//!        |
//!   layers     tmp/ -> (syncfs, rename) layers/ -> (last lease dropped) trash/
//!   index      images and their names, one record each
//!   rootfs     stacks of layers for containers and volumes, writable layers, sizes
//!   transfer   import and export; verify: layers against their digests; why: which hosts would be tried
//! ```
//!
//! Everything on disk is below two folders, given in [`ImageStoreConfig`]. Nothing is recorded before it is whole and
//! synced; what is not recorded is removed by the next start. Leases ([`std::sync::Arc`]s of layers) decide what
//! lives, so pulls, removals and containers cannot meet half-way.

mod config;
mod digest;
mod error;
#[cfg(any(fuzzing, feature = "fuzzing"))]
pub mod fuzzing;
mod image;
mod index;
mod layers;
mod manifest;
mod platform;
mod pull;
mod reference;
mod registry;
mod rootfs;
mod store;
mod transfer;
mod unpack;
mod verify;
mod why;

pub use config::ImageStoreConfig;
pub use digest::{Digest, InvalidDigest};
pub use error::ImageError;
pub use image::Image;
pub use platform::Platform;
pub use pull::progress::{LayerProgress, PullProgress};
pub use reference::Reference;
pub use registry::Credentials;
pub use rootfs::{FsUsage, ImageVolume};
pub use store::{ImageStore, OpenReport};
pub use verify::{Damage, VerifyReport};
pub use why::HostReport;

/// Runs work that waits for the disk where that may be.
pub(crate) async fn blocking<T, F>(work: F) -> Result<T, ImageError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, ImageError> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(ImageError::Cancelled { what: "work on images".into() }),
    }
}
