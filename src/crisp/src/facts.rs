//! What the specs of containers need to know of the host.

use std::{collections::BTreeMap, path::Path};

use crisp_host::{
    cgroup::{CgroupFs, Layout},
    probe::Host,
};
use crisp_pod::selinux::Selinux;
use crisp_spec::{CgroupLayout, Controller, Defaults, HostFacts, selinux::Labels};

/// The facts of a probed host; `selinux`: containers get labels.
pub fn spec_facts(host: &Host, cgroups: &CgroupFs, selinux: bool) -> HostFacts {
    let mut devices = BTreeMap::new();
    if let Err(error) = crisp_pod::container::nodes_below(Path::new("/dev"), &mut devices) {
        tracing::warn!(%error, "privileged containers will miss devices of the host");
    }
    HostFacts {
        cgroup: cgroup_layout(cgroups.layout()),
        swap_accounting: host.swap_accounting,
        hugepage_sizes: host.hugepage_sizes.clone(),
        capabilities: host.capabilities.clone(),
        devices,
        apparmor: apparmor(host),
        selinux,
        recursive_readonly: host.recursive_readonly(),
        idmapped_mounts: host.user_namespaces(),
        defaults: Defaults::default(),
    }
}

/// The profile of containers that ask for RuntimeDefault or for none.
const APPARMOR_PROFILE: &str = "crisp-default";

/// Loads the default profile, where AppArmor is on; its name. Without the compiler of profiles AppArmor counts as off.
fn apparmor(host: &Host) -> Option<String> {
    if !host.apparmor.yes() {
        return None;
    }
    match crisp_host::apparmor::load(include_str!("apparmor.profile")) {
        Ok(()) => Some(APPARMOR_PROFILE.into()),
        Err(error) => {
            tracing::warn!(%error, "containers run without AppArmor: its default profile cannot be loaded");
            None
        }
    }
}

/// What gives pods their labels, where SELinux is on and wanted. A policy that knows no containers is as good as none.
pub fn selinux(host: &Host, wanted: bool) -> Option<Selinux> {
    let mode = host.selinux.filter(|_| wanted)?;
    let found =
        crisp_host::selinux::container_contexts().map_err(|e| e.to_string()).and_then(|(path, text)| {
            let labels = Labels::parse_defaults(&text).map_err(|e| format!("{}: {e}", path.display()))?;
            for label in [&labels.process, &labels.mount] {
                let known = crisp_host::selinux::check(&label.to_string());
                known.map_err(|e| format!("{}: {label}: {e}", path.display()))?;
            }
            Ok(labels)
        });
    match found {
        Ok(labels) => {
            tracing::info!(?mode, process = %labels.process, files = %labels.mount, "SELinux labels");
            Some(Selinux::new(labels))
        }
        Err(error) => {
            tracing::warn!(error, "containers run without SELinux labels: the policy has none for them");
            None
        }
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
