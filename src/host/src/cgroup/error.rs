//! Why a cgroup operation failed, by what the caller can decide.

use std::{io, path::PathBuf, time::Duration};

/// An error of [`super::CgroupFs`].
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The host has no cgroup file system where this process can see it.
    #[error("no cgroup file system is mounted")]
    NotMounted,
    /// The caller's text does not name a cgroup.
    #[error("{path:?} is not a cgroup: {reason}")]
    InvalidPath {
        /// The text.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The cgroup is gone (or never was).
    #[error("cgroup {cgroup}: not found")]
    NotFound {
        /// Its path.
        cgroup: String,
    },
    /// The host lacks what the request needs.
    #[error("cannot set {setting}: controller {controller} is not available on this host")]
    NoController {
        /// `memory`, `cpu`…
        controller: &'static str,
        /// What was to be set.
        setting: String,
    },
    /// The kernel did not take a value.
    #[error("cannot set {file} to {value:?}: {source}{hint}")]
    Refused {
        /// The whole path.
        file: PathBuf,
        /// What was written.
        value: String,
        /// What that errno means for this file; empty or beginning with `; `.
        hint: String,
        /// The cause.
        source: io::Error,
    },
    /// The memory limit would kill what runs.
    #[error(
        "cannot lower the memory limit of {cgroup} to {limit} bytes: {usage} bytes are in use and cannot be reclaimed"
    )]
    BelowUsage {
        /// Its path.
        cgroup: String,
        /// Asked for, bytes.
        limit: u64,
        /// In use, bytes.
        usage: u64,
    },
    /// Something is still there after the time allowed.
    #[error("cgroup {cgroup}: {what} after {waited:?}")]
    Busy {
        /// Its path.
        cgroup: String,
        /// What is left.
        what: String,
        /// How long it was tried.
        waited: Duration,
    },
    /// The host refused an operation.
    #[error("{operation} {path}: {source}")]
    Host {
        /// `read`, `mkdir`…
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl CgroupError {
    pub(super) fn host(operation: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Host { operation, path: path.into(), source }
    }
}
