//! Measures of cgroup v2.

use std::path::Path;

use super::super::{CgroupError, files::Reader};
use super::{CgroupStats, CpuStats, Detail, MemoryStats, PidStats, Pressure, parse};

pub(super) fn cpu_usage(dir: &Path, reader: &mut Reader) -> Result<Option<u64>, CgroupError> {
    let text = reader.read(&dir.join("cpu.stat"))?;
    Ok(text.and_then(|text| parse::value(text, "usage_usec")).map(|micros| micros.saturating_mul(1000)))
}

/// `None`: the cgroup is gone.
pub(super) fn measure(
    dir: &Path,
    detail: Detail,
    reader: &mut Reader,
) -> Result<Option<CgroupStats>, CgroupError> {
    let full = detail == Detail::Full;
    let cpu = cpu(dir, reader)?;
    if cpu.is_none() {
        return Ok(None);
    }
    let mut stats = CgroupStats {
        cpu,
        memory: memory(dir, full, reader)?,
        io_pressure: pressure(dir, "io.pressure", reader)?,
        ..CgroupStats::default()
    };
    if detail != Detail::Brief
        && let Some(current) = number(dir, "pids.current", reader)?
    {
        let limit = if full { number(dir, "pids.max", reader)? } else { None };
        stats.pids = Some(PidStats { current, limit });
    }
    if full && let Some(text) = reader.read(&dir.join("io.stat"))? {
        stats.io = parse::io_stat(text);
    }
    Ok(Some(stats))
}

fn number(dir: &Path, name: &str, reader: &mut Reader) -> Result<Option<u64>, CgroupError> {
    Ok(reader.read(&dir.join(name))?.and_then(parse::number))
}

fn pressure(dir: &Path, name: &str, reader: &mut Reader) -> Result<Option<Pressure>, CgroupError> {
    Ok(reader.read(&dir.join(name))?.map(parse::pressure))
}

fn cpu(dir: &Path, reader: &mut Reader) -> Result<Option<CpuStats>, CgroupError> {
    let Some(text) = reader.read(&dir.join("cpu.stat"))? else { return Ok(None) };
    let mut cpu = from_cpu_stat(text);
    cpu.pressure = pressure(dir, "cpu.pressure", reader)?;
    Ok(Some(cpu))
}

fn from_cpu_stat(text: &str) -> CpuStats {
    let mut cpu = CpuStats::default();
    for (key, value) in parse::pairs(text) {
        let nanos = value.saturating_mul(1000);
        match key {
            "usage_usec" => cpu.usage = nanos,
            "user_usec" => cpu.user = nanos,
            "system_usec" => cpu.system = nanos,
            "nr_periods" => cpu.periods = value,
            "nr_throttled" => cpu.throttled_periods = value,
            "throttled_usec" => cpu.throttled = nanos,
            _ => {}
        }
    }
    cpu
}

fn memory(dir: &Path, full: bool, reader: &mut Reader) -> Result<Option<MemoryStats>, CgroupError> {
    let Some(usage) = number(dir, "memory.current", reader)? else { return Ok(None) };
    let mut memory = MemoryStats { usage, ..MemoryStats::default() };
    if let Some(text) = reader.read(&dir.join("memory.stat"))? {
        from_memory_stat(text, &mut memory);
    }
    memory.limit = number(dir, "memory.max", reader)?;
    memory.swap = number(dir, "memory.swap.current", reader)?.unwrap_or(0);
    memory.swap_limit = number(dir, "memory.swap.max", reader)?;
    memory.pressure = pressure(dir, "memory.pressure", reader)?;
    if full {
        memory.max_usage = number(dir, "memory.peak", reader)?;
        memory.reservation = number(dir, "memory.low", reader)?.filter(|low| *low > 0);
        let events = reader.read(&dir.join("memory.events"))?;
        memory.limit_hits = events.and_then(|text| parse::value(text, "max")).unwrap_or(0);
    }
    Ok(Some(memory))
}

fn from_memory_stat(text: &str, memory: &mut MemoryStats) {
    for (key, value) in parse::pairs(text) {
        match key {
            "anon" => memory.rss = value,
            "file" => memory.cache = value,
            "file_mapped" => memory.mapped_file = value,
            "kernel" => memory.kernel = value,
            "inactive_file" => memory.inactive_file = value,
            "active_file" => memory.active_file = value,
            "pgfault" => memory.page_faults = value,
            "pgmajfault" => memory.major_page_faults = value,
            _ => {}
        }
    }
}
