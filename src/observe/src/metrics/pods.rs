//! Samples of the metrics in [`DESCRIPTORS`](super::DESCRIPTORS) for one pod and its containers.

mod disk;
mod processes;

use std::sync::Arc;

use crisp_host::cgroup::{CgroupStats, IoOperation};
use crisp_model::{ContainerId, LinuxResources, SandboxId, time::Timestamp};

use super::descriptors::MetricKind;
use crate::stats::{ContainerStats, InterfaceUsage, Sampler};
use disk::Disk;
use processes::Processes;

/// A pod as the labels name it.
#[derive(Debug, Clone)]
pub struct PodIdentity {
    /// Its sandbox.
    pub sandbox: SandboxId,
    /// Pod name.
    pub pod: String,
    /// Its namespace.
    pub namespace: String,
    /// Its containers that run.
    pub containers: Vec<ContainerIdentity>,
}

/// A container as the labels name it, and what is known of it without measuring.
#[derive(Debug, Clone)]
pub struct ContainerIdentity {
    /// Its id.
    pub id: ContainerId,
    /// Container name.
    pub name: String,
    /// Its image as the user names it.
    pub image: String,
    /// When it was started.
    pub started_at: Timestamp,
    /// The limits that hold.
    pub resources: LinuxResources,
}

/// One value of one metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The descriptor's name.
    pub name: &'static str,
    /// When it was measured.
    pub at: Timestamp,
    /// Behaviour.
    pub kind: MetricKind,
    /// Values of the descriptor's label keys, in their order.
    pub labels: Vec<String>,
    /// The value; times are whole seconds (the CRI has no fractions).
    pub value: u64,
}

/// All samples of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodSamples {
    /// Of the pod itself: its network.
    pub pod: Vec<Sample>,
    /// Of its containers.
    pub containers: Vec<(ContainerId, Vec<Sample>)>,
}

/// Measures a pod. What is not registered with the sampler, or gone, has no samples. Reads every process's folder in
/// `/proc`, so it runs on a thread that may block.
pub async fn collect(sampler: &Sampler, pod: PodIdentity) -> PodSamples {
    let mut samples = PodSamples::default();
    if let Some(stats) = sampler.sandbox(&pod.sandbox).await
        && let Some(network) = stats.network
    {
        let common = [pod.pod.as_str(), &pod.namespace, "", pod.sandbox.as_str(), ""];
        let mut out = Out::new(network.at, &common);
        network.interfaces.iter().for_each(|interface| out.interface(interface));
        samples.pod = out.samples;
    }
    let mut measured = Vec::with_capacity(pod.containers.len());
    for container in &pod.containers {
        measured.push(sampler.container(&container.id).await);
    }
    let sampler = sampler.clone();
    let all = tokio::task::spawn_blocking(move || {
        let containers = pod.containers.iter().zip(measured);
        containers
            .filter_map(|(container, stats)| {
                Some((container.id.clone(), one(&sampler, &pod, container, stats?)?))
            })
            .collect()
    });
    match all.await {
        Ok(containers) => samples.containers = containers,
        Err(error) => tracing::warn!(%error, "pod metrics are incomplete"),
    }
    samples
}

/// `None`: nothing of it runs.
fn one(
    sampler: &Sampler,
    pod: &PodIdentity,
    container: &ContainerIdentity,
    stats: Arc<ContainerStats>,
) -> Option<Vec<Sample>> {
    let target = sampler.container_target(&container.id)?;
    let cgroup = sampler.cgroups().full_stats(&target.cgroup).ok()?;
    let common = [pod.pod.as_str(), &pod.namespace, &container.name, container.id.as_str(), &container.image];
    let mut out = Out::new(Timestamp::now(), &common);
    out.processes(&Processes::of(&sampler.cgroups().procs(&target.cgroup).unwrap_or_default()), &cgroup);
    out.specification(container);
    out.cpu(&cgroup);
    out.memory(&cgroup);
    out.counter("container_oom_events_total", sampler.cgroups().oom_kills(&target.cgroup).unwrap_or(0));
    let disk = target.writable_layer.as_deref().and_then(Disk::of);
    out.disk(disk.as_ref(), stats.writable_layer.map(|layer| layer.size.bytes));
    out.block_io(&cgroup);
    Some(out.samples)
}

/// Samples in the making.
struct Out {
    at: Timestamp,
    common: Vec<String>,
    samples: Vec<Sample>,
}

const NANOS: u64 = 1_000_000_000;

impl Out {
    fn new(at: Timestamp, common: &[&str; 5]) -> Self {
        Self { at, common: common.iter().map(|s| (*s).to_owned()).collect(), samples: Vec::with_capacity(64) }
    }

    fn push(&mut self, name: &'static str, kind: MetricKind, more: &[&str], value: u64) {
        let labels = self.common.iter().cloned().chain(more.iter().map(|s| (*s).to_owned())).collect();
        self.samples.push(Sample { name, at: self.at, kind, labels, value });
    }

    fn gauge(&mut self, name: &'static str, value: u64) {
        self.push(name, MetricKind::Gauge, &[], value);
    }

    fn counter(&mut self, name: &'static str, value: u64) {
        self.push(name, MetricKind::Counter, &[], value);
    }

    fn interface(&mut self, i: &InterfaceUsage) {
        for (name, value) in [
            ("container_network_receive_bytes_total", i.rx_bytes),
            ("container_network_receive_packets_total", i.rx_packets),
            ("container_network_receive_packets_dropped_total", i.rx_dropped),
            ("container_network_receive_errors_total", i.rx_errors),
            ("container_network_transmit_bytes_total", i.tx_bytes),
            ("container_network_transmit_packets_total", i.tx_packets),
            ("container_network_transmit_packets_dropped_total", i.tx_dropped),
            ("container_network_transmit_errors_total", i.tx_errors),
        ] {
            self.push(name, MetricKind::Counter, &[&i.name], value);
        }
    }

    fn processes(&mut self, processes: &Processes, cgroup: &CgroupStats) {
        self.gauge("container_processes", processes.count);
        self.gauge("container_file_descriptors", processes.descriptors);
        self.gauge("container_sockets", processes.sockets);
        if let Some(pids) = &cgroup.pids {
            self.gauge("container_threads_max", pids.limit.unwrap_or(0));
            self.gauge("container_threads", pids.current);
        }
        if let Some(files) = processes.max_open_files {
            self.push("container_ulimits_soft", MetricKind::Gauge, &["max_open_files"], files);
        }
    }

    fn specification(&mut self, container: &ContainerIdentity) {
        let seconds = |at: Timestamp| u64::try_from(at.nanos()).unwrap_or(0) / NANOS;
        let bytes = |limit: Option<i64>| limit.and_then(|limit| u64::try_from(limit).ok()).unwrap_or(0);
        let r = &container.resources;
        self.gauge("container_last_seen", seconds(self.at));
        self.gauge("container_start_time_seconds", seconds(container.started_at));
        self.gauge("container_spec_cpu_period", r.cpu_period.unwrap_or(100_000));
        self.gauge("container_spec_cpu_shares", r.cpu_shares.unwrap_or(1024));
        self.gauge("container_spec_memory_limit_bytes", bytes(r.memory_limit));
        self.gauge("container_spec_memory_swap_limit_bytes", bytes(r.memory_swap_limit));
    }

    fn cpu(&mut self, cgroup: &CgroupStats) {
        let Some(cpu) = &cgroup.cpu else { return };
        self.counter("container_cpu_user_seconds_total", cpu.user / NANOS);
        self.counter("container_cpu_system_seconds_total", cpu.system / NANOS);
        self.counter("container_cpu_usage_seconds_total", cpu.usage / NANOS);
        self.counter("container_cpu_cfs_periods_total", cpu.periods);
        self.counter("container_cpu_cfs_throttled_periods_total", cpu.throttled_periods);
        self.counter("container_cpu_cfs_throttled_seconds_total", cpu.throttled / NANOS);
    }

    fn memory(&mut self, cgroup: &CgroupStats) {
        let Some(m) = &cgroup.memory else { return };
        self.gauge("container_spec_memory_reservation_limit_bytes", m.reservation.unwrap_or(0));
        self.gauge("container_memory_cache", m.cache);
        self.gauge("container_memory_rss", m.rss);
        self.gauge("container_memory_kernel_usage", m.kernel);
        self.gauge("container_memory_mapped_file", m.mapped_file);
        self.gauge("container_memory_swap", m.swap);
        self.counter("container_memory_failcnt", m.limit_hits);
        self.gauge("container_memory_usage_bytes", m.usage);
        self.gauge("container_memory_max_usage_bytes", m.max_usage.unwrap_or(0));
        self.gauge("container_memory_working_set_bytes", m.working_set());
        self.gauge("container_memory_total_active_file_bytes", m.active_file);
        self.gauge("container_memory_total_inactive_file_bytes", m.inactive_file);
        // A container has no cgroups below it that are not its own: both scopes are the same.
        for scope in ["container", "hierarchy"] {
            for (failure, value) in [("pgfault", m.page_faults), ("pgmajfault", m.major_page_faults)] {
                self.push("container_memory_failures_total", MetricKind::Counter, &[failure, scope], value);
            }
        }
    }

    fn disk(&mut self, disk: Option<&Disk>, used: Option<u64>) {
        let Some(disk) = disk else { return };
        for (name, value) in [
            ("container_fs_inodes_free", Some(disk.inodes_free)),
            ("container_fs_inodes_total", Some(disk.inodes)),
            ("container_fs_limit_bytes", Some(disk.bytes)),
            ("container_fs_usage_bytes", used),
        ] {
            if let Some(value) = value {
                self.push(name, MetricKind::Gauge, &[&disk.device], value);
            }
        }
    }

    fn block_io(&mut self, cgroup: &CgroupStats) {
        for io in &cgroup.io {
            let device = disk::device_name(io.major, io.minor);
            let numbers = [io.major.to_string(), io.minor.to_string()];
            let labels = [device.as_str(), &numbers[0], &numbers[1], io.operation.name()];
            self.push("container_blkio_device_usage_total", MetricKind::Counter, &labels, io.bytes);
            let names = match io.operation {
                IoOperation::Read => ("container_fs_reads_bytes_total", "container_fs_reads_total"),
                IoOperation::Write => ("container_fs_writes_bytes_total", "container_fs_writes_total"),
                _ => continue,
            };
            self.push(names.0, MetricKind::Counter, &[&device], io.bytes);
            self.push(names.1, MetricKind::Counter, &[&device], io.count);
        }
    }
}

#[cfg(test)]
mod tests;
