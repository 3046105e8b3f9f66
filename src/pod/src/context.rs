//! What every pod's operations work with. Made once at start, shared, never changed.

use std::{path::PathBuf, sync::Arc, time::Duration};

use crisp_host::{
    cgroup::{
        CgroupFs, slice_path,
        systemd::{Systemd, SystemdError},
    },
    seccomp::SeccompCache,
};
use crisp_image::ImageStore;
use crisp_model::{ContainerId, LinuxResources, SandboxId};
use crisp_monitor::protocol::Cgroup;
use crisp_network::Network;
use crisp_observe::{events::EventBus, metrics::Metrics, stats::Sampler};
use crisp_spec::HostFacts;
use crisp_store::Store;

use crate::{
    PodError,
    record::{ContainerRecord, SandboxRecord},
    registry::Registry,
    selinux::Selinux,
};

/// How long systemd may take to answer.
const SYSTEMD: Duration = Duration::from_secs(10);

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
    /// SELinux; `None`: off.
    pub selinux: Option<Selinux>,
    /// Compiled seccomp programs.
    pub seccomp: SeccompCache,
    /// Container events.
    pub events: EventBus,
    /// Stats.
    pub stats: Sampler,
    /// The daemon's own metrics.
    pub metrics: Arc<Metrics>,
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

    /// cgroup of a whole pod: the one that the kubelet made for it, or one of our own. A folder with either driver.
    pub fn pod_cgroup(&self, pod: &SandboxId, parent: &str) -> String {
        if self.config.systemd_cgroup {
            let slice = self.slice(pod, parent);
            // What is no slice is refused when a scope in it is asked for.
            return slice_path(&slice).unwrap_or_else(|_| format!("/{slice}"));
        }
        match parent {
            "" => format!("{}/{}", self.config.default_cgroup_parent.trim_end_matches('/'), pod),
            parent => parent.trim_end_matches('/').to_owned(),
        }
    }

    /// The pod's slice. Some clients send its whole path: the name says the same.
    fn slice(&self, pod: &SandboxId, parent: &str) -> String {
        let name = |path: &str| path.rsplit('/').find(|part| !part.is_empty()).unwrap_or("crisp").to_owned();
        match parent {
            "" => {
                format!("{}-{pod}.slice", name(&self.config.default_cgroup_parent).trim_end_matches(".slice"))
            }
            parent => name(parent),
        }
    }

    /// Folder of a container's cgroup, or of the infra container's, whose id is the pod's.
    pub fn member_cgroup(&self, pod: &SandboxId, parent: &str, id: &str) -> String {
        match self.config.systemd_cgroup {
            true => format!("{}/crisp-{id}.scope", self.pod_cgroup(pod, parent)),
            false => format!("{}/{id}", self.pod_cgroup(pod, parent)),
        }
    }

    /// The same, as the monitor is asked for it.
    pub fn member_cgroup_request(
        &self,
        pod: &SandboxId,
        parent: &str,
        id: &str,
        limits: LinuxResources,
    ) -> Cgroup {
        let systemd = self.config.systemd_cgroup;
        let path = match systemd {
            true => format!("{}:crisp:{id}", self.slice(pod, parent)),
            false => self.member_cgroup(pod, parent, id),
        };
        Cgroup { path, systemd, limits }
    }

    /// Changes the limits of a cgroup; systemd is told as well where it is systemd's, so that it keeps them. Blocks.
    pub fn limit(&self, cgroup: &str, limits: &LinuxResources) -> Result<(), PodError> {
        let failed = |e: &dyn std::fmt::Display| PodError::host(format!("change the limits of {cgroup}"), e);
        if self.config.systemd_cgroup {
            let unit = cgroup.rsplit('/').next().unwrap_or_default();
            let told = self.systemd().and_then(|mut systemd| systemd.set_limits(unit, limits, SYSTEMD));
            told.map_err(|e| failed(&e))?;
        }
        self.cgroups.apply(cgroup, limits).map_err(|e| failed(&e))
    }

    /// A connection to systemd. Blocks.
    pub(crate) fn systemd(&self) -> Result<Systemd, SystemdError> {
        Systemd::connect(self.cgroups.layout().is_v2(), SYSTEMD)
    }

    /// Runs something that blocks (files, mounts, netlink) off the async threads.
    pub async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        f: impl FnOnce(&Context) -> T + Send + 'static,
    ) -> Result<T, PodError> {
        let context = self.clone();
        tokio::task::spawn_blocking(move || f(&context))
            .await
            .map_err(|e| PodError::host("run a blocking step", e))
    }
}
