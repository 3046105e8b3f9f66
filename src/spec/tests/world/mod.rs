//! A pod, a container and a host to make plans of.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crisp_model::{
    ContainerConfig, ContainerId, SandboxConfig, SandboxId, capability::CAPABILITIES,
    container::ContainerMetadata, image::ImageConfig, sandbox::SandboxMetadata,
};
use crisp_spec::{
    Accounts, CgroupLayout, CgroupPath, Controller, DeviceKind, DeviceNode, HostFacts, Input, Plan,
    SandboxFacts, SpecError,
};

/// Everything an [`Input`] borrows from.
pub struct World {
    pub sandbox: SandboxConfig,
    pub container: ContainerConfig,
    pub image: ImageConfig,
    pub accounts: Accounts,
    pub host: HostFacts,
    pub target_pid: Option<i32>,
    pub cgroup: CgroupPath,
    pub devices: BTreeMap<PathBuf, DeviceNode>,
    pub image_volumes: BTreeMap<String, PathBuf>,
    pub sandbox_id: SandboxId,
    pub container_id: ContainerId,
    pub host_ipc: bool,
}

pub fn char_device(major: i64, minor: i64) -> DeviceNode {
    DeviceNode { kind: DeviceKind::Char, major, minor, mode: 0o660, uid: 0, gid: 5 }
}

impl World {
    /// A plain pod on a host with cgroup version 2.
    pub fn new() -> Self {
        let metadata =
            SandboxMetadata { name: "web".into(), uid: "0b9c".into(), namespace: "shop".into(), attempt: 0 };
        let env = vec!["PATH=/usr/bin:/bin".to_owned(), "LANG=C".to_owned()];
        let capabilities = CAPABILITIES.iter().filter(|c| **c != "CAP_SYS_RESOURCE");
        let device = |path: &str, node| (PathBuf::from(path), node);
        World {
            sandbox: SandboxConfig { metadata, hostname: "web".into(), ..Default::default() },
            container: ContainerConfig {
                metadata: ContainerMetadata { name: "nginx".into(), attempt: 0 },
                image: "sha256:1234".into(),
                user_specified_image: "registry.example/nginx:1".into(),
                ..Default::default()
            },
            image: ImageConfig {
                env,
                entrypoint: vec!["/entry.sh".into()],
                cmd: vec!["nginx".into()],
                ..Default::default()
            },
            accounts: Accounts {
                passwd: Some("root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/srv/app:".into()),
                group: Some("root:x:0:\nvideo:x:44:app".into()),
            },
            host: HostFacts {
                cgroup: CgroupLayout::default(),
                swap_accounting: true,
                capabilities: capabilities.map(|c| (*c).to_owned()).collect(),
                devices: BTreeMap::from([
                    device("/dev/kvm", char_device(10, 232)),
                    device("/dev/null", char_device(1, 3)),
                    device("/dev/pts/0", char_device(136, 0)),
                    device("/dev/sda", DeviceNode { kind: DeviceKind::Block, ..char_device(8, 0) }),
                ]),
                recursive_readonly: true,
                idmapped_mounts: true,
                ..Default::default()
            },
            target_pid: None,
            cgroup: CgroupPath { oci: "/kubepods/pod0b9c/c".into(), folder: "/kubepods/pod0b9c/c".into() },
            devices: BTreeMap::new(),
            image_volumes: BTreeMap::new(),
            sandbox_id: "5".repeat(64).parse().expect("an id"),
            container_id: "c".repeat(64).parse().expect("an id"),
            host_ipc: false,
        }
    }

    /// The same on a host with cgroup version 1.
    pub fn v1() -> Self {
        let mut world = World::new();
        let controller = |name: &&str| Controller {
            name: (*name).into(),
            mountpoint: if name.starts_with("cpu") && *name != "cpuset" {
                "/sys/fs/cgroup/cpu,cpuacct".into()
            } else {
                Path::new("/sys/fs/cgroup").join(name)
            },
        };
        let names = ["blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "memory", "pids"];
        world.host.cgroup = CgroupLayout::V1(names.iter().map(controller).collect());
        world
    }

    pub fn plan(&self) -> Result<Plan, SpecError> {
        let run = Path::new("/run/crisp/pods/5");
        let (shm, resolv, hostname) = (run.join("shm"), run.join("resolv.conf"), run.join("hostname"));
        crisp_spec::container(&Input {
            sandbox: &self.sandbox,
            sandbox_facts: SandboxFacts {
                id: &self.sandbox_id,
                infra_pid: 4711,
                shm: (!self.host_ipc).then_some(&*shm),
                resolv_conf: Some(&resolv),
                hostname: Some(&hostname),
                hosts: None,
                host_name: "web",
                selinux_process: Some("system_u:system_r:container_t:s0:c1,c2"),
                selinux_mount: Some("system_u:object_r:container_file_t:s0:c1,c2"),
            },
            container: &self.container,
            container_id: &self.container_id,
            image: &self.image,
            accounts: &self.accounts,
            host: &self.host,
            target_pid: self.target_pid,
            rootfs_mountpoint: Path::new("/run/crisp/pods/5/rootfs/c"),
            cgroup: &self.cgroup,
            devices: &self.devices,
            image_volumes: &self.image_volumes,
            idmap_staging: Path::new("/run/crisp/pods/5/idmapped/c"),
        })
    }
}
