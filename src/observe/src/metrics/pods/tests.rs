use std::{collections::BTreeSet, fs};

use crisp_host::cgroup::{CgroupFs, Layout};

use super::*;
use crate::{
    metrics::DESCRIPTORS,
    stats::{ContainerTarget, Options, SandboxTarget},
};

const FILES: [(&str, &str); 12] = [
    ("cpu.stat", "usage_usec 5000000\nuser_usec 3000000\nsystem_usec 2000000\nnr_periods 7\n"),
    ("memory.current", "1000000\n"),
    ("memory.stat", "anon 300\nfile 500000\ninactive_file 400000\npgfault 12\npgmajfault 3\n"),
    ("memory.max", "2000000\n"),
    ("memory.swap.current", "0\n"),
    ("memory.peak", "1500000\n"),
    ("memory.low", "0\n"),
    ("memory.events", "max 6\noom_kill 2\n"),
    ("pids.current", "4\n"),
    ("pids.max", "max\n"),
    ("io.stat", "254:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n"),
    ("cgroup.procs", ""),
];

#[tokio::test]
async fn every_descriptor_has_a_sample_with_its_labels() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("pod/c");
    fs::create_dir_all(&dir).unwrap();
    for (name, text) in FILES {
        fs::write(dir.join(name), text).unwrap();
        fs::write(root.path().join("pod").join(name), text).unwrap();
    }
    fs::write(dir.join("cgroup.procs"), format!("{}\n", std::process::id())).unwrap();
    let layout = Layout::V2 { root: root.path().to_owned(), controllers: BTreeSet::new() };
    let sampler = Sampler::new(CgroupFs::with_layout(layout), Options::default());
    let (sandbox, id) = (SandboxId::random(), ContainerId::random());
    let own = i32::try_from(std::process::id()).unwrap();
    sampler.register_sandbox(SandboxTarget {
        id: sandbox.clone(),
        cgroup: Some("/pod".into()),
        network_pid: Some(own),
    });
    sampler.register_container(ContainerTarget {
        id: id.clone(),
        sandbox: sandbox.clone(),
        cgroup: "/pod/c".into(),
        writable_layer: Some(dir.clone()),
    });
    while sampler.container(&id).await.unwrap().writable_layer.is_none() {
        tokio::task::yield_now().await;
    }
    let pod = PodIdentity {
        sandbox: sandbox.clone(),
        pod: "web".into(),
        namespace: "shop".into(),
        containers: vec![ContainerIdentity {
            id: id.clone(),
            name: "main".into(),
            image: "img".into(),
            started_at: Timestamp(5_000_000_000),
            resources: LinuxResources::default(),
        }],
    };
    let samples = collect(&sampler, pod).await;
    let of = |name: &str| samples.containers[0].1.iter().find(|s| s.name == name).unwrap();
    assert_eq!(of("container_cpu_usage_seconds_total").value, 5);
    assert_eq!(of("container_oom_events_total").value, 2);
    assert_eq!(of("container_start_time_seconds").value, 5);
    assert_eq!(of("container_fs_writes_total").value, 2);
    assert_eq!(of("container_processes").labels, ["web", "shop", "main", id.as_str(), "img"]);

    // This process may have no device but the loopback, so a pod with one stands in.
    let mut out = Out::new(Timestamp(1), &["web", "shop", "", sandbox.as_str(), ""]);
    out.interface(&InterfaceUsage { name: "eth0".into(), ..InterfaceUsage::default() });
    let all: Vec<&Sample> = samples.containers[0].1.iter().chain(&out.samples).chain(&samples.pod).collect();
    for descriptor in DESCRIPTORS {
        let mut found = all.iter().filter(|s| s.name == descriptor.name).peekable();
        assert!(found.peek().is_some(), "{} has no sample", descriptor.name);
        for sample in found {
            assert_eq!(sample.labels.len(), descriptor.label_keys().count(), "{}", descriptor.name);
            assert_eq!(sample.kind, descriptor.kind, "{}", descriptor.name);
        }
    }
    let known: BTreeSet<&str> = DESCRIPTORS.iter().map(|d| d.name).collect();
    assert!(all.iter().all(|s| known.contains(s.name)));
}
