//! Measures of cgroup v1.

use std::path::{Path, PathBuf};

use super::super::{CgroupError, Hierarchies, files::Reader};
use super::{CgroupStats, CpuStats, Detail, MemoryStats, PidStats, parse};

/// v1's "no limit" is the largest page-aligned number; anything near it means none.
const UNLIMITED: u64 = 1 << 62;

/// `cpuacct.stat` counts in clock ticks of `USER_HZ`, which is 100 on every architecture that matters here.
const NANOS_PER_TICK: u64 = 10_000_000;

fn file(v1: &Hierarchies, controller: &str, relative: &Path, name: &str) -> Option<PathBuf> {
    Some(v1.controllers.get(controller)?.join(relative).join(name))
}

fn read<'a>(
    v1: &Hierarchies,
    relative: &Path,
    (controller, name): (&str, &str),
    reader: &'a mut Reader,
) -> Result<Option<&'a str>, CgroupError> {
    match file(v1, controller, relative, name) {
        Some(path) => reader.read(&path),
        None => Ok(None),
    }
}

pub(super) fn cpu_usage(
    v1: &Hierarchies,
    relative: &Path,
    reader: &mut Reader,
) -> Result<Option<u64>, CgroupError> {
    Ok(read(v1, relative, ("cpuacct", "cpuacct.usage"), reader)?.and_then(parse::number))
}

/// `None`: no hierarchy has the cgroup.
pub(super) fn measure(
    v1: &Hierarchies,
    relative: &Path,
    detail: Detail,
    reader: &mut Reader,
) -> Result<Option<CgroupStats>, CgroupError> {
    let full = detail == Detail::Full;
    let mut stats = CgroupStats {
        cpu: cpu(v1, relative, full, reader)?,
        memory: memory(v1, relative, full, reader)?,
        ..CgroupStats::default()
    };
    if detail != Detail::Brief
        && let Some(current) = read(v1, relative, ("pids", "pids.current"), reader)?.and_then(parse::number)
    {
        let limit = match full {
            true => read(v1, relative, ("pids", "pids.max"), reader)?.and_then(parse::number),
            false => None,
        };
        stats.pids = Some(PidStats { current, limit });
    }
    if full
        && let Some(bytes) =
            read(v1, relative, ("blkio", "blkio.throttle.io_service_bytes_recursive"), reader)?
    {
        let bytes = bytes.to_owned();
        let counts = read(v1, relative, ("blkio", "blkio.throttle.io_serviced_recursive"), reader)?;
        stats.io = parse::blkio(&bytes, counts.unwrap_or_default());
    }
    let nothing = stats.cpu.is_none() && stats.memory.is_none() && stats.pids.is_none();
    Ok((!nothing).then_some(stats))
}

fn cpu(
    v1: &Hierarchies,
    relative: &Path,
    full: bool,
    reader: &mut Reader,
) -> Result<Option<CpuStats>, CgroupError> {
    let Some(usage) = cpu_usage(v1, relative, reader)? else { return Ok(None) };
    let mut cpu = CpuStats { usage, ..CpuStats::default() };
    if full {
        if let Some(text) = read(v1, relative, ("cpuacct", "cpuacct.stat"), reader)? {
            cpu.user = parse::value(text, "user").unwrap_or(0).saturating_mul(NANOS_PER_TICK);
            cpu.system = parse::value(text, "system").unwrap_or(0).saturating_mul(NANOS_PER_TICK);
        }
        if let Some(text) = read(v1, relative, ("cpu", "cpu.stat"), reader)? {
            for (key, value) in parse::pairs(text) {
                match key {
                    "nr_periods" => cpu.periods = value,
                    "nr_throttled" => cpu.throttled_periods = value,
                    "throttled_time" => cpu.throttled = value,
                    _ => {}
                }
            }
        }
    }
    Ok(Some(cpu))
}

fn memory(
    v1: &Hierarchies,
    relative: &Path,
    full: bool,
    reader: &mut Reader,
) -> Result<Option<MemoryStats>, CgroupError> {
    let mut number = |name| -> Result<Option<u64>, CgroupError> {
        Ok(read(v1, relative, ("memory", name), reader)?.and_then(parse::number))
    };
    let Some(usage) = number("memory.usage_in_bytes")? else { return Ok(None) };
    let mut memory = MemoryStats { usage, ..MemoryStats::default() };
    if full {
        memory.max_usage = number("memory.max_usage_in_bytes")?;
        memory.reservation = number("memory.soft_limit_in_bytes")?.filter(|limit| *limit < UNLIMITED);
        memory.limit_hits = number("memory.failcnt")?.unwrap_or(0);
        memory.kernel = number("memory.kmem.usage_in_bytes")?.unwrap_or(0);
    }
    if let Some(text) = read(v1, relative, ("memory", "memory.stat"), reader)? {
        from_stat(text, &mut memory);
    }
    Ok(Some(memory))
}

fn from_stat(text: &str, memory: &mut MemoryStats) {
    let mut both = None;
    for (key, value) in parse::pairs(text) {
        match key {
            "hierarchical_memory_limit" => memory.limit = Some(value).filter(|limit| *limit < UNLIMITED),
            "hierarchical_memsw_limit" => both = Some(value).filter(|limit| *limit < UNLIMITED),
            "total_cache" => memory.cache = value,
            "total_rss" => memory.rss = value,
            "total_mapped_file" => memory.mapped_file = value,
            "total_inactive_file" => memory.inactive_file = value,
            "total_active_file" => memory.active_file = value,
            "total_pgfault" => memory.page_faults = value,
            "total_pgmajfault" => memory.major_page_faults = value,
            "total_swap" => memory.swap = value,
            _ => {}
        }
    }
    if let (Some(both), Some(limit)) = (both, memory.limit) {
        memory.swap_limit = Some(both.saturating_sub(limit));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded on Linux 6.18, shortened.
    const STAT: &str = "cache 10838016\nrss 14094336\npgfault 46703\nhierarchical_memory_limit 67108864\n\
        hierarchical_memsw_limit 100663296\ntotal_cache 1452322816\ntotal_rss 26251264\ntotal_mapped_file 11497472\n\
        total_swap 4096\ntotal_pgfault 51057511\ntotal_pgmajfault 6467\ntotal_inactive_file 951664640\n\
        total_active_file 491569152\n";

    #[test]
    fn memory_of_a_recorded_file() {
        let mut memory = MemoryStats { usage: 1_500_000_000, ..MemoryStats::default() };
        from_stat(STAT, &mut memory);
        assert_eq!(memory.rss, 26_251_264, "with everything below");
        assert_eq!(memory.limit, Some(64 << 20));
        assert_eq!(memory.swap_limit, Some(32 << 20));
        assert_eq!(memory.swap, 4096);
        assert_eq!((memory.page_faults, memory.major_page_faults), (51_057_511, 6467));
        assert_eq!(memory.working_set(), 1_500_000_000 - 951_664_640);
        assert_eq!(memory.available(), Some(0), "more is in use than the limit allows");
    }

    #[test]
    fn no_limit_is_none() {
        let mut memory = MemoryStats::default();
        from_stat(
            "hierarchical_memory_limit 9223372036854771712\nhierarchical_memsw_limit 9223372036854771712\n",
            &mut memory,
        );
        assert_eq!((memory.limit, memory.swap_limit, memory.available()), (None, None, None));
    }
}
