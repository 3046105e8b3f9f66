//! A process as it has to be when its program starts: init of a container, or an exec.

use serde::{Deserialize, Serialize};

/// Everything that the last leg before execve sets. Built by `src/spec`, carried out by the monitor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    /// Program and arguments. The program is looked up in `PATH` of `env` unless it has a slash.
    pub args: Vec<String>,
    /// `NAME=value` entries in order, bytes; duplicates are kept as they are.
    pub env: Vec<Vec<u8>>,
    /// Absolute working directory; made if it is missing.
    pub cwd: String,
    /// User id inside the container's user namespace.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups, without `gid` unless asked for.
    pub additional_gids: Vec<u32>,
    /// `umask(2)`; `None`: 0022.
    pub umask: Option<u32>,
    /// Capability sets, names with `CAP_`.
    pub capabilities: CapabilitySets,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privs: bool,
    /// Resource limits.
    pub rlimits: Vec<Rlimit>,
    /// -1000..1000; clamped to what the host lets us set.
    pub oom_score_adj: Option<i32>,
    /// Profile to change to at execve (`/proc/self/attr/apparmor/exec`).
    pub apparmor_profile: Option<String>,
    /// Label for `/proc/self/attr/exec`.
    pub selinux_label: Option<String>,
    /// A terminal: columns and rows to begin with (0, 0: leave the kernel's).
    pub terminal: Option<(u16, u16)>,
}

/// The five sets of `capabilities(7)`, names with `CAP_`, each intersected with what the monitor has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CapabilitySets {
    /// Bounding.
    pub bounding: Vec<String>,
    /// Effective.
    pub effective: Vec<String>,
    /// Permitted.
    pub permitted: Vec<String>,
    /// Inheritable.
    pub inheritable: Vec<String>,
    /// Ambient.
    pub ambient: Vec<String>,
}

/// A resource limit (`setrlimit(2)`), `RLIMIT_NOFILE` and so on. Clamped to the monitor's hard limit where it may not be raised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// `RLIMIT_…`
    pub kind: String,
    /// Soft.
    pub soft: u64,
    /// Hard.
    pub hard: u64,
}
