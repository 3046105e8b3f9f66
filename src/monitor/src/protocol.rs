//! What the daemon and a pod's monitor say to each other.
//!
//! A frame is a little-endian `u32` length and that many bytes of JSON; descriptors travel by `SCM_RIGHTS` with the
//! first byte of their frame, in the order that the message's documentation names. The daemon sends [`Call`]s, each with a number
//! of its own; the monitor answers each with one [`Reply`] of that number and sends [`Event`]s in between. A daemon
//! that connects later (after a restart) asks for [`Request::State`] and misses nothing: what happened meanwhile is
//! in the state.
//!
//! Compatibility: a daemon must be able to talk to monitors of its previous version, so fields are only added,
//! with defaults, and [`PROTOCOL`] is raised when a message is.

use std::{collections::BTreeMap, path::PathBuf};

use crisp_model::{
    ContainerId, ExecId, ExitStatus, LinuxResources, SandboxId,
    container::Propagation,
    image::Rootfs,
    process::Process,
    security::{IdMapping, UserNamespace},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

/// Version of this protocol.
pub const PROTOCOL: u32 = 1;

/// Longest frame, bytes. An environment and arguments may be 2 MiB (`MAX_ARG_STRLEN` allows more, the kubelet does
/// not get near it); JSON spends up to four bytes on a byte of the environment.
pub const MAX_FRAME: usize = 16 << 20;

/// Most descriptors with one frame: standard input, output, error and the seccomp program.
pub const MAX_DESCRIPTORS: usize = 4;

/// A request with its number.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Call {
    /// Chosen by the daemon, unique on the connection.
    pub seq: u64,
    /// What to do.
    pub request: Request,
}

/// What the daemon asks for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Everything the monitor knows. Answer: [`Answer::State`].
    State,
    /// Starts the infra container; once. Answer: [`Answer::Infra`].
    StartInfra(Box<StartInfra>),
    /// Creates a container up to the point where its program would start. Descriptor: the seccomp program (array of
    /// `struct sock_filter`) in a memfd, if `seccomp` says so. Answer: [`Answer::Created`].
    Create(Box<CreateContainer>),
    /// Lets a created container's program start. Answer: [`Answer::Started`].
    Start {
        /// Which.
        container: ContainerId,
    },
    /// Sends a signal to the first process, or to every process of the container. No error if it has exited.
    Signal {
        /// Which.
        container: ContainerId,
        /// Number.
        signal: i32,
        /// Every process in the container's cgroup (repeated until none is left, for SIGKILL).
        all: bool,
    },
    /// Adds a process to a running container. Descriptors: standard input, output, error (those that `stdio` names; for a terminal none), then the
    /// seccomp program. Answer: [`Answer::ExecStarted`], with the terminal's master as descriptor if there is one; it comes after execve has succeeded.
    Exec(Box<StartExec>),
    /// Kills all that an exec started. No error if nothing is left.
    KillExec {
        /// Which.
        exec: ExecId,
    },
    /// Joins a client to a container's streams. Descriptors: write ends of pipes for output and error, those asked for (a terminal has
    /// output only). The monitor copies what it reads from then on; it drops a client that does not keep up. Answer:
    /// [`Answer::Attached`], with a write descriptor for the container's input (or the terminal's master) if `stdin`.
    Attach {
        /// Which.
        container: ContainerId,
        /// Wants to write its input.
        stdin: bool,
        /// Sends a pipe for its output.
        stdout: bool,
        /// Sends a pipe for its errors.
        stderr: bool,
    },
    /// Closes the monitor's own end of a container's standard input (the end of a `stdin_once` client).
    CloseStdin {
        /// Which.
        container: ContainerId,
    },
    /// Sets a terminal's size.
    Resize {
        /// Which.
        terminal: Terminal,
        /// Columns.
        columns: u16,
        /// Rows.
        rows: u16,
    },
    /// Closes the log file and opens its path anew. When the answer comes the new file exists.
    ReopenLog {
        /// Which.
        container: ContainerId,
    },
    /// Forgets an exited (or never started) container; kills what is left of it, removes its cgroups and state. Idempotent.
    Delete {
        /// Which.
        container: ContainerId,
    },
    /// Kills everything in the pod, the infra container last, removes its cgroups, and ends the monitor after the answer.
    Shutdown,
}

/// Which terminal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Terminal {
    /// A container's.
    Container(ContainerId),
    /// An exec's.
    Exec(ExecId),
}

/// Namespaces and settings of the infra container.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StartInfra {
    /// A network namespace of the pod's own.
    pub network: bool,
    /// Where it is kept, if it is there already, with its loopback device up; else it is made.
    pub netns: Option<PathBuf>,
    /// An IPC namespace of the pod's own.
    pub ipc: bool,
    /// A UTS namespace of the pod's own.
    pub uts: bool,
    /// A pid namespace that the containers share; the infra container is its process 1 and reaps orphans.
    pub pid: bool,
    /// A user namespace that owns all of these.
    pub user: Option<UserNamespace>,
    /// Host name, if `uts`.
    pub hostname: String,
    /// Sysctls, dotted names, of the namespaces above.
    pub sysctls: BTreeMap<String, String>,
    /// cgroup of the infra container.
    pub cgroup: Cgroup,
    /// Its OOM score; clamped to what the host allows.
    pub oom_score_adj: Option<i32>,
    /// SELinux label.
    pub selinux_label: Option<String>,
}

/// A cgroup and who manages it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cgroup {
    /// cgroupfs: a path below every hierarchy's root, `/kubepods/burstable/pod…/<id>`. systemd: `slice:prefix:name`.
    pub path: String,
    /// The systemd driver.
    pub systemd: bool,
    /// What systemd is told of the container's limits, so that it keeps them when it reloads. The kernel's files are written from
    /// the spec in any case.
    pub limits: LinuxResources,
}

/// A container to create.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CreateContainer {
    /// Its id.
    pub container: ContainerId,
    /// OCI runtime spec whose process is bare (root, no capabilities, `/`): the monitor hands it to libcontainer, and
    /// makes `process` of it itself on the last leg. Namespaces of the pod are entries with
    /// `/proc/<pid>/ns/…` paths. `root.path` is `rootfs.mountpoint`.
    pub spec: serde_json::Value,
    /// The process to become.
    pub process: Process,
    /// Layers to mount, in a mount namespace of the worker's own.
    pub rootfs: Rootfs,
    /// Image volumes: overlays of layers mounted (read-only) at their mountpoint before the container is created.
    #[serde(default)]
    pub image_volumes: Vec<ImageVolume>,
    /// Volumes to clone with an id mapping before they are mounted: the bind mount's source in `spec` is `staging`.
    #[serde(default)]
    pub idmapped: Vec<IdmappedMount>,
    /// The pod's user namespace, if it has one; the root file system's layers are id-mapped for it.
    #[serde(default)]
    pub user: Option<UserNamespace>,
    /// Mounts whose propagation differs from the spec's `rootfsPropagation`: path inside, kind.
    #[serde(default)]
    pub propagation: Vec<(String, Propagation)>,
    /// A seccomp program comes with the frame.
    pub seccomp: bool,
    /// Keep its input open.
    pub stdin: bool,
    /// Log file, absolute; `None`: output is read and dropped (after the attached clients had it).
    pub log: Option<PathBuf>,
    /// Its cgroup.
    pub cgroup: Cgroup,
}

/// Layers of an image as a volume.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ImageVolume {
    /// Read-only layers, topmost first.
    pub lower: Vec<PathBuf>,
    /// Where to mount it; the bind mount's source in the spec is this or a folder in it.
    pub mountpoint: PathBuf,
}

/// A volume seen through an id mapping.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IdmappedMount {
    /// On the host.
    pub source: PathBuf,
    /// Where to mount the mapped clone.
    pub staging: PathBuf,
    /// User ids.
    pub uids: Vec<IdMapping>,
    /// Group ids.
    pub gids: Vec<IdMapping>,
}

/// A process to add to a running container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StartExec {
    /// Chosen by the daemon.
    pub exec: ExecId,
    /// Where.
    pub container: ContainerId,
    /// The process.
    pub process: Process,
    /// Which of standard input, output and error come as descriptors; the others are `/dev/null`.
    pub stdio: [bool; 3],
    /// A seccomp program comes with the frame.
    pub seccomp: bool,
}

/// What the monitor sends.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Message {
    /// To a call.
    Reply(Reply),
    /// By itself; to every connection.
    Event(Event),
}

/// The answer to the call of the same number.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reply {
    /// The call's number.
    pub seq: u64,
    /// What came of it.
    pub result: Result<Answer, Failure>,
}

/// A successful answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// Done.
    Done,
    /// See [`Request::State`].
    State(Box<State>),
    /// The infra container runs.
    Infra(Infra),
    /// The container waits to be started.
    Created {
        /// Its first process, in the monitor's pid namespace.
        pid: i32,
    },
    /// Its program runs.
    Started {
        /// Since.
        at: Timestamp,
    },
    /// The program of the exec runs.
    ExecStarted {
        /// Its process, in the monitor's pid namespace.
        pid: i32,
    },
    /// The client is joined.
    Attached,
}

/// Why a request failed, by what the caller can decide.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum Failure {
    /// No such container or exec.
    #[error("{what}: not found")]
    NotFound {
        /// Which.
        what: String,
    },
    /// The container is in another state than the request needs.
    #[error("{what} is {state}, {needed} is needed")]
    WrongState {
        /// Which.
        what: String,
        /// Its state.
        state: String,
        /// What would do.
        needed: String,
    },
    /// The program, the working directory or a mount source does not exist or cannot be run.
    #[error("{object}: {reason}")]
    Invalid {
        /// What is wrong, by name.
        object: String,
        /// Why.
        reason: String,
    },
    /// The host refused an operation.
    #[error("{operation}: {reason}")]
    Host {
        /// Operation and object.
        operation: String,
        /// The cause.
        reason: String,
    },
}

/// The running infra container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Infra {
    /// Process id in the monitor's pid namespace.
    pub pid: i32,
    /// `starttime` of `/proc/<pid>/stat` (`proc(5)` field 22): tells it from a later process of the same number.
    pub start_time: u64,
}

/// Everything a monitor knows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    /// The monitor's [`PROTOCOL`].
    pub protocol: u32,
    /// Its pod.
    pub sandbox: SandboxId,
    /// The infra container, once it was started.
    pub infra: Option<Infra>,
    /// Whether and how it ended.
    pub infra_exit: Option<ExitStatus>,
    /// Containers that were created and not deleted.
    pub containers: Vec<ContainerReport>,
}

/// One container in [`State`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContainerReport {
    /// Its id.
    pub container: ContainerId,
    /// Its first process.
    pub pid: i32,
    /// When its program was started.
    pub started_at: Option<Timestamp>,
    /// How it ended.
    pub exit: Option<ExitStatus>,
}

/// Something that happened below.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// The infra container's process ended.
    InfraExited(ExitStatus),
    /// A container's first process ended; all of its output up to then is in the log.
    Exited {
        /// Which.
        container: ContainerId,
        /// How.
        status: ExitStatus,
    },
    /// An exec's process ended.
    ExecExited {
        /// Which.
        exec: ExecId,
        /// How.
        status: ExitStatus,
    },
}
