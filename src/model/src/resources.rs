//! What a container may use of the machine (CRI `LinuxContainerResources`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Limits of one container or of a whole pod. `None` means: not asked for, leave as it is. The CRI's zeroes (its
/// "not specified") are `None` here; negative values stay where the kernel knows them (-1 = unlimited).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinuxResources {
    /// Length of a CFS period, microseconds.
    pub cpu_period: Option<u64>,
    /// CPU time in a period, microseconds; -1 for no limit.
    pub cpu_quota: Option<i64>,
    /// Relative weight, 2..262144 (cgroup v1 `cpu.shares`; converted for v2).
    pub cpu_shares: Option<u64>,
    /// Bytes of memory; -1 for no limit.
    pub memory_limit: Option<i64>,
    /// Bytes of memory and swap together; -1 for no limit.
    pub memory_swap_limit: Option<i64>,
    /// -1000..1000; clamped where the host forbids lowering it.
    pub oom_score_adj: i64,
    /// CPU list such as `0-3,7`.
    pub cpuset_cpus: Option<String>,
    /// Memory node list.
    pub cpuset_mems: Option<String>,
    /// Page size as the kernel spells it (`2MB`) and limit in bytes.
    pub hugepage_limits: Vec<HugepageLimit>,
    /// Raw cgroup v2 files and values, ignored on cgroup v1.
    pub unified: BTreeMap<String, String>,
}

/// A limit for one size of huge pages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HugepageLimit {
    /// `2MB`, `1GB`.
    pub page_size: String,
    /// Bytes.
    pub limit: u64,
}

impl LinuxResources {
    /// What holds after `change` was applied to `self`: fields that `change` leaves out stay.
    pub fn updated_by(&self, change: &LinuxResources) -> LinuxResources {
        let mut unified = self.unified.clone();
        unified.extend(change.unified.clone());
        LinuxResources {
            cpu_period: change.cpu_period.or(self.cpu_period),
            cpu_quota: change.cpu_quota.or(self.cpu_quota),
            cpu_shares: change.cpu_shares.or(self.cpu_shares),
            memory_limit: change.memory_limit.or(self.memory_limit),
            memory_swap_limit: change.memory_swap_limit.or(self.memory_swap_limit),
            oom_score_adj: if change.oom_score_adj != 0 { change.oom_score_adj } else { self.oom_score_adj },
            cpuset_cpus: change.cpuset_cpus.clone().or_else(|| self.cpuset_cpus.clone()),
            cpuset_mems: change.cpuset_mems.clone().or_else(|| self.cpuset_mems.clone()),
            hugepage_limits: if change.hugepage_limits.is_empty() {
                self.hugepage_limits.clone()
            } else {
                change.hugepage_limits.clone()
            },
            unified,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_keeps_what_it_does_not_name() {
        let before = LinuxResources {
            cpu_shares: Some(2),
            memory_limit: Some(100),
            cpuset_cpus: Some("0".into()),
            ..Default::default()
        };
        let change = LinuxResources { memory_limit: Some(200), ..Default::default() };
        let after = before.updated_by(&change);
        assert_eq!(after.memory_limit, Some(200));
        assert_eq!(after.cpu_shares, Some(2));
        assert_eq!(after.cpuset_cpus.as_deref(), Some("0"));
    }
}
