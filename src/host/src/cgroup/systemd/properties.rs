//! Limits and scopes as systemd's properties (`systemd.resource-control(5)`).

use crisp_model::LinuxResources;

use super::{super::Scope, super::apply::cpu_weight, wire::Value};

type Property = (&'static str, Value);

/// systemd's quota is a share of a second of processor time, in steps of 10 ms.
const SECOND: u64 = 1_000_000;
const STEP: u64 = 10_000;

/// What CFS takes for a period if nothing is said.
const PERIOD: u64 = 100_000;

/// All properties of a new scope.
pub(super) fn of_scope(scope: &Scope, pids: &[i32], resources: &LinuxResources, v2: bool) -> Vec<Property> {
    let pids = pids.iter().filter_map(|pid| u32::try_from(*pid).ok()).collect();
    let accounting = if v2 { "IOAccounting" } else { "BlockIOAccounting" };
    let mut all = vec![
        ("Description", Value::String(format!("crisp container {}", scope.unit.trim_end_matches(".scope")))),
        ("Slice", Value::String(scope.slice.clone())),
        ("Delegate", Value::Boolean(true)),
        // Containers do not stop before or after anything else when the host goes down, but by the kubelet.
        ("DefaultDependencies", Value::Boolean(false)),
        ("CPUAccounting", Value::Boolean(true)),
        ("MemoryAccounting", Value::Boolean(true)),
        ("TasksAccounting", Value::Boolean(true)),
        (accounting, Value::Boolean(true)),
        ("PIDs", Value::U32s(pids)),
    ];
    all.extend(limits(resources, v2));
    all
}

/// The limits that systemd knows of; those that are not named stay.
pub(super) fn limits(r: &LinuxResources, v2: bool) -> Vec<Property> {
    let mut all = Vec::new();
    let bytes = |limit: i64| Value::U64(u64::try_from(limit).unwrap_or(u64::MAX));
    if let Some(limit) = r.memory_limit {
        all.push((if v2 { "MemoryMax" } else { "MemoryLimit" }, bytes(limit)));
    }
    // On v1 systemd does not know of swap; with the memory limit unknown, neither do we.
    if let (true, Some(both)) = (v2, r.memory_swap_limit) {
        match (u64::try_from(both), r.memory_limit.map(u64::try_from)) {
            (Err(_), _) => all.push(("MemorySwapMax", Value::U64(u64::MAX))),
            (Ok(both), Some(Ok(memory))) => {
                all.push(("MemorySwapMax", Value::U64(both.saturating_sub(memory))));
            }
            _ => {}
        }
    }
    if let Some(shares) = r.cpu_shares {
        all.push(match v2 {
            true => ("CPUWeight", Value::U64(cpu_weight(shares))),
            false => ("CPUShares", Value::U64(shares)),
        });
    }
    if let Some(quota) = r.cpu_quota {
        all.push(("CPUQuotaPerSecUSec", Value::U64(per_second(quota, r.cpu_period.unwrap_or(PERIOD)))));
    }
    if let (true, Some(period)) = (v2, r.cpu_period) {
        all.push(("CPUQuotaPeriodUSec", Value::U64(period)));
    }
    if v2 {
        for (name, list) in [("AllowedCPUs", &r.cpuset_cpus), ("AllowedMemoryNodes", &r.cpuset_mems)] {
            if let Some(mask) = list.as_deref().filter(|list| !list.is_empty()).and_then(bit_mask) {
                all.push((name, Value::Bytes(mask)));
            }
        }
    }
    all
}

/// Microseconds of processor time a second, rounded up to systemd's steps: it would round down to less than was asked for.
fn per_second(quota: i64, period: u64) -> u64 {
    match u64::try_from(quota) {
        Ok(quota) if quota > 0 && period > 0 => {
            quota.saturating_mul(SECOND).div_ceil(period).div_ceil(STEP).saturating_mul(STEP)
        }
        _ => u64::MAX,
    }
}

/// A list such as `0-2,7` as bits, the lowest first; `None`: it is no such list.
fn bit_mask(list: &str) -> Option<Vec<u8>> {
    /// More processors than Linux can be built for.
    const MOST: usize = 8192;
    let mut mask = Vec::new();
    for range in list.trim().split(',') {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let (from, to): (usize, usize) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
        if from > to || to >= MOST {
            return None;
        }
        mask.resize(mask.len().max(to / 8 + 1), 0);
        for bit in from..=to {
            mask[bit / 8] |= 1 << (bit % 8);
        }
    }
    Some(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_both_versions() {
        let r = LinuxResources {
            memory_limit: Some(64 << 20),
            memory_swap_limit: Some(96 << 20),
            cpu_shares: Some(1024),
            cpu_quota: Some(15_000),
            cpu_period: Some(100_000),
            cpuset_cpus: Some("0-1,8".into()),
            ..Default::default()
        };
        let v2 = [
            ("MemoryMax", Value::U64(64 << 20)),
            ("MemorySwapMax", Value::U64(32 << 20)),
            ("CPUWeight", Value::U64(100)),
            ("CPUQuotaPerSecUSec", Value::U64(150_000)),
            ("CPUQuotaPeriodUSec", Value::U64(100_000)),
            ("AllowedCPUs", Value::Bytes(vec![3, 1])),
        ];
        assert_eq!(limits(&r, true), v2);
        let v1 = [
            ("MemoryLimit", Value::U64(64 << 20)),
            ("CPUShares", Value::U64(1024)),
            ("CPUQuotaPerSecUSec", Value::U64(150_000)),
        ];
        assert_eq!(limits(&r, false), v1);
        assert_eq!(limits(&LinuxResources::default(), true), []);
    }

    #[test]
    fn quotas() {
        for (quota, period, expected) in [
            (-1, 100_000, u64::MAX),
            (100_000, 100_000, SECOND),
            (1, 100_000, STEP),
            (25_000, 50_000, SECOND / 2),
        ] {
            assert_eq!(per_second(quota, period), expected);
        }
    }

    #[test]
    fn masks() {
        assert_eq!(bit_mask("0"), Some(vec![1]));
        assert_eq!(bit_mask("3-4,15"), Some(vec![0b0001_1000, 0b1000_0000]));
        for bad in ["", "a", "2-1", "99999", "1,,2", "-1"] {
            assert_eq!(bit_mask(bad), None, "{bad}");
        }
    }
}
