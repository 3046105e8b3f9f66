//! What this host can do, found out by doing it.
//!
//! [`Host::probe`] runs once when the daemon starts; everything else asks the result instead of assuming. Versions decide nothing:
//! distributions take features back to old kernels and leave them out of new ones. Probes make mounts that are
//! attached nowhere (or in a mount namespace that ends with its thread), a child that only waits to be killed, and one
//! folder below the root, which is removed; a crash in the middle leaves that folder, and the next probe removes it.

mod facts;
mod idmap;
mod overlay;

use std::{
    collections::BTreeMap,
    fmt,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use serde::{Serialize, Serializer};

use crate::{
    cgroup::{CgroupFs, Layout, devices},
    mount::{self, NewFilesystem},
};

pub use facts::{CgroupDriver, Kernel, Selinux};
pub use overlay::Overlay;

/// Whether the host can do something, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ability(Result<(), String>);

impl Ability {
    /// Whether it can.
    pub fn yes(&self) -> bool {
        self.0.is_ok()
    }

    /// Why not.
    pub fn reason(&self) -> Option<&str> {
        self.0.as_ref().err().map(String::as_str)
    }

    fn of<T, E: fmt::Display>(tried: Result<T, E>) -> Self {
        Self(tried.map(drop).map_err(|error| error.to_string()))
    }

    fn no(reason: impl Into<String>) -> Self {
        Self(Err(reason.into()))
    }
}

impl Serialize for Ability {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Ok(()) => serializer.serialize_str("yes"),
            Err(reason) => serializer.collect_str(&format_args!("no: {reason}")),
        }
    }
}

/// The host.
#[derive(Debug, Clone, Serialize)]
pub struct Host {
    /// The kernel.
    pub kernel: Kernel,
    /// cgroup layout; `None`: no cgroups are mounted.
    pub cgroup: Option<Layout>,
    /// The cgroup driver that fits the host when nothing is configured.
    pub cgroup_driver: CgroupDriver,
    /// cgroups limit swap.
    pub swap_accounting: bool,
    /// Sizes of huge pages that cgroups can limit, as the kernel spells them (`2MB`).
    pub hugepage_sizes: Vec<String>,
    /// Effective capabilities of this process, names with `CAP_`.
    pub capabilities: Vec<String>,
    /// Mounts by descriptor (`fsopen(2)`, `fsmount(2)`).
    pub mount_api: Ability,
    /// Read-only mounts with all that is mounted below them (`mount_setattr(2)`).
    pub recursive_readonly: Ability,
    /// User namespaces can be made.
    pub user_namespace: Ability,
    /// Id-mapped mounts, for each path that was asked about.
    pub idmapped_mounts: BTreeMap<PathBuf, Ability>,
    /// overlayfs on the file system of the root.
    pub overlay: Overlay,
    /// seccomp filters.
    pub seccomp: Ability,
    /// seccomp notifications to a listener.
    pub seccomp_notify: Ability,
    /// Processes by descriptor (`pidfd_open(2)`).
    pub pidfd: Ability,
    /// Pressure stall information.
    pub pressure: Ability,
    /// Device rules on cgroup v2 (`BPF_PROG_TYPE_CGROUP_DEVICE`).
    pub device_programs: Ability,
    /// AppArmor.
    pub apparmor: Ability,
    /// SELinux; `None`: off.
    pub selinux: Option<Selinux>,
    /// Where `criu` is.
    pub criu: Option<PathBuf>,
    /// systemd runs the host.
    pub systemd: bool,
    #[serde(skip)]
    root: PathBuf,
}

impl Host {
    /// Tries everything; a few milliseconds. `root` is where images and writable layers are (it is made if it is
    /// missing), `state` where sockets and mounts are.
    pub fn probe(root: &Path, state: &Path) -> Self {
        // A root that cannot be made is reported by what needs it.
        let _ = std::fs::create_dir_all(root);
        let cgroup = CgroupFs::detect().ok().map(|fs| fs.layout().clone());
        let user_namespace = idmap::user_namespace();
        let idmapped_mounts = [root, state]
            .into_iter()
            .map(|path| (path.to_owned(), idmap::try_path(&user_namespace, path)))
            .collect();
        let systemd = facts::systemd();
        Self {
            kernel: facts::kernel(),
            swap_accounting: cgroup.as_ref().is_some_and(facts::swap_accounting),
            hugepage_sizes: cgroup.as_ref().map(facts::hugepage_sizes).unwrap_or_default(),
            cgroup_driver: facts::driver(systemd, cgroup.as_ref()),
            cgroup,
            capabilities: facts::capabilities(),
            mount_api: Ability::of(tmpfs()),
            recursive_readonly: Ability::of(recursive_readonly()),
            overlay: overlay::probe(root, &user_namespace),
            user_namespace: Ability::of(user_namespace),
            idmapped_mounts,
            seccomp: facts::seccomp_action(facts::SECCOMP_RET_ERRNO),
            seccomp_notify: facts::seccomp_action(facts::SECCOMP_RET_USER_NOTIF),
            pidfd: Ability::of(crate::process::pidfd(nix::unistd::getpid())),
            pressure: Ability::of(std::fs::read("/proc/pressure/cpu")),
            device_programs: Ability::of(devices::supported()),
            apparmor: facts::apparmor(),
            selinux: facts::selinux(),
            criu: facts::in_path("criu"),
            systemd,
            root: root.to_owned(),
        }
    }

    /// Recursive read-only mounts work.
    pub fn recursive_readonly(&self) -> bool {
        self.recursive_readonly.yes()
    }

    /// Pods with a user namespace work: it can be made, and the root file system and volumes on the root's file system
    /// can be mapped for it.
    pub fn user_namespaces(&self) -> bool {
        self.user_namespaces_missing().is_none()
    }

    /// Why pods with a user namespace do not work.
    pub fn user_namespaces_missing(&self) -> Option<&str> {
        let mapped = self.idmapped_mounts.get(&self.root);
        let needed = [Some(&self.user_namespace), mapped, Some(&self.overlay.idmapped_layers)];
        needed.into_iter().flatten().find_map(Ability::reason)
    }

    /// systemd runs the host.
    pub fn systemd(&self) -> bool {
        self.systemd
    }

    /// Major and minor number, for people and for plugins that ask; decides nothing.
    pub fn kernel_version(&self) -> (u32, u32) {
        (self.kernel.major, self.kernel.minor)
    }
}

fn tmpfs() -> std::io::Result<std::os::fd::OwnedFd> {
    NewFilesystem::open(c"tmpfs")?.mount(0)
}

fn recursive_readonly() -> std::io::Result<()> {
    mount::set_attributes(tmpfs()?.as_fd(), libc::MOUNT_ATTR_RDONLY, None, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_is_probed_and_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::probe(dir.path(), dir.path());
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(dir.path().to_str().unwrap()), "{mounts}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(host.kernel_version() >= (4, 0), "{host:?}");
        assert_eq!(host.cgroup.is_some(), CgroupFs::detect().is_ok());
        assert_eq!(host.user_namespaces(), host.user_namespaces_missing().is_none());
        let json = serde_json::to_value(&host).unwrap();
        assert!(json["recursive_readonly"].as_str().unwrap().starts_with(['y', 'n']), "{json}");
    }
}
