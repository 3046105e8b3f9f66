//! What a container takes from its image.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The parts of an image's configuration that a container's process is made of (OCI image-spec `config.md`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// `user`, `uid`, `user:group`, `uid:gid`; empty: root.
    pub user: String,
    /// `NAME=value` entries.
    pub env: Vec<String>,
    /// Program and first arguments.
    pub entrypoint: Vec<String>,
    /// Arguments.
    pub cmd: Vec<String>,
    /// Working directory; empty: `/`.
    pub working_dir: String,
    /// Name or number of the stop signal; empty: SIGTERM.
    pub stop_signal: String,
    /// Paths that the image declares as volumes.
    pub volumes: Vec<String>,
    /// Labels.
    pub labels: std::collections::BTreeMap<String, String>,
}

/// A container's root file system, ready to be mounted: overlayfs over shared layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rootfs {
    /// Read-only layers, topmost first.
    pub lower: Vec<PathBuf>,
    /// Writable layer.
    pub upper: PathBuf,
    /// overlayfs' work folder, on the file system of `upper`.
    pub work: PathBuf,
    /// Where it is (to be) mounted.
    pub mountpoint: PathBuf,
}
