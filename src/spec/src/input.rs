//! The facts that a plan is made of.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crisp_model::{
    ContainerConfig, ContainerId, SandboxConfig, SandboxId, image::ImageConfig, process::Rlimit,
};

/// Everything [`crate::container`] looks at.
#[derive(Debug, Clone)]
pub struct Input<'a> {
    /// The pod as it was asked for.
    pub sandbox: &'a SandboxConfig,
    /// The pod as it runs.
    pub sandbox_facts: SandboxFacts<'a>,
    /// The container as it was asked for.
    pub container: &'a ContainerConfig,
    /// Its id.
    pub container_id: &'a ContainerId,
    /// Configuration of its image.
    pub image: &'a ImageConfig,
    /// Account files of its image.
    pub accounts: &'a Accounts,
    /// The host.
    pub host: &'a HostFacts,
    /// First process of the container that `NamespaceMode::Target` names; `None` if that one does not run.
    pub target_pid: Option<i32>,
    /// Where the monitor mounts the root file system.
    pub rootfs_mountpoint: &'a Path,
    /// The container's cgroup.
    pub cgroup: &'a CgroupPath,
    /// Nodes behind the request's devices, by their path on the host. A request for a folder takes all nodes below it.
    pub devices: &'a BTreeMap<PathBuf, DeviceNode>,
    /// Sources of image volumes (the folder to bind), by their path inside.
    pub image_volumes: &'a BTreeMap<String, PathBuf>,
    /// Folder in which mounts with id mappings are staged: mount `i` of the request at `<staging>/<i>`.
    pub idmap_staging: &'a Path,
}

/// A running pod.
#[derive(Debug, Clone, Copy)]
pub struct SandboxFacts<'a> {
    /// Its id.
    pub id: &'a SandboxId,
    /// Its infra container, in the monitor's pid namespace.
    pub infra_pid: i32,
    /// The pod's `/dev/shm`; `None`: the pod uses the host's IPC namespace, and so the host's.
    pub shm: Option<&'a Path>,
    /// File for `/etc/resolv.conf`.
    pub resolv_conf: Option<&'a Path>,
    /// File for `/etc/hostname`.
    pub hostname: Option<&'a Path>,
    /// File for `/etc/hosts`; `None`: the image's is used unless the request mounts one.
    pub hosts: Option<&'a Path>,
    /// What the pod's UTS namespace calls itself, for `HOSTNAME`.
    pub host_name: &'a str,
    /// SELinux label of the process, made by the caller from the request and the host's policy.
    pub selinux_process: Option<&'a str>,
    /// SELinux label of the container's files.
    pub selinux_mount: Option<&'a str>,
}

/// Texts of the image's account files; `None`: the image has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accounts {
    /// `/etc/passwd`.
    pub passwd: Option<String>,
    /// `/etc/group`.
    pub group: Option<String>,
}

/// A container's cgroup, both as libcontainer wants it and as a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CgroupPath {
    /// `linux.cgroupsPath`: a path (cgroupfs) or `slice:prefix:name` (systemd).
    pub oci: String,
    /// Absolute path below the root of each hierarchy.
    pub folder: String,
}

/// What the host can do, probed once at start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// cgroup hierarchies.
    pub cgroup: CgroupLayout,
    /// Swap is accounted to cgroups (`memory.memsw.*` or `memory.swap.max` exist).
    pub swap_accounting: bool,
    /// Huge page sizes that cgroups can limit, as the kernel spells them (`2MB`); empty without the hugetlb controller.
    pub hugepage_sizes: Vec<String>,
    /// Capabilities that the daemon (and so the monitor) has, names with `CAP_`.
    pub capabilities: Vec<String>,
    /// All device nodes of the host, for privileged containers: path and node.
    pub devices: BTreeMap<PathBuf, DeviceNode>,
    /// Name of the AppArmor profile that stands for RuntimeDefault; `None`: the host has no AppArmor.
    pub apparmor: Option<String>,
    /// SELinux is on.
    pub selinux: bool,
    /// `mount_setattr(2)` with `AT_RECURSIVE` works (Linux 5.12).
    pub recursive_readonly: bool,
    /// Id-mapped mounts work (Linux 5.12; the file system decides too).
    pub idmapped_mounts: bool,
    /// Defaults of the operator.
    pub defaults: Defaults,
}

/// What the operator's configuration adds to every container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Defaults {
    /// Capabilities of a container that asks for none, names with `CAP_`; `None`: [`crate::DEFAULT_CAPABILITIES`].
    pub capabilities: Option<Vec<String>>,
    /// Resource limits.
    pub rlimits: Vec<Rlimit>,
    /// Most processes of one container; `None`: no limit of its own.
    pub pids_limit: Option<i64>,
    /// Privileged containers get no devices of the host but those they name.
    pub privileged_without_host_devices: bool,
}

/// How cgroups are mounted on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CgroupLayout {
    /// Version 1, or the hybrid layout: one folder per controller that libcontainer puts a container into.
    V1(Vec<Controller>),
    /// Version 2: names of the controllers in the container's parent.
    V2(Vec<String>),
}

impl Default for CgroupLayout {
    fn default() -> Self {
        let names = ["cpuset", "cpu", "io", "memory", "hugetlb", "pids"];
        CgroupLayout::V2(names.map(str::to_owned).to_vec())
    }
}

impl CgroupLayout {
    /// Whether there is a controller of this name.
    pub fn has(&self, name: &str) -> bool {
        match self {
            CgroupLayout::V1(controllers) => controllers.iter().any(|c| c.name == name),
            CgroupLayout::V2(names) => names.iter().any(|n| n == name),
        }
    }

    /// Version 2.
    pub fn unified(&self) -> bool {
        matches!(self, CgroupLayout::V2(_))
    }
}

/// A controller of cgroup version 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Controller {
    /// `memory`, `cpu`.
    pub name: String,
    /// Where its hierarchy is mounted; `cpu` and `cpuacct` may share one.
    pub mountpoint: PathBuf,
}

/// Type of a device node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeviceKind {
    /// Character device.
    Char,
    /// Block device.
    Block,
    /// Named pipe.
    Fifo,
}

/// A device node of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceNode {
    /// Type.
    pub kind: DeviceKind,
    /// Major number.
    pub major: i64,
    /// Minor number.
    pub minor: i64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}
