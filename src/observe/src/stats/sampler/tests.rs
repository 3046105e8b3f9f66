use std::{fs, path::Path};

use crisp_host::cgroup::Layout;

use super::*;

/// A v2 root of ordinary files.
struct Host {
    dir: tempfile::TempDir,
    sampler: Sampler,
}

fn host(ttl: Duration) -> Host {
    let dir = tempfile::tempdir().unwrap();
    let layout =
        Layout::V2 { root: dir.path().to_owned(), controllers: ["memory".into(), "cpu".into()].into() };
    let options = Options { ttl, layer_interval: Duration::from_secs(1000) };
    let sampler = Sampler::new(CgroupFs::with_layout(layout), options);
    Host { dir, sampler }
}

impl Host {
    fn cgroup(&self, path: &str, cpu_micros: u64, memory: u64) {
        let dir = self.dir.path().join(path);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("cpu.stat"), format!("usage_usec {cpu_micros}\n")).unwrap();
        fs::write(dir.join("memory.current"), memory.to_string()).unwrap();
        fs::write(dir.join("memory.stat"), "inactive_file 100\n").unwrap();
        fs::write(dir.join("memory.max"), "max\n").unwrap();
        fs::write(dir.join("pids.current"), "3\n").unwrap();
    }

    fn container(&self, sandbox: &SandboxId, cgroup: &str, layer: Option<&Path>) -> ContainerId {
        let id = ContainerId::random();
        self.sampler.register_container(ContainerTarget {
            id: id.clone(),
            sandbox: sandbox.clone(),
            cgroup: format!("/{cgroup}"),
            writable_layer: layer.map(Path::to_owned),
        });
        id
    }

    fn sandbox(&self, cgroup: Option<&str>, network_pid: Option<i32>) -> SandboxId {
        let id = SandboxId::random();
        let cgroup = cgroup.map(|c| format!("/{c}"));
        self.sampler.register_sandbox(SandboxTarget { id: id.clone(), cgroup, network_pid });
        id
    }
}

#[tokio::test]
async fn a_rate_comes_from_two_measures_and_the_answer_is_used_again() {
    let host = host(Duration::from_secs(1000));
    host.cgroup("pod/c", 1000, 5000);
    let id = host.container(&SandboxId::random(), "pod/c", None);
    host.cgroup("pod/c", 3000, 5000);
    let first = host.sampler.container(&id).await.unwrap();
    let cpu = first.cpu.unwrap();
    assert_eq!(cpu.usage_core_nanos, 3_000_000);
    assert!(cpu.usage_nano_cores.is_some_and(|rate| rate > 0), "{cpu:?}");
    assert_eq!(first.memory.unwrap().working_set, 4900);
    host.cgroup("pod/c", 9000, 5000);
    assert_eq!(host.sampler.container(&id).await.unwrap(), first, "within its time to live");
}

#[tokio::test]
async fn without_a_time_to_live_every_answer_is_new() {
    let host = host(Duration::ZERO);
    host.cgroup("pod/c", 1000, 5000);
    let id = host.container(&SandboxId::random(), "pod/c", None);
    for cpu in [1000, 2000] {
        host.cgroup("pod/c", cpu, 5000);
        let stats = host.sampler.container(&id).await.unwrap();
        assert_eq!(stats.cpu.unwrap().usage_core_nanos, cpu * 1000);
    }
    fs::remove_dir_all(host.dir.path().join("pod")).unwrap();
    let gone = host.sampler.container(&id).await.unwrap();
    assert_eq!((gone.cpu, gone.memory), (None, None), "its processes are gone");
    host.sampler.unregister_container(&id);
    assert!(host.sampler.container(&id).await.is_none());
}

#[tokio::test]
async fn a_pod_is_its_cgroup_or_the_sum_of_its_containers() {
    let host = host(Duration::ZERO);
    host.cgroup("pod", 10_000, 9000);
    host.cgroup("pod/a", 1000, 1100);
    host.cgroup("pod/b", 2000, 2100);
    let whole = host.sandbox(Some("pod"), None);
    let summed = host.sandbox(None, None);
    for sandbox in [&whole, &summed] {
        host.container(sandbox, "pod/a", None);
        host.container(sandbox, "pod/b", None);
    }
    let stats = host.sampler.sandboxes(&[whole, summed, SandboxId::random()]).await;
    let [whole, summed] = &stats[..] else { panic!("{stats:?}") };
    assert_eq!(whole.cpu.unwrap().usage_core_nanos, 10_000_000);
    assert_eq!(whole.memory.unwrap().usage, 9000);
    assert_eq!(whole.processes.unwrap().count, 3);
    assert_eq!(whole.containers.len(), 2);
    assert_eq!(whole.network, None, "the host's network is not the pod's");
    assert_eq!(summed.cpu.unwrap().usage_core_nanos, 3_000_000);
    assert_eq!(summed.memory.unwrap().working_set, 3000);
    assert_eq!(summed.processes.unwrap().count, 6);
}

#[tokio::test]
async fn the_network_is_read_without_entering_it() {
    let host = host(Duration::ZERO);
    host.cgroup("pod", 1, 1);
    let own = i32::try_from(std::process::id()).unwrap();
    let sandbox = host.sandbox(Some("pod"), Some(own));
    let stats = host.sampler.sandbox(&sandbox).await.unwrap();
    assert!(stats.network.unwrap().interfaces.iter().all(|i| i.name != "lo"));
    host.sampler.unregister_sandbox(&sandbox);
    assert!(host.sampler.sandbox(&sandbox).await.is_none());
}

#[tokio::test]
async fn a_layer_is_counted_in_the_background() {
    let host = host(Duration::ZERO);
    host.cgroup("pod/c", 1, 1);
    let layer = tempfile::tempdir().unwrap();
    fs::write(layer.path().join("file"), "x").unwrap();
    let id = host.container(&SandboxId::random(), "pod/c", Some(layer.path()));
    assert_eq!(host.sampler.container(&id).await.unwrap().writable_layer, None, "nobody waits for it");
    let usage = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            if let Some(usage) = host.sampler.container(&id).await.unwrap().writable_layer {
                return usage;
            }
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(usage.await.unwrap().size.inodes, 2);
}

#[tokio::test]
async fn a_restarted_sandbox_keeps_its_containers() {
    let host = host(Duration::ZERO);
    host.cgroup("pod/a", 1000, 1100);
    let sandbox = SandboxId::random();
    let container = host.container(&sandbox, "pod/a", None);
    host.sampler.register_sandbox(SandboxTarget { id: sandbox.clone(), cgroup: None, network_pid: None });
    let stats = host.sampler.sandbox(&sandbox).await.unwrap();
    assert_eq!(stats.containers[0].id, container);
}
