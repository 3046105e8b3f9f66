use crisp_model::resources::HugepageLimit;

use super::*;
use crate::input::{CgroupLayout, Controller};

fn v1(names: &[&str]) -> HostFacts {
    let controller = |name: &&str| Controller {
        name: (*name).into(),
        mountpoint: format!("/sys/fs/cgroup/{name}").into(),
    };
    HostFacts {
        cgroup: CgroupLayout::V1(names.iter().map(controller).collect()),
        swap_accounting: true,
        ..Default::default()
    }
}

fn v2() -> HostFacts {
    HostFacts { swap_accounting: true, hugepage_sizes: vec!["2MB".into()], ..Default::default() }
}

fn convert(limits: &LinuxResources, host: &HostFacts) -> (Value, Vec<String>) {
    let mut warnings = vec![];
    let found = resources(limits, host, &mut warnings).unwrap();
    (Value::Object(found.oci), warnings)
}

#[test]
fn all_fields_arrive() {
    let limits = LinuxResources {
        cpu_period: Some(100_000),
        cpu_quota: Some(-1),
        cpu_shares: Some(1),
        memory_limit: Some(100),
        memory_swap_limit: Some(150),
        oom_score_adj: -998,
        cpuset_cpus: Some("0-1,3".into()),
        cpuset_mems: Some("0".into()),
        hugepage_limits: vec![HugepageLimit { page_size: "2MB".into(), limit: 7 }],
        unified: [("memory.high".to_owned(), "90".to_owned())].into(),
    };
    let (oci, warnings) = convert(&limits, &v2());
    assert_eq!(
        oci,
        json!({
            "cpu": {"period": 100_000, "quota": -1, "shares": 2, "cpus": "0-1,3", "mems": "0"},
            "memory": {"limit": 100, "swap": 150},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 7}],
            "unified": {"memory.high": "90"},
        })
    );
    assert!(warnings.is_empty());
    assert_eq!(resources(&limits, &v2(), &mut vec![]).unwrap().oom_score_adj, -998);
    let (oci, warnings) = convert(&limits, &v1(&["cpu", "cpuset", "memory"]));
    assert_eq!(oci.get("unified"), None);
    assert_eq!(oci.get("hugepageLimits"), None);
    assert_eq!(warnings.len(), 2);
}

#[test]
fn swap_comes_with_memory() {
    let limits = LinuxResources { memory_limit: Some(100), ..Default::default() };
    assert_eq!(convert(&limits, &v2()).0, json!({"memory": {"limit": 100, "swap": 100}}));
    let unlimited = LinuxResources { memory_limit: Some(-1), ..Default::default() };
    assert_eq!(convert(&unlimited, &v2()).0, json!({"memory": {"limit": -1, "swap": -1}}));
    let host = HostFacts { swap_accounting: false, ..v2() };
    assert_eq!(convert(&limits, &host), (json!({"memory": {"limit": 100}}), vec![]));
    let swap = LinuxResources { memory_swap_limit: Some(200), ..limits };
    assert_eq!(convert(&swap, &host).1.len(), 1);
}

#[test]
fn what_the_host_lacks_is_a_warning() {
    let limits = LinuxResources {
        memory_limit: Some(1),
        cpu_shares: Some(5),
        cpuset_cpus: Some("0".into()),
        ..Default::default()
    };
    let (oci, warnings) = convert(&limits, &v1(&["cpu"]));
    assert_eq!(oci, json!({"cpu": {"shares": 5}}));
    assert_eq!(warnings.len(), 2);
    // The kubelet sends a zero for every size it knows.
    let zero = LinuxResources {
        hugepage_limits: vec![HugepageLimit { page_size: "1GB".into(), limit: 0 }],
        ..Default::default()
    };
    assert_eq!(convert(&zero, &v2()), (json!({}), vec![]));
}

#[test]
fn wrong_values_name_their_field() {
    let base = LinuxResources::default;
    for (limits, field) in [
        (LinuxResources { oom_score_adj: 1001, ..base() }, "oom_score_adj"),
        (LinuxResources { cpu_period: Some(999), ..base() }, "cpu_period"),
        (LinuxResources { cpu_quota: Some(5), ..base() }, "cpu_quota"),
        (LinuxResources { cpuset_cpus: Some("3-1".into()), ..base() }, "cpuset_cpus"),
        (LinuxResources { cpuset_cpus: Some("+1".into()), ..base() }, "cpuset_cpus"),
        (LinuxResources { cpuset_mems: Some("a".into()), ..base() }, "cpuset_mems"),
        (LinuxResources { memory_limit: Some(-2), ..base() }, "memory_limit_in_bytes"),
        (LinuxResources { memory_swap_limit: Some(5), ..base() }, "memory_swap_limit_in_bytes"),
        (
            LinuxResources { memory_limit: Some(9), memory_swap_limit: Some(5), ..base() },
            "memory_swap_limit_in_bytes",
        ),
        (LinuxResources { unified: [("../x.y".to_owned(), String::new())].into(), ..base() }, "unified"),
        (
            LinuxResources { unified: [("cgroup.procs".to_owned(), String::new())].into(), ..base() },
            "unified",
        ),
    ] {
        let error = resources(&limits, &v2(), &mut vec![]).unwrap_err();
        assert_eq!(error.field(), format!("config.linux.resources.{field}"));
    }
}
