//! The last measure of one cgroup, and the next.

use std::time::{Duration, Instant};

use crisp_host::cgroup::{CgroupError, CgroupFs, CgroupStats};
use crisp_model::time::Timestamp;

use super::{CpuUsage, IoUsage, MemoryUsage, SwapUsage};

/// The parts of an answer that come from a cgroup.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Usage {
    pub(super) cpu: Option<CpuUsage>,
    pub(super) memory: Option<MemoryUsage>,
    pub(super) swap: Option<SwapUsage>,
    pub(super) io: Option<IoUsage>,
    pub(super) tasks: Option<u64>,
}

/// Processor time at a moment, to take a rate from.
#[derive(Debug, Clone, Copy)]
struct Base {
    at: Instant,
    usage: u64,
}

/// A cgroup that is measured now and then.
#[derive(Debug, Default)]
pub(super) struct Slot {
    base: Option<Base>,
    last: Option<(Instant, Usage)>,
}

impl Slot {
    /// Takes the point from which the first rate is counted.
    pub(super) fn begin(&mut self, fs: &CgroupFs, cgroup: &str) {
        // One that cannot be read has no rate in its first answer.
        self.base = fs.cpu_usage(cgroup).ok().map(|usage| Base { at: Instant::now(), usage });
    }

    /// The last measure if it is younger than `ttl`, else a new one, with the tasks if `whole`. A cgroup that is gone
    /// has used nothing.
    pub(super) fn usage(
        &mut self,
        fs: &CgroupFs,
        cgroup: &str,
        ttl: Duration,
        whole: bool,
    ) -> Result<Usage, CgroupError> {
        if let Some((at, usage)) = self.last
            && at.elapsed() < ttl
            && (!whole || usage.tasks.is_some())
        {
            return Ok(usage);
        }
        let stats = if whole { fs.stats_with_tasks(cgroup) } else { fs.stats(cgroup) };
        let usage = match stats {
            Ok(stats) => self.convert(&stats, Instant::now(), Timestamp::now()),
            Err(CgroupError::NotFound { .. }) => {
                *self = Self::default();
                return Ok(Usage::default());
            }
            Err(error) => return Err(error),
        };
        self.last = Some((Instant::now(), usage));
        Ok(usage)
    }

    fn convert(&mut self, stats: &CgroupStats, now: Instant, at: Timestamp) -> Usage {
        let cpu = stats.cpu.as_ref().map(|cpu| {
            let rate = self.base.and_then(|base| rate(base, now, cpu.usage));
            self.base = Some(Base { at: now, usage: cpu.usage });
            CpuUsage { at, usage_core_nanos: cpu.usage, usage_nano_cores: rate, pressure: cpu.pressure }
        });
        let memory = stats.memory.as_ref().map(|memory| MemoryUsage {
            at,
            working_set: memory.working_set(),
            available: memory.available(),
            usage: memory.usage,
            rss: memory.rss,
            page_faults: memory.page_faults,
            major_page_faults: memory.major_page_faults,
            pressure: memory.pressure,
        });
        let swap = stats.memory.as_ref().map(|memory| SwapUsage {
            at,
            available: memory.swap_limit.map(|limit| limit.saturating_sub(memory.swap)),
            usage: memory.swap,
        });
        let io = stats.io_pressure.map(|pressure| IoUsage { at, pressure });
        Usage { cpu, memory, swap, io, tasks: stats.pids.as_ref().map(|pids| pids.current) }
    }
}

/// Nanoseconds of processor time a second; `None` if no time passed or the counter went back.
fn rate(base: Base, now: Instant, usage: u64) -> Option<u64> {
    let passed = now.checked_duration_since(base.at)?.as_nanos();
    let used = u128::from(usage.checked_sub(base.usage)?);
    u64::try_from((used * 1_000_000_000).checked_div(passed)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        let at = Instant::now();
        let base = Base { at, usage: 1000 };
        let after = |millis| at + Duration::from_millis(millis);
        assert_eq!(rate(base, after(1000), 500_001_000), Some(500_000_000), "half a processor");
        assert_eq!(rate(base, after(500), 1_000_001_000), Some(2_000_000_000), "two processors");
        assert_eq!(rate(base, at, 2000), None, "no time passed");
        assert_eq!(rate(base, after(1), 999), None, "the counter went back");
    }
}
