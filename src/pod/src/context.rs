//! What every pod's operations work with. Made once at start, shared, never changed.

use std::{path::PathBuf, sync::Arc, time::Duration};

use crisp_host::{cgroup::CgroupFs, seccomp::SeccompCache};
use crisp_image::ImageStore;
use crisp_model::{ContainerId, SandboxId};
use crisp_network::Network;
use crisp_observe::{events::EventBus, stats::Sampler};
use crisp_spec::HostFacts;
use crisp_store::Store;

use crate::{
    record::{ContainerRecord, SandboxRecord},
    registry::Registry,
};

/// Settings of this crate.
#[derive(Debug, Clone)]
pub struct PodsConfig {
    /// What dies with the machine: `/run/crisp`.
    pub state: PathBuf,
    /// What survives: `/var/lib/crisp`.
    pub root: PathBuf,
    /// The monitor's binary.
    pub monitor: PathBuf,
    /// cgroup of pods that name none, `/crisp`.
    pub default_cgroup_parent: String,
    /// The systemd cgroup driver.
    pub systemd_cgroup: bool,
    /// Bytes of output that ExecSync keeps of each stream.
    pub exec_output_limit: usize,
    /// Longest that tearing a pod's network down may take within StopPodSandbox.
    pub network_deadline: Duration,
}

/// Everything the operations use.
#[derive(Debug)]
pub struct Context {
    /// Settings.
    pub config: PodsConfig,
    /// Images and writable layers.
    pub images: ImageStore,
    /// Pod networks.
    pub network: Network,
    /// Control groups.
    pub cgroups: CgroupFs,
    /// What this host has, for specs.
    pub host: HostFacts,
    /// Compiled seccomp programs.
    pub seccomp: SeccompCache,
    /// Container events.
    pub events: EventBus,
    /// Stats.
    pub stats: Sampler,
    /// Records of sandboxes.
    pub sandboxes: Store<SandboxRecord>,
    /// Records of containers.
    pub containers: Store<ContainerRecord>,
    /// All pods.
    pub registry: Registry,
    /// Of this boot.
    pub boot_id: String,
    /// Kernel version, major and minor.
    pub kernel: (u32, u32),
}

impl Context {
    /// Folder of a pod's files that die with the machine.
    pub fn pod_dir(&self, pod: &SandboxId) -> PathBuf {
        self.config.state.join("pods").join(pod.as_str())
    }

    /// A container's writable layer.
    pub fn writable_layer(&self, container: &ContainerId) -> PathBuf {
        self.config.root.join("containers").join(container.as_str()).join("upper")
    }

    /// Where a pod's network namespace is kept.
    pub fn netns(&self, pod: &SandboxId) -> PathBuf {
        self.config.state.join("netns").join(pod.as_str())
    }

    /// cgroup of a whole pod: the one that the kubelet made for it, or one of our own.
    pub fn pod_cgroup(&self, pod: &SandboxId, parent: &str) -> String {
        match parent {
            "" => format!("{}/{}", self.config.default_cgroup_parent.trim_end_matches('/'), pod),
            parent => parent.trim_end_matches('/').to_owned(),
        }
    }

    /// Runs something that blocks (files, mounts, netlink) off the async threads.
    pub async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        f: impl FnOnce(&Context) -> T + Send + 'static,
    ) -> Result<T, crate::PodError> {
        let context = self.clone();
        tokio::task::spawn_blocking(move || f(&context))
            .await
            .map_err(|e| crate::PodError::host("run a blocking step", e))
    }
}
