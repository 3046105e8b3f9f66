//! Measures and metrics.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use crisp_integration::{bed::eventually, client::script};
use crisp_proto::v1;

use super::place::{IMAGE, Place};

fn value(number: Option<v1::UInt64Value>) -> u64 {
    number.map_or(0, |n| n.value)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_works_is_measured() -> Result<()> {
    let place = Place::new("measured").await?;
    let text = "dd if=/dev/zero of=/written bs=1M count=3 2>/dev/null; dd if=/dev/zero of=/dev/shm/kept bs=1M count=20 2>/dev/null; while :; do :; done";
    let id = place.launch(&script("busy", IMAGE, text)).await?;
    place.cri.exec(&id, &["ping", "-c", "1", "-W", "1", "10.88.0.1"], 10).await?;
    let container = async || {
        let request = v1::ContainerStatsRequest { container_id: id.clone() };
        let stats = place.cri.runtime.clone().container_stats(request).await.ok()?.into_inner().stats?;
        let enough = value(stats.memory.as_ref()?.working_set_bytes) > 20 << 20
            && value(stats.writable_layer.as_ref()?.used_bytes) >= 3 << 20
            && value(stats.cpu.as_ref()?.usage_nano_cores) > 0;
        enough.then_some(stats)
    };
    let stats = eventually("memory, writable layer and processor", container).await?;
    let attributes = stats.attributes.context("attributes")?;
    ensure!(attributes.id == id && attributes.metadata.is_some_and(|m| m.name == "busy"));
    let cpu = stats.cpu.context("cpu")?;
    ensure!(cpu.timestamp > 0 && value(cpu.usage_core_nano_seconds) > 1_000_000, "{cpu:?}");
    ensure!(value(stats.writable_layer.context("layer")?.inodes_used) >= 1);

    let request = v1::PodSandboxStatsRequest { pod_sandbox_id: place.pod.clone() };
    let stats =
        place.cri.runtime.clone().pod_sandbox_stats(request).await?.into_inner().stats.context("stats")?;
    ensure!(stats.attributes.context("attributes")?.id == place.pod);
    let linux = stats.linux.context("linux")?;
    let network = linux.network.context("network")?;
    let device = network.default_interface.context("eth0")?;
    ensure!(device.name == "eth0" && value(device.tx_bytes) > 0, "{device:?}");
    ensure!(value(linux.process.context("processes")?.process_count) >= 2);
    ensure!(value(linux.memory.context("memory")?.working_set_bytes) > 20 << 20);
    ensure!(value(linux.cpu.context("cpu")?.usage_core_nano_seconds) > 1_000_000);
    ensure!(linux.containers.iter().filter_map(|c| c.attributes.as_ref()).any(|a| a.id == id));

    // The processor's time only grows.
    let list = async || -> Result<u64> {
        let request = v1::ListPodSandboxStatsRequest::default();
        let stats = place.cri.runtime.clone().list_pod_sandbox_stats(request).await?.into_inner().stats;
        let cpu = stats.first().and_then(|s| s.linux.as_ref()).and_then(|l| l.cpu).context("one pod")?;
        Ok(value(cpu.usage_core_nano_seconds))
    };
    let first = list().await?;
    eventually("more of the processor's time", async || list().await.ok().filter(|now| *now > first)).await?;

    place.cri.stop(&id, 0).await?;
    let request = v1::ContainerStatsRequest { container_id: "0".repeat(64) };
    let nobody = place.cri.runtime.clone().container_stats(request).await;
    ensure!(nobody.is_err_and(|status| status.code() == tonic::Code::NotFound));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_described_and_belong_to_somebody() -> Result<()> {
    let place = Place::new("metrics").await?;
    let id = place.idle("main", |_| {}).await?;
    let request = v1::ListMetricDescriptorsRequest {};
    let descriptors =
        place.cri.runtime.clone().list_metric_descriptors(request).await?.into_inner().descriptors;
    let known: BTreeMap<&str, &v1::MetricDescriptor> =
        descriptors.iter().map(|d| (d.name.as_str(), d)).collect();
    ensure!(known.len() == descriptors.len() && descriptors.iter().all(|d| !d.help.is_empty()));
    // Those that the kubelet's /metrics/cadvisor has of the runtime (PodAndContainerStatsFromCRI).
    for name in [
        "container_cpu_usage_seconds_total",
        "container_cpu_cfs_throttled_periods_total",
        "container_memory_working_set_bytes",
        "container_memory_rss",
        "container_oom_events_total",
        "container_network_receive_bytes_total",
        "container_network_transmit_packets_dropped_total",
        "container_fs_usage_bytes",
        "container_processes",
        "container_threads",
        "container_start_time_seconds",
        "container_spec_memory_limit_bytes",
    ] {
        ensure!(known.contains_key(name), "{name} is not described");
    }
    let request = v1::ListPodSandboxMetricsRequest {};
    let pods = place.cri.runtime.clone().list_pod_sandbox_metrics(request).await?.into_inner().pod_metrics;
    ensure!(pods.len() == 1 && pods[0].pod_sandbox_id == place.pod, "{pods:?}");
    let containers = &pods[0].container_metrics;
    ensure!(containers.iter().map(|c| c.container_id.as_str()).eq([id.as_str()]));
    let mut given = BTreeSet::new();
    for metric in pods[0].metrics.iter().chain(&containers[0].metrics) {
        let described =
            known.get(metric.name.as_str()).with_context(|| format!("{} is not described", metric.name))?;
        ensure!(described.label_keys.len() == metric.label_values.len(), "{metric:?} {described:?}");
        given.insert(metric.name.as_str());
    }
    ensure!(
        given.contains("container_cpu_usage_seconds_total")
            && given.contains("container_network_receive_bytes_total"),
        "{given:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_runtimes_own_settings() -> Result<()> {
    let place = Place::new("settings").await?;
    let mut runtime = place.cri.runtime.clone();
    let answer = runtime.runtime_config(v1::RuntimeConfigRequest {}).await?.into_inner();
    ensure!(answer.linux.is_some_and(|linux| linux.cgroup_driver() == v1::CgroupDriver::Cgroupfs));
    // The kubelet's pod CIDR becomes that of the built-in network.
    let cidr = |text: &str| v1::UpdateRuntimeConfigRequest {
        runtime_config: Some(v1::RuntimeConfig {
            network_config: Some(v1::NetworkConfig { pod_cidr: text.into() }),
        }),
    };
    runtime.update_runtime_config(cidr("10.98.7.0/24")).await?;
    let later = crisp_integration::client::pod("later", &place.bed.logs());
    let later = place.cri.run_pod(&later).await?;
    let network = place.cri.pod_status(&later).await?.network.context("network")?;
    ensure!(network.ip.starts_with("10.98.7."), "{network:?}");
    let bad = runtime.update_runtime_config(cidr("10.98.7.0/99")).await;
    ensure!(bad.is_err_and(|status| status.code() == tonic::Code::InvalidArgument));
    Ok(())
}
