//! Settings of the pod network, with their defaults.

use std::{path::PathBuf, time::Duration};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Where plugins and their configuration are, and how the built-in network looks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkConfig {
    /// The folder with CNI configuration; its first file in lexical order counts.
    pub cni_conf_dir: PathBuf,
    /// Folders with CNI plugins, searched in this order.
    pub cni_bin_dirs: Vec<PathBuf>,
    /// Where the results of plugins are kept, with the configuration that was used. Must outlive a reboot.
    pub cni_cache_dir: PathBuf,
    /// The network for a host without CNI configuration.
    pub builtin: BuiltinConfig,
    /// How long a plugin may take.
    pub deadlines: Deadlines,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            cni_conf_dir: "/etc/cni/net.d".into(),
            cni_bin_dirs: vec!["/opt/cni/bin".into(), "/usr/lib/cni".into()],
            cni_cache_dir: "/var/lib/crisp/cni".into(),
            builtin: BuiltinConfig::default(),
            deadlines: Deadlines::default(),
        }
    }
}

/// The built-in network: a bridge, an address pool, masquerading and host ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BuiltinConfig {
    /// Whether it is used when there is no CNI configuration.
    pub enabled: bool,
    /// Name of the bridge, at most 15 characters; also that of the nftables table.
    pub bridge: String,
    /// At most one of each address family; the first one gives pods their primary address. The pod CIDRs that the
    /// kubelet sends take their place.
    pub subnets: Vec<IpNet>,
    /// Where addresses in use are written down. They die with the boot, and so may this folder.
    pub state_dir: PathBuf,
    /// Largest packet in bytes; 0: that of the interface with the default route.
    pub mtu: u32,
    /// Whether packets that leave the host carry the host's address.
    pub masquerade: bool,
    /// Which packet filter does the host ports.
    pub firewall: FirewallChoice,
}

/// A packet filter of the kernel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FirewallChoice {
    /// nftables, and iptables where the kernel's nftables does not take the rules.
    #[default]
    Auto,
    /// nftables only.
    Nftables,
    /// iptables only.
    Iptables,
}

impl Default for BuiltinConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            bridge: "crisp0".to_owned(),
            subnets: vec![IpNet::new([10, 88, 0, 0].into(), 16).expect("16 is at most 32")],
            state_dir: "/run/crisp/network".into(),
            mtu: 0,
            masquerade: true,
            firewall: FirewallChoice::default(),
        }
    }
}

/// How long one run of a plugin may take, in seconds, by what it is asked to do. It is killed then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Deadlines {
    /// ADD.
    pub add_seconds: u64,
    /// DEL, also the one that follows a failed ADD.
    pub del_seconds: u64,
    /// CHECK.
    pub check_seconds: u64,
    /// STATUS and VERSION.
    pub status_seconds: u64,
    /// GC.
    pub gc_seconds: u64,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { add_seconds: 90, del_seconds: 60, check_seconds: 30, status_seconds: 5, gc_seconds: 60 }
    }
}

impl Deadlines {
    pub(crate) fn of(&self, verb: crate::Verb) -> Duration {
        use crate::Verb;
        Duration::from_secs(match verb {
            Verb::Add => self.add_seconds,
            Verb::Del => self.del_seconds,
            Verb::Check => self.check_seconds,
            Verb::Status | Verb::Version => self.status_seconds,
            Verb::Gc => self.gc_seconds,
        })
    }
}
