//! Containers: what was asked for, and the states they pass through.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    resources::LinuxResources,
    security::{IdMapping, SecurityContext},
    time::Timestamp,
};

/// Name of a container within its sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ContainerMetadata {
    /// Container name.
    pub name: String,
    /// How often it was made anew.
    pub attempt: u32,
}

/// How mounts made on one side reach the other (`mount_namespaces(7)`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Propagation {
    /// Not at all.
    #[default]
    Private,
    /// From the host into the container.
    HostToContainer,
    /// Both ways.
    Bidirectional,
}

/// A volume of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mount {
    /// Absolute path inside.
    pub container_path: String,
    /// Path on the host. Empty for an image volume.
    pub host_path: PathBuf,
    /// Not writable.
    pub readonly: bool,
    /// Nor anything mounted beneath it. Implies `readonly` and private propagation.
    pub recursive_readonly: bool,
    /// Propagation.
    pub propagation: Propagation,
    /// Relabel for SELinux.
    pub selinux_relabel: bool,
    /// Id mapping of the volume.
    pub uid_mappings: Vec<IdMapping>,
    /// Id mapping of the volume.
    pub gid_mappings: Vec<IdMapping>,
    /// Image reference whose files are the volume, read-only.
    pub image: Option<String>,
    /// Folder inside that image.
    pub image_sub_path: String,
    /// More mount options, `noexec` and the like.
    pub mount_options: Vec<String>,
}

/// A device of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Path on the host.
    pub host_path: PathBuf,
    /// Path inside.
    pub container_path: String,
    /// Any of `r`, `w`, `m`.
    pub permissions: String,
}

/// A container as it was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerConfig {
    /// Name.
    pub metadata: ContainerMetadata,
    /// The image as the kubelet names it (an image id after a pull).
    pub image: String,
    /// The image as the user names it (CRI `user_specified_image`).
    pub user_specified_image: String,
    /// Replaces the image's entrypoint if not empty.
    pub command: Vec<String>,
    /// Replaces the image's arguments if not empty.
    pub args: Vec<String>,
    /// Empty: the image's, else `/`.
    pub working_dir: String,
    /// Environment; values are bytes and need not be UTF-8.
    pub envs: Vec<(String, Vec<u8>)>,
    /// Volumes.
    pub mounts: Vec<Mount>,
    /// Devices.
    pub devices: Vec<Device>,
    /// Names of CDI devices (`vendor.com/class=name`).
    pub cdi_devices: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Log file, relative to the sandbox's log directory; empty: no log.
    pub log_path: String,
    /// Keep an open standard input.
    pub stdin: bool,
    /// Close it after the first client that attached has gone.
    pub stdin_once: bool,
    /// A terminal.
    pub tty: bool,
    /// Limits.
    pub resources: LinuxResources,
    /// Security settings.
    pub security: SecurityContext,
    /// Signal number for StopContainer; `None`: the image's, else SIGTERM.
    pub stop_signal: Option<i32>,
}

/// How a container's first process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// Exit code; 128 + signal for one that was killed.
    pub code: i32,
    /// The signal that killed it, if one did.
    pub signal: Option<i32>,
    /// Whether the kernel's out-of-memory killer took a process of the container (its own count, not a guess).
    pub oom_killed: bool,
    /// When the monitor reaped it.
    pub finished_at: Timestamp,
}

/// CRI state of a container, derived from the facts in its record.
///
/// ```text
///   Created --start--> Running --exit--> Exited --> (removed)
///      \______________ failed start _______/
///   Unknown: its monitor is gone and no exit was recorded
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContainerState {
    /// Made, not started.
    Created,
    /// Its first process runs.
    Running,
    /// It ended, or never came to run.
    Exited,
    /// Nobody knows.
    Unknown,
}
