//! Setting a cgroup's limits, at creation and in place.

mod v1;
mod v2;

use crisp_model::LinuxResources;

use super::{CgroupError, CgroupFs, Layout};

impl CgroupFs {
    /// Sets what `resources` names and leaves the rest as it is. May be repeated; raises and lowers limits that depend
    /// on each other in the order in which the kernel takes them. When a value is refused, those set before it stay.
    pub fn apply(&self, cgroup: &str, resources: &LinuxResources) -> Result<(), CgroupError> {
        let relative = super::path::relative(cgroup)?;
        if !self.exists(cgroup)? {
            return Err(CgroupError::NotFound { cgroup: cgroup.to_owned() });
        }
        match &self.layout {
            Layout::V1(v1) | Layout::Hybrid { v1, .. } => v1::apply(v1, relative, resources),
            Layout::V2 { root, .. } => v2::apply(&super::path::under(root, relative), cgroup, resources),
        }
    }

    /// Limits the number of processes and threads; 0 or less: no limit.
    pub fn limit_pids(&self, cgroup: &str, limit: i64) -> Result<(), CgroupError> {
        let dir = self.path("pids", cgroup)?.ok_or_else(|| CgroupError::NoController {
            controller: "pids",
            setting: "pids.max".to_owned(),
        })?;
        let value = if limit > 0 { limit.to_string() } else { "max".to_owned() };
        super::files::write(&dir.join("pids.max"), &value)
    }
}

/// The v2 `cpu.weight` (1..10000) of v1 `cpu.shares` (2..262144): the curve through (2, 1), (1024, 100) and
/// (262144, 10000) that Kubernetes and the OCI runtimes changed to (kubernetes/kubernetes#131216), so that the default
/// of one is the default of the other.
pub fn cpu_weight(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        shares => {
            #[allow(clippy::cast_precision_loss, reason = "at most 262143")]
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1..10000")]
            let weight = 10f64.powf(exponent).ceil() as u64;
            weight.clamp(1, 10_000)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::cpu_weight;

    #[test]
    fn weights_of_shares() {
        for (shares, weight) in
            [(0, 1), (2, 1), (102, 17), (1024, 100), (262_144, 10_000), (u64::MAX, 10_000)]
        {
            assert_eq!(cpu_weight(shares), weight, "{shares}");
        }
        assert!((2..262_144).step_by(97).all(|s| cpu_weight(s) <= cpu_weight(s + 97)));
    }
}
