//! What the specs of containers need to know of the host.

use std::{collections::BTreeMap, path::Path};

use crisp_host::cgroup::{CgroupFs, Layout};
use crisp_spec::{CgroupLayout, Controller, Defaults, HostFacts};

/// The facts of a probed host.
pub fn spec_facts(host: &Host, cgroups: &CgroupFs) -> HostFacts {
    let mut devices = BTreeMap::new();
    if let Err(error) = crisp_pod::container::nodes_below(Path::new("/dev"), &mut devices) {
        tracing::warn!(%error, "privileged containers will miss devices of the host");
    }
    HostFacts {
        cgroup: cgroup_layout(cgroups.layout()),
        swap_accounting: host.swap_accounting,
        hugepage_sizes: Vec::new(),
        capabilities: host.capabilities.clone(),
        devices,
        apparmor: None,
        selinux: false,
        recursive_readonly: host.recursive_readonly(),
        idmapped_mounts: host.user_namespaces(),
        defaults: Defaults::default(),
    }
}

fn cgroup_layout(layout: &Layout) -> CgroupLayout {
    match layout {
        Layout::V1(v1) | Layout::Hybrid { v1, .. } => {
            let controller = |(name, mountpoint): (&String, &std::path::PathBuf)| Controller {
                name: name.clone(),
                mountpoint: mountpoint.clone(),
            };
            CgroupLayout::V1(v1.controllers.iter().map(controller).collect())
        }
        Layout::V2 { controllers, .. } => CgroupLayout::V2(controllers.iter().cloned().collect()),
    }
}

/// Interim.
#[derive(Debug, serde::Serialize)]
pub struct Host {
    swap_accounting: bool,
    capabilities: Vec<String>,
    kernel: (u32, u32),
}

impl Host {
    /// Looks.
    pub fn probe(_: &Path, _: &Path) -> Self {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let mut numbers = release.split(['.', '-']).filter_map(|n| n.parse().ok());
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|l| l.strip_prefix("CapEff:")).unwrap_or("0").trim();
        let mask = u64::from_str_radix(mask, 16).unwrap_or(0);
        let names = crisp_spec::KNOWN_CAPABILITIES.iter().enumerate();
        Host {
            swap_accounting: Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists(),
            capabilities: names.filter(|(i, _)| mask & (1 << i) != 0).map(|(_, n)| (*n).to_owned()).collect(),
            kernel: (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)),
        }
    }
    /// x
    pub fn recursive_readonly(&self) -> bool {
        true
    }
    /// x
    pub fn user_namespaces(&self) -> bool {
        true
    }
    /// x
    pub fn systemd(&self) -> bool {
        Path::new("/run/systemd/system").exists()
    }
    /// x
    pub fn kernel_version(&self) -> (u32, u32) {
        self.kernel
    }
}
