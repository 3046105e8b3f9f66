//! The metrics that the kubelet expects of a runtime with `PodAndContainerStatsFromCRI`: cAdvisor's names, help
//! texts of our own, label keys.

/// How a metric behaves (CRI `MetricType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// A metric that [`super::pods::collect`] gives samples of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    /// cAdvisor's name.
    pub name: &'static str,
    /// What it is.
    pub help: &'static str,
    /// Behaviour.
    pub kind: MetricKind,
    /// Label keys beyond the common ones.
    pub more: &'static [&'static str],
}

/// Label keys of every metric, the first ones.
pub const COMMON: [&str; 5] = ["pod", "namespace", "container", "id", "image"];

impl Descriptor {
    /// All label keys, in the order of a sample's values.
    pub fn label_keys(&self) -> impl Iterator<Item = &'static str> {
        COMMON.into_iter().chain(self.more.iter().copied())
    }
}

const fn counter(name: &'static str, help: &'static str) -> Descriptor {
    Descriptor { name, help, kind: MetricKind::Counter, more: &[] }
}

const fn gauge(name: &'static str, help: &'static str) -> Descriptor {
    Descriptor { name, help, kind: MetricKind::Gauge, more: &[] }
}

const fn by(more: &'static [&'static str], descriptor: Descriptor) -> Descriptor {
    Descriptor { more, ..descriptor }
}

const INTERFACE: &[&str] = &["interface"];
const DEVICE: &[&str] = &["device"];

/// All of them.
pub const DESCRIPTORS: &[Descriptor] = &[
    gauge("container_processes", "Processes."),
    gauge("container_file_descriptors", "Open file descriptors of all processes."),
    gauge("container_sockets", "Open sockets of all processes."),
    gauge("container_threads_max", "Threads that may exist; 0 for no limit."),
    gauge("container_threads", "Threads of all processes."),
    gauge("container_last_seen", "When the container was last seen, seconds since 1970."),
    gauge("container_start_time_seconds", "When the container was started, seconds since 1970."),
    gauge("container_spec_cpu_period", "Length of a CFS period, microseconds."),
    gauge("container_spec_cpu_shares", "Relative processor weight."),
    gauge("container_spec_memory_limit_bytes", "Memory limit; 0 for none."),
    gauge(
        "container_spec_memory_reservation_limit_bytes",
        "Memory that is not taken without need; 0 for none.",
    ),
    gauge("container_spec_memory_swap_limit_bytes", "Limit of memory and swap together; 0 for none."),
    counter("container_cpu_user_seconds_total", "Processor time in user mode, seconds."),
    counter("container_cpu_system_seconds_total", "Processor time in the kernel, seconds."),
    counter("container_cpu_usage_seconds_total", "Processor time, seconds."),
    counter("container_cpu_cfs_periods_total", "CFS periods in which the container wanted to run."),
    counter("container_cpu_cfs_throttled_periods_total", "CFS periods in which it ran out of its quota."),
    counter("container_cpu_cfs_throttled_seconds_total", "Time it had to wait for its next quota, seconds."),
    gauge("container_memory_cache", "Page cache, bytes."),
    gauge("container_memory_rss", "Anonymous memory, bytes."),
    gauge("container_memory_kernel_usage", "Memory of the kernel for the container, bytes."),
    gauge("container_memory_mapped_file", "Mapped files, bytes."),
    gauge("container_memory_swap", "Swap, bytes."),
    counter("container_memory_failcnt", "How often the memory limit was met."),
    gauge("container_memory_usage_bytes", "Memory with the page cache, bytes."),
    gauge("container_memory_max_usage_bytes", "Most memory that was in use, bytes."),
    gauge("container_memory_working_set_bytes", "Memory that cannot easily be reclaimed, bytes."),
    gauge("container_memory_total_active_file_bytes", "Page cache in use, bytes."),
    gauge("container_memory_total_inactive_file_bytes", "Page cache that was not used for a while, bytes."),
    counter("container_oom_events_total", "Processes taken by the kernel's out-of-memory killer."),
    by(&["ulimit"], gauge("container_ulimits_soft", "Soft resource limits of the first process.")),
    by(&["failure_type", "scope"], counter("container_memory_failures_total", "Page faults.")),
    by(INTERFACE, counter("container_network_receive_bytes_total", "Bytes received.")),
    by(INTERFACE, counter("container_network_receive_packets_total", "Packets received.")),
    by(
        INTERFACE,
        counter("container_network_receive_packets_dropped_total", "Packets dropped when received."),
    ),
    by(INTERFACE, counter("container_network_receive_errors_total", "Errors while receiving.")),
    by(INTERFACE, counter("container_network_transmit_bytes_total", "Bytes sent.")),
    by(INTERFACE, counter("container_network_transmit_packets_total", "Packets sent.")),
    by(INTERFACE, counter("container_network_transmit_packets_dropped_total", "Packets dropped when sent.")),
    by(INTERFACE, counter("container_network_transmit_errors_total", "Errors while sending.")),
    by(DEVICE, gauge("container_fs_inodes_free", "Free inodes of the writable layer's file system.")),
    by(DEVICE, gauge("container_fs_inodes_total", "Inodes of the writable layer's file system.")),
    by(DEVICE, gauge("container_fs_limit_bytes", "Size of the writable layer's file system, bytes.")),
    by(DEVICE, gauge("container_fs_usage_bytes", "The writable layer's disk space, bytes.")),
    by(DEVICE, counter("container_fs_reads_bytes_total", "Bytes read.")),
    by(DEVICE, counter("container_fs_reads_total", "Reads.")),
    by(DEVICE, counter("container_fs_writes_bytes_total", "Bytes written.")),
    by(DEVICE, counter("container_fs_writes_total", "Writes.")),
    by(
        &["device", "major", "minor", "operation"],
        counter("container_blkio_device_usage_total", "Bytes read from and written to block devices."),
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn forty_nine_names_once_each() {
        let names: BTreeSet<&str> = DESCRIPTORS.iter().map(|d| d.name).collect();
        assert_eq!((names.len(), DESCRIPTORS.len()), (49, 49));
        assert!(names.iter().all(|name| name.starts_with("container_")));
        // cAdvisor's failcnt and container_memory_failcnt are the counters without the suffix.
        let counters = DESCRIPTORS.iter().filter(|d| d.kind == MetricKind::Counter);
        assert!(counters.clone().all(|d| d.name.ends_with("_total") || d.name.ends_with("failcnt")));
        let keys: Vec<&str> = DESCRIPTORS[48].label_keys().collect();
        assert_eq!(
            keys,
            ["pod", "namespace", "container", "id", "image", "device", "major", "minor", "operation"]
        );
    }
}
