//! Limits.

use crisp_model::LinuxResources;
use crisp_proto::v1;

/// Limits as `ContainerStatus` and the pod's events report them; "not specified" is the wire's 0.
pub fn linux_resources(model: &LinuxResources) -> v1::LinuxContainerResources {
    // Wider than the wire only in type: from_wire let no value in that does not fit.
    let signed = |value: Option<u64>| value.map_or(0, |v| i64::try_from(v).unwrap_or(i64::MAX));
    v1::LinuxContainerResources {
        cpu_period: signed(model.cpu_period),
        cpu_quota: model.cpu_quota.unwrap_or(0),
        cpu_shares: signed(model.cpu_shares),
        memory_limit_in_bytes: model.memory_limit.unwrap_or(0),
        oom_score_adj: model.oom_score_adj,
        cpuset_cpus: model.cpuset_cpus.clone().unwrap_or_default(),
        cpuset_mems: model.cpuset_mems.clone().unwrap_or_default(),
        hugepage_limits: model
            .hugepage_limits
            .iter()
            .map(|limit| v1::HugepageLimit { page_size: limit.page_size.clone(), limit: limit.limit })
            .collect(),
        unified: super::map(&model.unified),
        memory_swap_limit_in_bytes: model.memory_swap_limit.unwrap_or(0),
    }
}

/// The same as `ContainerStatus` wraps them.
pub fn container_resources(model: &LinuxResources) -> v1::ContainerResources {
    v1::ContainerResources { linux: Some(linux_resources(model)), windows: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::from_wire;

    #[test]
    fn limits_come_back_as_they_were_sent() {
        let wire = v1::LinuxContainerResources {
            cpu_period: 100_000,
            cpu_quota: -1,
            cpu_shares: 1024,
            memory_limit_in_bytes: 1 << 30,
            oom_score_adj: -997,
            cpuset_cpus: "0-1".into(),
            cpuset_mems: "0".into(),
            hugepage_limits: vec![v1::HugepageLimit { page_size: "2MB".into(), limit: 4 << 20 }],
            unified: [("memory.high".to_owned(), "max".to_owned())].into(),
            memory_swap_limit_in_bytes: 2 << 30,
        };
        let model = from_wire::linux_resources(&from_wire::At::root("linux"), Some(&wire)).expect("valid");
        assert_eq!(linux_resources(&model), wire);
        assert_eq!(linux_resources(&LinuxResources::default()), v1::LinuxContainerResources::default());
    }
}
