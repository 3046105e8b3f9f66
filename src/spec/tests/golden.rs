//! Plans of typical containers, compared with files. `CRISP_UPDATE_GOLDEN=1` writes the files anew: read the difference
//! before it is committed.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod world;

use std::{
    fs,
    path::{Path, PathBuf},
};

use crisp_model::{
    Mount,
    container::{Device, Propagation},
    process::Rlimit,
    resources::HugepageLimit,
    security::{IdMapping, NamespaceMode, Profile, UserNamespace},
};
use crisp_spec::Plan;
use serde_json::{Value, json};
use world::{World, char_device};

fn readable(plan: &Plan) -> Value {
    let mut process = serde_json::to_value(&plan.process).unwrap();
    process["env"] = plan.process.env.iter().map(|e| String::from_utf8_lossy(e).into_owned()).collect();
    let idmapped = plan
        .idmapped
        .iter()
        .map(|m| json!({"source": m.source, "staging": m.staging, "uids": m.uids, "gids": m.gids}));
    json!({
        "spec": plan.spec,
        "process": process,
        "propagation": plan.propagation,
        "seccomp": plan.seccomp,
        "idmapped": idmapped.collect::<Vec<_>>(),
        "warnings": plan.warnings,
        "user": {"uid": plan.user.uid, "gid": plan.user.gid, "supplemental": plan.user.supplemental},
    })
}

/// Rules for every spec, whatever is in it.
fn check(spec: &Value) {
    serde_json::from_value::<oci_spec::runtime::Spec>(spec.clone())
        .expect("libcontainer must be able to read it");
    assert_eq!(spec["process"]["user"], json!({"uid": 0, "gid": 0}), "the monitor makes the process itself");
    for key in
        ["capabilities", "noNewPrivileges", "oomScoreAdj", "rlimits", "apparmorProfile", "selinuxLabel"]
    {
        assert!(spec["process"].get(key).is_none(), "{key}");
    }
    assert!(spec["linux"].get("seccomp").is_none());
    assert!(spec.get("hostname").is_none(), "the infra container has set it");
    let depth = |m: &Value| m["destination"].as_str().unwrap().matches('/').count();
    let mounts = spec["mounts"].as_array().unwrap();
    assert!(mounts.is_sorted_by_key(depth), "parents come first");
}

/// This crate in the checkout that runs the test, which a program that was built in another one does not know.
fn manifest_folder() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it for tests").into()
}

fn golden(name: &str, world: &World) -> Plan {
    let plan = world.plan().unwrap();
    check(&plan.spec);
    let text = serde_json::to_string_pretty(&readable(&plan)).unwrap() + "\n";
    let path = manifest_folder().join("tests/golden").join(name).with_extension("json");
    if std::env::var_os("CRISP_UPDATE_GOLDEN").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    if text != expected {
        let line = text.lines().zip(expected.lines()).position(|(a, b)| a != b).unwrap_or(0);
        let shown = |text: &str| text.lines().skip(line).take(3).collect::<Vec<_>>().join("\n");
        panic!("{name}, line {}:\n{}\nexpected:\n{}", line + 1, shown(&text), shown(&expected));
    }
    plan
}

fn volume(inside: &str, host: &str) -> Mount {
    Mount { container_path: inside.into(), host_path: host.into(), ..Default::default() }
}

#[test]
fn plain() {
    let mut world = World::new();
    world.container.args = vec!["-g".into(), "daemon off;".into()];
    world.container.envs = vec![("LANG".into(), b"de".to_vec()), ("MODE".into(), b"x=y".to_vec())];
    world.container.mounts = vec![
        volume("/var/log/app", "/var/lib/kubelet/logs"),
        volume("/etc/hosts", "/var/lib/kubelet/etc-hosts"),
        volume("/var/log", "/var/lib/kubelet/all"),
    ];
    let resources = &mut world.container.resources;
    resources.cpu_shares = Some(204);
    resources.cpu_period = Some(100_000);
    resources.cpu_quota = Some(50_000);
    resources.memory_limit = Some(64 << 20);
    resources.oom_score_adj = 994;
    resources.hugepage_limits = vec![HugepageLimit { page_size: "2MB".into(), limit: 0 }];
    let security = &mut world.container.security;
    security.namespaces.pid = NamespaceMode::Container;
    security.masked_paths = vec!["/proc/kcore".into(), "/sys/firmware".into()];
    security.readonly_paths = vec!["/proc/sys".into()];
    security.seccomp = Profile::RuntimeDefault;
    security.run_as_user = Some(1000);
    security.no_new_privs = true;
    let plan = golden("plain", &world);
    assert!(plan.warnings.is_empty());
}

#[test]
fn cgroup_version_1() {
    let mut world = World::v1();
    world.container.resources.memory_limit = Some(64 << 20);
    world.container.resources.hugepage_limits = vec![HugepageLimit { page_size: "2MB".into(), limit: 9 }];
    world.container.resources.unified.insert("memory.high".into(), "1".into());
    assert_eq!(golden("cgroup-v1", &world).warnings.len(), 2);
}

#[test]
fn privileged() {
    let mut world = World::new();
    world.sandbox.security.privileged = true;
    let security = &mut world.container.security;
    security.privileged = true;
    security.masked_paths = vec!["/proc/kcore".into()];
    security.seccomp = Profile::Localhost("/etc/profile.json".into());
    world.host.apparmor = Some("crisp-default".into());
    let plan = golden("privileged", &world);
    assert_eq!(plan.seccomp, Profile::Unconfined);
    assert_eq!(plan.process.apparmor_profile, None);
}

#[test]
fn host_namespaces() {
    let mut world = World::new();
    world.host_ipc = true;
    for namespaces in [&mut world.sandbox.security.namespaces, &mut world.container.security.namespaces] {
        namespaces.network = NamespaceMode::Node;
        namespaces.pid = NamespaceMode::Node;
        namespaces.ipc = NamespaceMode::Node;
    }
    golden("host-namespaces", &world);
}

fn in_user_namespace(world: &mut World) -> IdMapping {
    let map = IdMapping { host_id: 100_000, container_id: 0, length: 65_536 };
    let user = Some(UserNamespace { uids: vec![map], gids: vec![map] });
    world.sandbox.security.namespaces.user.clone_from(&user);
    world.container.security.namespaces.user = user;
    map
}

#[test]
fn user_namespace() {
    let mut world = World::new();
    let map = in_user_namespace(&mut world);
    world.container.mounts = vec![
        volume("/plain", "/srv/plain"),
        Mount { uid_mappings: vec![map], gid_mappings: vec![map], ..volume("/data", "/srv/data") },
    ];
    let plan = golden("user-namespace", &world);
    assert_eq!(plan.idmapped[0].staging, Path::new("/run/crisp/pods/5/idmapped/c/1"));
}

#[test]
fn user_namespace_with_the_host_s_network() {
    let mut world = World::new();
    in_user_namespace(&mut world);
    world.sandbox.security.namespaces.network = NamespaceMode::Node;
    world.container.security.namespaces.network = NamespaceMode::Node;
    golden("user-namespace-host-network", &world);
}

#[test]
fn read_only() {
    let mut world = World::new();
    world.container.security.readonly_rootfs = true;
    world.image_volumes.insert("/model".into(), "/run/crisp/volumes/1/sub".into());
    world.container.mounts = vec![
        Mount { readonly: true, ..volume("/ro", "/srv/ro") },
        Mount { readonly: true, recursive_readonly: true, ..volume("/rro", "/srv/rro") },
        Mount { image: Some("model:1".into()), container_path: "/model".into(), ..Default::default() },
        Mount {
            mount_options: vec!["noexec".into(), "rnosuid".into()],
            ..volume("/options", "/srv/options")
        },
    ];
    golden("read-only", &world);
}

#[test]
fn propagation() {
    let mut world = World::new();
    let with = |propagation, path: &str| Mount { propagation, ..volume(path, "/srv") };
    world.container.mounts = vec![
        with(Propagation::Private, "/private"),
        with(Propagation::HostToContainer, "/slave"),
        with(Propagation::Bidirectional, "/shared"),
    ];
    let plan = golden("propagation", &world);
    assert_eq!(plan.spec["linux"]["rootfsPropagation"], "shared");
    world.container.mounts.pop();
    let plan = world.plan().unwrap();
    assert_eq!(plan.spec["linux"]["rootfsPropagation"], "slave");
    assert!(plan.propagation.contains(&("/private".into(), Propagation::Private)));
    assert!(!plan.propagation.iter().any(|(path, _)| path == "/slave"));
    world.container.mounts.pop();
    let plan = world.plan().unwrap();
    assert_eq!(plan.spec["linux"]["rootfsPropagation"], "private");
    assert!(plan.propagation.is_empty());
}

#[test]
fn terminal_and_devices() {
    let mut world = World::new();
    world.container.tty = true;
    world.container.stdin = true;
    world.container.working_dir = "/srv".into();
    world.devices.insert("/dev/fuse".into(), char_device(10, 229));
    world.devices.insert("/dev/snd/pcm".into(), char_device(116, 3));
    world.devices.insert("/dev/snd/seq".into(), char_device(116, 1));
    world.container.devices = vec![
        Device { host_path: "/dev/fuse".into(), container_path: String::new(), permissions: "rw".into() },
        Device {
            host_path: "/dev/snd".into(),
            container_path: "/dev/audio/".into(),
            permissions: String::new(),
        },
    ];
    world.container.security.capabilities.add_ambient = vec!["NET_BIND_SERVICE".into()];
    world.host.defaults.rlimits = vec![Rlimit { kind: "RLIMIT_NOFILE".into(), soft: 1024, hard: 524_288 }];
    world.host.defaults.pids_limit = Some(1000);
    let plan = golden("terminal-and-devices", &world);
    assert_eq!(plan.process.terminal, Some((0, 0)));
}

#[test]
fn security_modules() {
    let mut world = World::new();
    world.host.selinux = true;
    world.host.apparmor = Some("crisp-default".into());
    let plan = golden("security-modules", &world);
    assert_eq!(plan.process.apparmor_profile.as_deref(), Some("crisp-default"));
    for (asked, found) in [
        (Profile::Unconfined, None),
        (Profile::Localhost("mine".into()), Some("mine")),
        (Profile::RuntimeDefault, Some("crisp-default")),
    ] {
        world.container.security.apparmor = Some(asked);
        assert_eq!(world.plan().unwrap().process.apparmor_profile.as_deref(), found);
    }
    world.host.apparmor = None;
    assert_eq!(world.plan().unwrap().process.apparmor_profile, None);
}
