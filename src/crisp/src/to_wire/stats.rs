//! Measures of pods and containers.

use crisp_observe::stats::{
    ContainerStats, CpuUsage, InterfaceUsage, IoUsage, LayerUsage, MemoryUsage, NetworkUsage, Pressure,
    ProcessUsage, Psi, SandboxStats, SwapUsage,
};
use crisp_proto::v1;

fn number(value: u64) -> Option<v1::UInt64Value> {
    Some(v1::UInt64Value { value })
}

fn psi(pressure: Pressure) -> v1::PsiStats {
    let data =
        |psi: Psi| v1::PsiData { total: psi.total, avg10: psi.avg10, avg60: psi.avg60, avg300: psi.avg300 };
    v1::PsiStats { full: Some(data(pressure.full)), some: Some(data(pressure.some)) }
}

fn cpu(usage: CpuUsage) -> v1::CpuUsage {
    v1::CpuUsage {
        timestamp: usage.at.nanos(),
        usage_core_nano_seconds: number(usage.usage_core_nanos),
        usage_nano_cores: usage.usage_nano_cores.and_then(number),
        psi: usage.pressure.map(psi),
    }
}

fn memory(usage: MemoryUsage) -> v1::MemoryUsage {
    v1::MemoryUsage {
        timestamp: usage.at.nanos(),
        working_set_bytes: number(usage.working_set),
        available_bytes: usage.available.and_then(number),
        usage_bytes: number(usage.usage),
        rss_bytes: number(usage.rss),
        page_faults: number(usage.page_faults),
        major_page_faults: number(usage.major_page_faults),
        psi: usage.pressure.map(psi),
    }
}

fn swap(usage: SwapUsage) -> v1::SwapUsage {
    v1::SwapUsage {
        timestamp: usage.at.nanos(),
        swap_available_bytes: usage.available.and_then(number),
        swap_usage_bytes: number(usage.usage),
    }
}

fn io(usage: IoUsage) -> v1::IoUsage {
    v1::IoUsage { timestamp: usage.at.nanos(), psi: Some(psi(usage.pressure)) }
}

fn layer(usage: LayerUsage, mountpoint: &str) -> v1::FilesystemUsage {
    v1::FilesystemUsage {
        timestamp: usage.at.nanos(),
        fs_id: Some(v1::FilesystemIdentifier { mountpoint: mountpoint.to_owned() }),
        used_bytes: number(usage.size.bytes),
        inodes_used: number(usage.size.inodes),
    }
}

fn interface(usage: &InterfaceUsage) -> v1::NetworkInterfaceUsage {
    v1::NetworkInterfaceUsage {
        name: usage.name.clone(),
        rx_bytes: number(usage.rx_bytes),
        rx_errors: number(usage.rx_errors),
        tx_bytes: number(usage.tx_bytes),
        tx_errors: number(usage.tx_errors),
    }
}

fn network(usage: &NetworkUsage) -> v1::NetworkUsage {
    v1::NetworkUsage {
        timestamp: usage.at.nanos(),
        default_interface: usage.interfaces.first().map(interface),
        interfaces: usage.interfaces.iter().skip(1).map(interface).collect(),
    }
}

fn processes(usage: ProcessUsage) -> v1::ProcessUsage {
    v1::ProcessUsage { timestamp: usage.at.nanos(), process_count: number(usage.count) }
}

/// One container; `layers` is where writable layers lie.
pub fn container_stats(
    stats: &ContainerStats,
    attributes: v1::ContainerAttributes,
    layers: &str,
) -> v1::ContainerStats {
    v1::ContainerStats {
        attributes: Some(attributes),
        cpu: stats.cpu.map(cpu),
        memory: stats.memory.map(memory),
        writable_layer: stats.writable_layer.map(|usage| layer(usage, layers)),
        swap: stats.swap.map(swap),
        io: stats.io.map(io),
    }
}

/// One pod with the stats of its containers.
pub fn sandbox_stats(
    stats: &SandboxStats,
    attributes: v1::PodSandboxAttributes,
    containers: Vec<v1::ContainerStats>,
) -> v1::PodSandboxStats {
    v1::PodSandboxStats {
        attributes: Some(attributes),
        linux: Some(v1::LinuxPodSandboxStats {
            cpu: stats.cpu.map(cpu),
            memory: stats.memory.map(memory),
            network: stats.network.as_ref().map(network),
            process: stats.processes.map(processes),
            containers,
            io: stats.io.map(io),
        }),
        windows: None,
    }
}
