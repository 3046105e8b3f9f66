//! What can go wrong with images, by what the caller can do about it.

use std::{io, path::PathBuf, sync::Arc};

use crate::digest::Digest;

/// Errors of the image store. Cheap to clone, because one failed download may have many waiters.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ImageError {
    /// The text is no image reference (wrong input).
    #[error("image reference {reference:?}: {why}")]
    InvalidReference {
        /// What was given, shortened.
        reference: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Neither the store nor, on a pull, any registry knows the image.
    #[error("image {reference} not found{}", context(.detail))]
    NotFound {
        /// The image.
        reference: String,
        /// Who was asked; empty for the local store.
        detail: String,
    },
    /// The registry wants (other) credentials.
    #[error("image {reference}: access denied: {detail}")]
    Denied {
        /// The image.
        reference: String,
        /// Host, status and the registry's own words.
        detail: String,
    },
    /// No host answered properly; may work later.
    #[error("image {reference}: {detail}")]
    Unavailable {
        /// The image.
        reference: String,
        /// Each host with its failure.
        detail: String,
    },
    /// Nothing arrived for the configured time.
    #[error("no progress for {seconds} s: blob {blob} at byte {byte} of {size} from {host}")]
    Stalled {
        /// The blob.
        blob: Digest,
        /// Bytes received so far.
        byte: u64,
        /// Bytes expected.
        size: u64,
        /// The host it came from.
        host: String,
        /// The limit, in seconds.
        seconds: u64,
    },
    /// The object is well-formed but of a kind that is not supported.
    #[error("{what} is not supported: {kind:?}")]
    Unsupported {
        /// What was looked at.
        what: String,
        /// Its media type, algorithm or platform.
        kind: String,
    },
    /// Content is not what its digest, size or syntax says.
    #[error("{what}: {why}")]
    Damaged {
        /// What was looked at.
        what: String,
        /// How it differs.
        why: String,
    },
    /// A layer's archive is malformed or hostile.
    #[error("layer {layer}: entry {entry:?}: {why}")]
    BadArchive {
        /// Digest of the layer.
        layer: String,
        /// Name of the entry, shortened.
        entry: String,
        /// What is wrong.
        why: String,
    },
    /// A configured bound was exceeded.
    #[error("{what} is larger than the configured {limit} {unit}")]
    TooLarge {
        /// What was looked at.
        what: String,
        /// The bound.
        limit: u64,
        /// Its unit.
        unit: &'static str,
    },
    /// The disk is full.
    #[error("no space left for {what}")]
    NoSpace {
        /// What was being written.
        what: String,
    },
    /// A configuration file (hosts.toml, certificates, credentials) is wrong.
    #[error("{}: {why}", .path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The host refused an operation.
    #[error("{operation} {object}: {source}")]
    Host {
        /// What was tried.
        operation: &'static str,
        /// On what.
        object: String,
        /// The kernel's answer.
        source: Arc<io::Error>,
    },
    /// The pull was given up because nobody waited for it any more, or the store is closing.
    #[error("{what} was cancelled")]
    Cancelled {
        /// What was going on.
        what: String,
    },
}

fn context(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(": {detail}") }
}

impl ImageError {
    /// A failed system call; a full disk is told apart, since people can do something about it.
    pub(crate) fn host(operation: &'static str, object: impl Into<String>, source: io::Error) -> Self {
        let object = object.into();
        match source.raw_os_error().map(nix::errno::Errno::from_raw) {
            Some(nix::errno::Errno::ENOSPC | nix::errno::Errno::EDQUOT) => Self::NoSpace { what: object },
            _ => Self::Host { operation, object, source: Arc::new(source) },
        }
    }

    pub(crate) fn damaged(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Damaged { what: what.into(), why: why.into() }
    }
}

/// Text of a foreign name for messages: bounded, and safe to print.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(200)];
    let mut text = String::from_utf8_lossy(shown).into_owned();
    if shown.len() < bytes.len() {
        text.push_str(&format!("... ({} bytes)", bytes.len()));
    }
    text
}
