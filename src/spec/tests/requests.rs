//! What is refused, and by which field's name; and cases too small for a golden file.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod world;

use crisp_model::{
    ContainerId, Mount,
    container::{Device, Propagation},
    security::{IdMapping, NamespaceMode, Profile},
};
use crisp_spec::SpecError;
use serde_json::json;
use world::{World, char_device};

fn volume(inside: &str, host: &str) -> Mount {
    Mount { container_path: inside.into(), host_path: host.into(), ..Default::default() }
}

/// A change to a plain request and the field it is refused for.
type Case = (&'static str, fn(&mut World));

#[test]
fn wrong_fields_are_named() {
    let cases: &[Case] = &[
        ("config.command", |w| {
            w.image.entrypoint.clear();
            w.image.cmd.clear();
        }),
        ("config.working_dir", |w| w.container.working_dir = "srv".into()),
        ("config.envs[0].key", |w| w.container.envs = vec![("=".into(), vec![])]),
        ("config.linux.security_context.privileged", |w| w.container.security.privileged = true),
        ("config.linux.security_context.run_as_group", |w| w.container.security.run_as_group = Some(1)),
        ("config.linux.security_context.masked_paths[0]", |w| {
            w.container.security.masked_paths = vec!["proc".into()];
        }),
        ("config.linux.security_context.seccomp.localhost_ref", |w| {
            w.container.security.seccomp = Profile::Localhost("profile.json".into());
        }),
        ("config.linux.security_context.apparmor", |w| {
            w.container.security.apparmor = Some(Profile::Localhost("mine".into()));
        }),
        ("config.linux.security_context.capabilities.drop_capabilities[0]", |w| {
            w.container.security.capabilities.drop = vec!["NOSUCH".into()];
        }),
        ("config.linux.security_context.namespace_options.network", |w| {
            w.container.security.namespaces.network = NamespaceMode::Node;
        }),
        ("config.linux.security_context.namespace_options.ipc", |w| {
            w.container.security.namespaces.ipc = NamespaceMode::Container;
        }),
        ("config.linux.security_context.namespace_options.pid", |w| {
            w.container.security.namespaces.pid = NamespaceMode::Node;
        }),
        // Nothing shares its pid namespace, so joining the infra container's would be joining whatever it runs in.
        ("config.linux.security_context.namespace_options.pid", |w| {
            w.sandbox.security.namespaces.pid = NamespaceMode::Container;
        }),
        ("config.linux.security_context.namespace_options.target_id", |w| {
            w.container.security.namespaces.pid = NamespaceMode::Target(ContainerId::random());
        }),
        ("config.linux.security_context.namespace_options.userns_options", |w| {
            w.container.security.namespaces.user = Some(Default::default());
        }),
        ("config.linux.security_context.namespace_options.pid", |w| {
            w.sandbox.security.namespaces.user = Some(Default::default());
            w.sandbox.security.namespaces.pid = NamespaceMode::Node;
        }),
        ("config.linux.resources.cpu_period", |w| w.container.resources.cpu_period = Some(1)),
        ("config.mounts[1].container_path", |w| {
            w.container.mounts = vec![volume("/a", "/a"), volume("a", "/a")];
        }),
        ("config.mounts[0].container_path", |w| w.container.mounts = vec![volume("/a/..", "/a")]),
        ("config.mounts[0].host_path", |w| w.container.mounts = vec![volume("/a", "")]),
        ("config.mounts[0].image", |w| {
            w.container.mounts = vec![Mount { image: Some("x".into()), ..volume("/a", "") }];
        }),
        ("config.mounts[0].mount_options", |w| {
            w.container.mounts = vec![Mount { mount_options: vec!["remount".into()], ..volume("/a", "/a") }];
        }),
        ("config.mounts[0].recursive_read_only", |w| {
            w.container.mounts = vec![Mount { recursive_readonly: true, ..volume("/a", "/a") }];
        }),
        ("config.mounts[0].recursive_read_only", |w| {
            let propagation = Propagation::HostToContainer;
            w.container.mounts =
                vec![Mount { recursive_readonly: true, readonly: true, propagation, ..volume("/a", "/a") }];
        }),
        ("config.mounts[0].recursive_read_only", |w| {
            w.host.recursive_readonly = false;
            w.container.mounts =
                vec![Mount { recursive_readonly: true, readonly: true, ..volume("/a", "/a") }];
        }),
        ("config.mounts[0].gidMappings", |w| {
            let uid_mappings = vec![IdMapping { host_id: 1, container_id: 0, length: 1 }];
            w.container.mounts = vec![Mount { uid_mappings, ..volume("/a", "/a") }];
        }),
        ("config.mounts[0].uidMappings", |w| {
            w.host.idmapped_mounts = false;
            let map = vec![IdMapping { host_id: 1, container_id: 0, length: 1 }];
            w.container.mounts =
                vec![Mount { uid_mappings: map.clone(), gid_mappings: map, ..volume("/a", "/a") }];
        }),
        ("config.devices[0].host_path", |w| {
            w.container.devices = vec![Device {
                host_path: "/dev/no".into(),
                container_path: String::new(),
                permissions: "r".into(),
            }];
        }),
        ("config.devices[0].permissions", |w| {
            w.container.devices = vec![Device {
                host_path: "/dev/a".into(),
                container_path: String::new(),
                permissions: "rx".into(),
            }];
        }),
        ("config.devices[0].container_path", |w| {
            w.devices.insert("/dev/a".into(), char_device(1, 1));
            w.container.devices = vec![Device {
                host_path: "/dev/a".into(),
                container_path: "/dev/../etc/a".into(),
                permissions: "r".into(),
            }];
        }),
    ];
    for (field, change) in cases {
        let mut world = World::new();
        change(&mut world);
        match world.plan() {
            Err(error) => assert_eq!(error.field(), *field, "{error}"),
            Ok(_) => panic!("{field}: not refused"),
        }
    }
}

#[test]
fn a_missing_object_is_told_from_a_wrong_field() {
    let mut world = World::new();
    world.container.security.run_as_username = Some("ghost".into());
    assert!(matches!(world.plan(), Err(SpecError::NotFound { .. })));
    world.container.security.run_as_username = None;
    world.container.working_dir = "x".into();
    assert!(matches!(world.plan(), Err(SpecError::Invalid { .. })));
}

fn destinations(world: &World) -> Vec<(String, String)> {
    let spec = world.plan().unwrap().spec;
    let mounts = spec["mounts"].as_array().unwrap().iter();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    mounts.map(|m| (text(&m["destination"]), text(&m["source"]))).collect()
}

#[test]
fn a_volume_takes_the_place_of_a_usual_mount() {
    let mut world = World::new();
    world.container.mounts = vec![volume("/etc/resolv.conf/", "/srv/resolv"), volume("/dev/shm", "/srv/shm")];
    let found = destinations(&world);
    let sources =
        |path: &str| found.iter().filter(|(d, _)| d == path).map(|(_, s)| s.as_str()).collect::<Vec<_>>();
    assert_eq!(sources("/etc/resolv.conf"), ["/srv/resolv"]);
    assert_eq!(sources("/dev/shm"), ["/srv/shm"]);
    assert_eq!(sources("/etc/hostname").len(), 1);
    assert!(sources("/etc/hosts").is_empty(), "only the kubelet brings one");

    let mut world = World::v1();
    world.container.mounts = vec![volume("/dev", "/dev"), volume("/sys/fs/cgroup", "/sys/fs/cgroup")];
    let found = destinations(&world);
    assert_eq!(found.iter().filter(|(d, _)| d.starts_with("/dev")).count(), 1);
    assert_eq!(found.iter().filter(|(d, _)| d.starts_with("/sys/fs/cgroup")).count(), 1);
}

#[test]
fn pid_namespaces() {
    let pid = |pod: NamespaceMode, own: NamespaceMode, target| {
        let mut world = World::new();
        world.sandbox.security.namespaces.pid = pod;
        world.container.security.namespaces.pid = own;
        world.target_pid = target;
        let spec = world.plan().unwrap().spec;
        let list = spec["linux"]["namespaces"].as_array().unwrap().clone();
        list.into_iter().find(|n| n["type"] == "pid")
    };
    let other = || NamespaceMode::Target("a".repeat(64).parse().unwrap());
    use NamespaceMode::{Container, Node, Pod};
    assert_eq!(pid(Pod, Pod, None), Some(json!({"type": "pid", "path": "/proc/4711/ns/pid"})));
    assert_eq!(pid(Pod, Container, None), Some(json!({"type": "pid"})));
    assert_eq!(pid(Container, Container, None), Some(json!({"type": "pid"})));
    assert_eq!(pid(Node, Node, None), None);
    assert_eq!(pid(Node, Pod, None), None);
    assert_eq!(pid(Node, Container, None), Some(json!({"type": "pid"})));
    assert_eq!(pid(Container, other(), Some(9)), Some(json!({"type": "pid", "path": "/proc/9/ns/pid"})));
}

#[test]
fn a_privileged_container_without_the_host_s_devices() {
    let mut world = World::new();
    world.sandbox.security.privileged = true;
    world.container.security.privileged = true;
    world.host.defaults.privileged_without_host_devices = true;
    world.devices.insert("/dev/kvm".into(), char_device(10, 232));
    world.container.devices = vec![Device {
        host_path: "/dev/kvm".into(),
        container_path: "/dev/kvm".into(),
        permissions: "r".into(),
    }];
    let spec = world.plan().unwrap().spec;
    assert_eq!(spec["linux"]["devices"].as_array().unwrap().len(), 1);
    assert_eq!(spec["linux"]["resources"]["devices"], json!([{"allow": true, "access": "rwm"}]));
}
