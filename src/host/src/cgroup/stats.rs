//! Measuring a cgroup, straight from the kernel's files.

mod parse;
mod v1;
mod v2;

use super::{CgroupError, CgroupFs, Layout, files::Reader};

/// How much a cgroup has used. A part is `None` when the host has no controller for it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CgroupStats {
    /// Processor time.
    pub cpu: Option<CpuStats>,
    /// Memory.
    pub memory: Option<MemoryStats>,
    /// Processes and threads.
    pub pids: Option<PidStats>,
    /// What was read from and written to block devices; empty unless asked for.
    pub io: Vec<BlockIo>,
    /// Pressure stall information of I/O (v2).
    pub io_pressure: Option<Pressure>,
}

/// Processor time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CpuStats {
    /// All of it, nanoseconds.
    pub usage: u64,
    /// In user mode, nanoseconds.
    pub user: u64,
    /// In the kernel, nanoseconds.
    pub system: u64,
    /// CFS periods that passed while it wanted to run.
    pub periods: u64,
    /// Of these, ones in which it ran out of its quota.
    pub throttled_periods: u64,
    /// How long it had to wait, nanoseconds.
    pub throttled: u64,
    /// Pressure stall information (v2).
    pub pressure: Option<Pressure>,
}

/// Memory, in bytes unless it says otherwise; with everything below the cgroup.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MemoryStats {
    /// In use, with the page cache.
    pub usage: u64,
    /// Most that was ever in use (`None`: v2 before Linux 5.19).
    pub max_usage: Option<u64>,
    /// The limit that holds (the lowest of its own and those above, on v1); `None`: none.
    pub limit: Option<u64>,
    /// The guarantee the cgroup would like (v1 soft limit, v2 `memory.low`).
    pub reservation: Option<u64>,
    /// How often the limit was met (v1 failcnt, v2 `memory.events` max).
    pub limit_hits: u64,
    /// Page cache.
    pub cache: u64,
    /// Anonymous memory.
    pub rss: u64,
    /// Mapped files.
    pub mapped_file: u64,
    /// Memory of the kernel for it.
    pub kernel: u64,
    /// Page cache that was not used for a while: the first to be reclaimed.
    pub inactive_file: u64,
    /// Page cache that was.
    pub active_file: u64,
    /// Page faults, number.
    pub page_faults: u64,
    /// Page faults that had to read, number.
    pub major_page_faults: u64,
    /// Swap in use.
    pub swap: u64,
    /// Limit of swap alone; `None`: none.
    pub swap_limit: Option<u64>,
    /// Pressure stall information (v2).
    pub pressure: Option<Pressure>,
}

impl MemoryStats {
    /// What cannot easily be reclaimed: the kubelet's measure for eviction.
    pub fn working_set(&self) -> u64 {
        self.usage.saturating_sub(self.inactive_file)
    }

    /// How much is left of the limit; `None`: there is none.
    pub fn available(&self) -> Option<u64> {
        self.limit.map(|limit| limit.saturating_sub(self.working_set()))
    }
}

/// Tasks, that is threads of all processes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PidStats {
    /// How many there are.
    pub current: u64,
    /// How many there may be; `None`: any number.
    pub limit: Option<u64>,
}

/// Kinds of I/O that the kernel counts apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum IoOperation {
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// Synchronous ones (v1).
    Sync,
    /// Asynchronous ones (v1).
    Async,
    /// Discards.
    Discard,
    /// All together (v1).
    Total,
}

impl IoOperation {
    /// `Read`, `Write`…, as v1 and cAdvisor spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "Read",
            Self::Write => "Write",
            Self::Sync => "Sync",
            Self::Async => "Async",
            Self::Discard => "Discard",
            Self::Total => "Total",
        }
    }
}

/// I/O of one kind on one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockIo {
    /// Device number.
    pub major: u32,
    /// Device number.
    pub minor: u32,
    /// Which.
    pub operation: IoOperation,
    /// Bytes.
    pub bytes: u64,
    /// Operations.
    pub count: u64,
}

/// Pressure stall information of one resource (kernel `Documentation/accounting/psi.rst`).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressure {
    /// Some tasks waited.
    pub some: Psi,
    /// All of them did.
    pub full: Psi,
}

/// One line of it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Psi {
    /// Percent of the last 10 seconds.
    pub avg10: f64,
    /// Percent of the last minute.
    pub avg60: f64,
    /// Percent of the last 5 minutes.
    pub avg300: f64,
    /// Since the cgroup was made, microseconds.
    pub total: u64,
}

/// How much is asked for: each file costs 5 to 20 microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detail {
    /// What CRI stats of a container need.
    Brief,
    /// The same and the number of tasks.
    WithTasks,
    /// Everything.
    Full,
}

impl CgroupFs {
    /// Processor time and memory, from as few files as it takes: tasks, throttling, block I/O and what is marked so
    /// may be left out.
    pub fn stats(&self, cgroup: &str) -> Result<CgroupStats, CgroupError> {
        self.measure(cgroup, Detail::Brief)
    }

    /// [`CgroupFs::stats`] with the number of tasks.
    pub fn stats_with_tasks(&self, cgroup: &str) -> Result<CgroupStats, CgroupError> {
        self.measure(cgroup, Detail::WithTasks)
    }

    /// Everything in [`CgroupStats`].
    pub fn full_stats(&self, cgroup: &str) -> Result<CgroupStats, CgroupError> {
        self.measure(cgroup, Detail::Full)
    }

    /// Processor time used, nanoseconds: one file.
    pub fn cpu_usage(&self, cgroup: &str) -> Result<u64, CgroupError> {
        let relative = super::path::relative(cgroup)?;
        let mut reader = Reader::default();
        let usage = match &self.layout {
            Layout::V1(v1) | Layout::Hybrid { v1, .. } => v1::cpu_usage(v1, relative, &mut reader)?,
            Layout::V2 { root, .. } => v2::cpu_usage(&root.join(relative), &mut reader)?,
        };
        usage.ok_or_else(|| CgroupError::NotFound { cgroup: cgroup.to_owned() })
    }

    /// How many processes of the cgroup and below the kernel's out-of-memory killer has taken.
    pub fn oom_kills(&self, cgroup: &str) -> Result<u64, CgroupError> {
        let relative = super::path::relative(cgroup)?;
        let mut reader = Reader::default();
        let (file, key) = match &self.layout {
            Layout::V1(v1) | Layout::Hybrid { v1, .. } => {
                let root = v1.controllers.get("memory").ok_or(CgroupError::NoController {
                    controller: "memory",
                    setting: "memory.oom_control".into(),
                })?;
                (root.join(relative).join("memory.oom_control"), "oom_kill")
            }
            Layout::V2 { root, .. } => (root.join(relative).join("memory.events"), "oom_kill"),
        };
        match reader.read(&file)? {
            Some(text) => Ok(parse::value(text, key).unwrap_or(0)),
            None => Err(CgroupError::NotFound { cgroup: cgroup.to_owned() }),
        }
    }

    fn measure(&self, cgroup: &str, detail: Detail) -> Result<CgroupStats, CgroupError> {
        let relative = super::path::relative(cgroup)?;
        let mut reader = Reader::default();
        let stats = match &self.layout {
            Layout::V1(v1) | Layout::Hybrid { v1, .. } => v1::measure(v1, relative, detail, &mut reader)?,
            Layout::V2 { root, .. } => v2::measure(&root.join(relative), detail, &mut reader)?,
        };
        stats.ok_or_else(|| CgroupError::NotFound { cgroup: cgroup.to_owned() })
    }
}
