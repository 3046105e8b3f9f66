use std::collections::HashMap;

use super::*;

fn convert(wire: v1::LinuxContainerResources) -> Result<LinuxResources, Invalid> {
    linux_resources(&At::root("linux"), Some(&wire))
}

#[test]
fn zeroes_mean_not_specified() {
    assert_eq!(convert(v1::LinuxContainerResources::default()), Ok(LinuxResources::default()));
    assert_eq!(linux_resources(&At::root("linux"), None), Ok(LinuxResources::default()));
}

#[test]
fn what_a_kubelet_sends_passes() {
    let wire = v1::LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: 50_000,
        cpu_shares: 512,
        memory_limit_in_bytes: 64 << 20,
        memory_swap_limit_in_bytes: 64 << 20,
        oom_score_adj: 996,
        cpuset_cpus: "0-1".into(),
        hugepage_limits: vec![
            v1::HugepageLimit { page_size: "2MB".into(), limit: 0 },
            v1::HugepageLimit { page_size: "1GB".into(), limit: 1 << 30 },
        ],
        unified: HashMap::from([("memory.oom.group".into(), "1".into())]),
        ..Default::default()
    };
    let model = convert(wire).expect("valid");
    assert_eq!(
        (model.cpu_period, model.cpu_quota, model.cpu_shares),
        (Some(100_000), Some(50_000), Some(512))
    );
    assert_eq!((model.memory_limit, model.memory_swap_limit), (Some(64 << 20), Some(64 << 20)));
    assert_eq!(model.hugepage_limits.len(), 2);
    assert_eq!(model.unified["memory.oom.group"], "1");
}

#[test]
fn shares_are_clamped_as_the_kernel_does() {
    for (given, kept) in [(1, 2), (2, 2), (262_144, 262_144), (1 << 40, 262_144)] {
        let wire = v1::LinuxContainerResources { cpu_shares: given, ..Default::default() };
        assert_eq!(convert(wire).map(|m| m.cpu_shares), Ok(Some(kept)), "{given}");
    }
}

#[test]
fn wrong_numbers_name_their_field() {
    let base = v1::LinuxContainerResources::default;
    for (field, wire) in [
        ("cpu_period", v1::LinuxContainerResources { cpu_period: -1, ..base() }),
        ("cpu_period", v1::LinuxContainerResources { cpu_period: 999, ..base() }),
        ("cpu_period", v1::LinuxContainerResources { cpu_period: 1_000_001, ..base() }),
        ("cpu_quota", v1::LinuxContainerResources { cpu_quota: 999, ..base() }),
        ("cpu_quota", v1::LinuxContainerResources { cpu_quota: -2, ..base() }),
        ("cpu_shares", v1::LinuxContainerResources { cpu_shares: -1, ..base() }),
        ("memory_limit_in_bytes", v1::LinuxContainerResources { memory_limit_in_bytes: -2, ..base() }),
        (
            "memory_swap_limit_in_bytes",
            v1::LinuxContainerResources { memory_swap_limit_in_bytes: -2, ..base() },
        ),
        (
            "memory_swap_limit_in_bytes",
            v1::LinuxContainerResources { memory_limit_in_bytes: 2, memory_swap_limit_in_bytes: 1, ..base() },
        ),
        (
            "memory_swap_limit_in_bytes",
            v1::LinuxContainerResources {
                memory_limit_in_bytes: -1,
                memory_swap_limit_in_bytes: 1,
                ..base()
            },
        ),
        ("oom_score_adj", v1::LinuxContainerResources { oom_score_adj: 1001, ..base() }),
        ("oom_score_adj", v1::LinuxContainerResources { oom_score_adj: i64::MIN, ..base() }),
    ] {
        let error = convert(wire).expect_err(field);
        assert_eq!(error.field, format!("linux.{field}"));
    }
}

#[test]
fn cpusets_follow_the_kernels_grammar() {
    for good in ["0", "0-3", "0-3,7", "1,2,3", " 0 "] {
        let wire = v1::LinuxContainerResources { cpuset_cpus: good.into(), ..Default::default() };
        assert!(convert(wire).is_ok(), "{good}");
    }
    for bad in ["a", "0,", ",", "3-1", "0-", "-1", "0 1", "0\n", "99999999999", "70000", "+1"] {
        let wire = v1::LinuxContainerResources { cpuset_mems: bad.into(), ..Default::default() };
        let valid = bad.trim() == "0";
        assert_eq!(convert(wire).is_ok(), valid, "{bad:?}");
    }
}

#[test]
fn hugepage_sizes_are_the_kernels() {
    for good in ["64KB", "2MB", "32MB", "1GB", "16GB"] {
        assert!(is_page_size(good), "{good}");
    }
    for bad in ["", "MB", "2", "2mb", "2MiB", "3MB", "02MB", "0MB", "-2MB", "2 MB", "99999999999GB", "../2MB"]
    {
        assert!(!is_page_size(bad), "{bad}");
    }
    let twice = v1::HugepageLimit { page_size: "2MB".into(), limit: 1 };
    let wire =
        v1::LinuxContainerResources { hugepage_limits: vec![twice.clone(), twice], ..Default::default() };
    assert_eq!(convert(wire).expect_err("twice").field, "linux.hugepage_limits[1].page_size");
}

#[test]
fn unified_names_are_controller_files() {
    for bad in
        ["", "memory", "../memory.high", "a/memory.high", ".memory", "cgroup.procs", "memory..high", "m.h\0"]
    {
        let unified = HashMap::from([(bad.to_owned(), "1".to_owned())]);
        let wire = v1::LinuxContainerResources { unified, ..Default::default() };
        assert!(convert(wire).is_err(), "{bad}");
    }
}
