//! What pods and containers use, for the CRI's stats calls.
//!
//! Owns who is to be measured (the domain registers and unregisters) and the last measure of each. Reads the kernel's
//! files and `/proc` in the daemon itself: no monitor is asked, no namespace entered, and nothing runs while nobody
//! asks. Each part of an answer carries the time at which it was measured. Everything is in memory and derived: after a
//! crash the domain registers again, and only the first processor rate is missing.

mod layer;
mod network;
mod sampler;
mod slot;

use std::path::PathBuf;
use std::sync::Arc;

pub use crisp_host::cgroup::{Pressure, Psi};
use crisp_model::{ContainerId, SandboxId, time::Timestamp};
pub use layer::TreeSize;
pub use network::InterfaceUsage;
pub use sampler::{Options, Sampler};

/// A container to be measured.
#[derive(Debug, Clone)]
pub struct ContainerTarget {
    /// Its id.
    pub id: ContainerId,
    /// Its pod.
    pub sandbox: SandboxId,
    /// Its cgroup, a path below the hierarchies' roots.
    pub cgroup: String,
    /// Its writable layer.
    pub writable_layer: Option<PathBuf>,
}

/// A pod to be measured.
#[derive(Debug, Clone)]
pub struct SandboxTarget {
    /// Its id.
    pub id: SandboxId,
    /// The cgroup that holds all of it; `None`: there is none, and its containers are added up.
    pub cgroup: Option<String>,
    /// The process whose network is the pod's; `None`: the pod uses the host's, which is not counted as its.
    pub network_pid: Option<i32>,
}

/// Processor time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CpuUsage {
    /// When it was read.
    pub at: Timestamp,
    /// All of it, nanoseconds of one processor.
    pub usage_core_nanos: u64,
    /// Nanoseconds of processor time a second, since the last measure; `None`: this is the first one.
    pub usage_nano_cores: Option<u64>,
    /// Pressure, where the host has it.
    pub pressure: Option<Pressure>,
}

/// Memory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MemoryUsage {
    /// When it was read.
    pub at: Timestamp,
    /// Bytes that cannot easily be reclaimed.
    pub working_set: u64,
    /// Bytes left of the limit; `None`: there is no limit.
    pub available: Option<u64>,
    /// Bytes, with the page cache.
    pub usage: u64,
    /// Bytes of anonymous memory.
    pub rss: u64,
    /// Number.
    pub page_faults: u64,
    /// Number of those that had to read.
    pub major_page_faults: u64,
    /// Pressure, where the host has it.
    pub pressure: Option<Pressure>,
}

/// Swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SwapUsage {
    /// When it was read.
    pub at: Timestamp,
    /// Bytes left of the limit; `None`: there is no limit.
    pub available: Option<u64>,
    /// Bytes.
    pub usage: u64,
}

/// I/O, as far as the CRI asks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct IoUsage {
    /// When it was read.
    pub at: Timestamp,
    /// Pressure.
    pub pressure: Pressure,
}

/// Disk space of a writable layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerUsage {
    /// When the count ended.
    pub at: Timestamp,
    /// How much.
    pub size: TreeSize,
}

/// What one container uses. A part is `None` when it cannot be known: its processes are gone, the host does not count
/// it, or (the layer) it was not counted yet.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerStats {
    /// Which.
    pub id: ContainerId,
    /// Its pod.
    pub sandbox: SandboxId,
    /// Processor time.
    pub cpu: Option<CpuUsage>,
    /// Memory.
    pub memory: Option<MemoryUsage>,
    /// Swap.
    pub swap: Option<SwapUsage>,
    /// I/O.
    pub io: Option<IoUsage>,
    /// Threads; only counted in the stats of a pod that has no cgroup.
    pub tasks: Option<u64>,
    /// Writable layer.
    pub writable_layer: Option<LayerUsage>,
}

/// Network devices of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkUsage {
    /// When they were read.
    pub at: Timestamp,
    /// Each but the loopback; the default one, if there is one (`eth0`), first.
    pub interfaces: Vec<InterfaceUsage>,
}

/// Tasks of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessUsage {
    /// When they were counted.
    pub at: Timestamp,
    /// How many.
    pub count: u64,
}

/// What a pod uses.
#[derive(Debug, Clone, PartialEq)]
pub struct SandboxStats {
    /// Which.
    pub id: SandboxId,
    /// Processor time.
    pub cpu: Option<CpuUsage>,
    /// Memory.
    pub memory: Option<MemoryUsage>,
    /// I/O.
    pub io: Option<IoUsage>,
    /// Network; `None` for one on the host's network.
    pub network: Option<NetworkUsage>,
    /// Processes.
    pub processes: Option<ProcessUsage>,
    /// Its containers that were registered, in the order of their ids.
    pub containers: Vec<Arc<ContainerStats>>,
}
