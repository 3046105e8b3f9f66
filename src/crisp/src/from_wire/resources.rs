//! `LinuxContainerResources`: limits in the ranges that the kernel takes.

use crisp_model::{LinuxResources, resources::HugepageLimit};
use crisp_proto::v1;

use super::{
    error::{At, Invalid, Shown},
    text,
};

/// Range of `cpu.cfs_period_us`, microseconds (kernel `kernel/sched/fair.c`).
const CPU_PERIOD: std::ops::RangeInclusive<i64> = 1_000..=1_000_000;
/// Least `cpu.cfs_quota_us`, microseconds.
const CPU_QUOTA_MIN: i64 = 1_000;
/// Range of `cpu.shares`; the kernel clamps to it too.
const CPU_SHARES: (i64, i64) = (2, 262_144);
/// Range of `oom_score_adj`.
const OOM_SCORE_ADJ: std::ops::RangeInclusive<i64> = -1000..=1000;
/// More than any kernel's `NR_CPUS` and `MAX_NUMNODES`.
const CPUSET_MAX: u32 = 65_536;
/// Longest value of a cgroup file.
const UNIFIED_MAX: usize = 4096;

/// Checks limits; an absent message limits nothing. Zeroes are the wire's "not specified".
pub fn linux_resources(
    at: &At<'_>,
    wire: Option<&v1::LinuxContainerResources>,
) -> Result<LinuxResources, Invalid> {
    let Some(wire) = wire else { return Ok(LinuxResources::default()) };
    let oom_score_adj = wire.oom_score_adj;
    if !OOM_SCORE_ADJ.contains(&oom_score_adj) {
        let reason = format!("{oom_score_adj} is not between -1000 and 1000");
        return Err(at.field("oom_score_adj").invalid(reason));
    }
    let (memory_limit, memory_swap_limit) = memory(at, wire)?;
    Ok(LinuxResources {
        cpu_period: cpu_period(&at.field("cpu_period"), wire.cpu_period)?,
        cpu_quota: cpu_quota(&at.field("cpu_quota"), wire.cpu_quota)?,
        cpu_shares: cpu_shares(&at.field("cpu_shares"), wire.cpu_shares)?,
        memory_limit,
        memory_swap_limit,
        oom_score_adj,
        cpuset_cpus: cpuset(&at.field("cpuset_cpus"), &wire.cpuset_cpus)?,
        cpuset_mems: cpuset(&at.field("cpuset_mems"), &wire.cpuset_mems)?,
        hugepage_limits: hugepages(&at.field("hugepage_limits"), &wire.hugepage_limits)?,
        unified: unified(&at.field("unified"), wire)?,
    })
}

fn cpu_period(at: &At<'_>, value: i64) -> Result<Option<u64>, Invalid> {
    if value == 0 {
        return Ok(None);
    }
    if !CPU_PERIOD.contains(&value) {
        let reason = format!("{value} µs is not between {} and {}", CPU_PERIOD.start(), CPU_PERIOD.end());
        return Err(at.invalid(reason));
    }
    Ok(u64::try_from(value).ok())
}

fn cpu_quota(at: &At<'_>, value: i64) -> Result<Option<i64>, Invalid> {
    match value {
        0 => Ok(None),
        -1 => Ok(Some(-1)),
        CPU_QUOTA_MIN.. => Ok(Some(value)),
        _ => {
            let reason = format!("{value} µs is less than {CPU_QUOTA_MIN}");
            Err(at.invalid(reason).hint("-1 means no limit, 0 means not specified"))
        }
    }
}

fn cpu_shares(at: &At<'_>, value: i64) -> Result<Option<u64>, Invalid> {
    match value {
        0 => Ok(None),
        1.. => Ok(u64::try_from(value.clamp(CPU_SHARES.0, CPU_SHARES.1)).ok()),
        _ => Err(at.invalid(format!("{value} is negative")).hint("0 means not specified")),
    }
}

fn memory(at: &At<'_>, wire: &v1::LinuxContainerResources) -> Result<(Option<i64>, Option<i64>), Invalid> {
    let bytes = |at: At<'_>, value: i64| match value {
        0 => Ok(None),
        -1.. => Ok(Some(value)),
        _ => Err(at.invalid(format!("{value} is negative")).hint("-1 means no limit, 0 means not specified")),
    };
    let limit = bytes(at.field("memory_limit_in_bytes"), wire.memory_limit_in_bytes)?;
    let swap = bytes(at.field("memory_swap_limit_in_bytes"), wire.memory_swap_limit_in_bytes)?;
    if let (Some(limit), Some(both @ 1..)) = (limit, swap)
        && (limit == -1 || both < limit)
    {
        let reason = format!("{both} is less than the memory limit of {limit}");
        let at = at.field("memory_swap_limit_in_bytes");
        return Err(at.invalid(reason).hint("it is the limit of memory and swap together"));
    }
    Ok((limit, swap))
}

/// A list of CPUs or memory nodes as the kernel reads it (`cpuset(7)`): `0-3,7`.
fn cpuset(at: &At<'_>, list: &str) -> Result<Option<String>, Invalid> {
    let list = list.trim();
    if list.is_empty() {
        return Ok(None);
    }
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if digits { text.parse::<u32>().ok().filter(|n| *n < CPUSET_MAX) } else { None }
    };
    let range = |part: &str| match part.split_once('-') {
        Some((first, last)) => matches!((number(first), number(last)), (Some(a), Some(b)) if a <= b),
        None => number(part).is_some(),
    };
    match list.split(',').find(|part| !range(part)) {
        Some(bad) => Err(at.invalid(format!("{} is neither a number nor a range such as 0-3", Shown(bad)))),
        None => Ok(Some(list.to_owned())),
    }
}

fn hugepages(at: &At<'_>, list: &[v1::HugepageLimit]) -> Result<Vec<HugepageLimit>, Invalid> {
    let mut limits: Vec<HugepageLimit> = Vec::with_capacity(list.len());
    for (i, wire) in list.iter().enumerate() {
        let at = at.index(i);
        let at = at.field("page_size");
        let page_size = wire.page_size.clone();
        if !is_page_size(&page_size) {
            return Err(at.invalid(format!("{} is not a page size such as 2MB", Shown(&page_size))));
        }
        if limits.iter().any(|l| l.page_size == page_size) {
            return Err(at.invalid(format!("{page_size} is listed twice")));
        }
        limits.push(HugepageLimit { page_size, limit: wire.limit });
    }
    Ok(limits)
}

/// A power of two and a unit, as in `hugetlb.2MB.max`.
fn is_page_size(text: &str) -> bool {
    let digits =
        text.strip_suffix("KB").or_else(|| text.strip_suffix("MB")).or_else(|| text.strip_suffix("GB"));
    digits.is_some_and(|d| !d.starts_with('0') && d.bytes().all(|b| b.is_ascii_digit()))
        && digits.and_then(|d| d.parse::<u32>().ok()).is_some_and(u32::is_power_of_two)
}

/// Raw cgroup v2 files. Not `cgroup.*`: those move and freeze processes, they limit nothing.
fn unified(
    at: &At<'_>,
    wire: &v1::LinuxContainerResources,
) -> Result<std::collections::BTreeMap<String, String>, Invalid> {
    for (file, value) in &wire.unified {
        let at = at.key(file);
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if !file.bytes().all(plain) || !file.contains('.') || file.starts_with('.') || file.contains("..") {
            return Err(at.invalid("is not the name of a cgroup file such as memory.high"));
        }
        if file.starts_with("cgroup.") {
            return Err(at.invalid("belongs to the runtime; only controllers' files can be set"));
        }
        text::no_nul(&at, value)?;
        if value.len() > UNIFIED_MAX {
            return Err(at.invalid(format!("the value has {} bytes; {UNIFIED_MAX} are allowed", value.len())));
        }
    }
    Ok(text::annotations(&wire.unified))
}

#[cfg(test)]
mod tests;
