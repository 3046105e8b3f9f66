//! Pod sandboxes: what was asked for, and the states they pass through.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{resources::LinuxResources, security::SecurityContext};

/// Name of a pod. Together with `attempt` it is unique among the sandboxes that exist.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SandboxMetadata {
    /// Pod name.
    pub name: String,
    /// Pod UID.
    pub uid: String,
    /// Pod namespace.
    pub namespace: String,
    /// How often the kubelet made this sandbox anew.
    pub attempt: u32,
}

/// Contents of `/etc/resolv.conf`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsConfig {
    /// `nameserver` lines.
    pub servers: Vec<String>,
    /// `search` entries.
    pub searches: Vec<String>,
    /// `options` entries.
    pub options: Vec<String>,
}

/// Transport protocol of a port mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// `tcp`, `udp` or `sctp`: what CNI, nftables and iptables call it.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

/// A port of the host that leads into the pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// Transport.
    pub protocol: Protocol,
    /// Port inside.
    pub container_port: u16,
    /// Port of the host; mappings with 0 are dropped before they get here.
    pub host_port: u16,
    /// Only on this address of the host; `None`: on all.
    pub host_ip: Option<IpAddr>,
}

/// A sandbox as it was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SandboxConfig {
    /// Name.
    pub metadata: SandboxMetadata,
    /// Host name inside; empty: the pod shares the host's UTS namespace name (host network).
    pub hostname: String,
    /// Folder for the logs of its containers; `None`: no logs.
    pub log_directory: Option<PathBuf>,
    /// `None`: the host's `/etc/resolv.conf`.
    pub dns: Option<DnsConfig>,
    /// Ports of the host.
    pub port_mappings: Vec<PortMapping>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// cgroup under which all containers go: a path (cgroupfs) or a slice name (systemd). Empty: the runtime's own.
    pub cgroup_parent: String,
    /// Sysctls of the pod's namespaces, dotted names.
    pub sysctls: BTreeMap<String, String>,
    /// Security settings; `namespaces` holds for the whole pod.
    pub security: SecurityContext,
    /// What the pod costs beside its containers.
    pub overhead: LinuxResources,
    /// Sum of its containers.
    pub resources: LinuxResources,
    /// Runtime handler; empty: the default one.
    pub runtime_handler: String,
}

/// CRI state of a sandbox.
///
/// ```text
///   (request) --> Ready --> NotReady --> (removed)
///                   infra container exited, StopPodSandbox, reboot
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SandboxState {
    /// The infra container runs.
    Ready,
    /// It does not.
    NotReady,
}
