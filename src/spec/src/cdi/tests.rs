use std::{collections::BTreeMap, fs};

use crisp_model::{container::Propagation, process::Process, security::Profile};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{ContainerUser, input::DeviceKind};

const GPU: &str = r#"
cdiVersion: "0.6.0"
kind: vendor.example/gpu
annotations: {a: b}
devices:
  - name: "0"
    containerEdits:
      deviceNodes:
        - path: /dev/gpu0
        - path: /dev/gpuctl
          hostPath: /dev/gpu-control
          type: c
          major: 195
          minor: 255
          fileMode: 438
          permissions: rw
          uid: 7
  - name: all
containerEdits:
  env: ["GPU=1", "PATH=/gpu/bin"]
  mounts:
    - hostPath: /usr/lib/libgpu.so
      containerPath: /usr/lib/libgpu.so
      options: [ro, nosuid, nodev, bind]
    - hostPath: tmpfs
      containerPath: /tmp/gpu
      type: tmpfs
  hooks:
    - hookName: createContainer
      path: /usr/bin/gpu-hook
      args: [gpu-hook, ldconfig]
  additionalGids: [0, 44]
"#;

fn plan() -> Plan {
    Plan {
        spec: json!({
            "mounts": [{"destination": "/proc"}, {"destination": "/usr/lib/libgpu.so"}],
            "linux": {"devices": [], "rootfsPropagation": "slave", "resources": {"devices": []}},
        }),
        process: Process { env: vec![b"PATH=/bin".to_vec()], gid: 9, ..Default::default() },
        propagation: vec![],
        seccomp: Profile::Unconfined,
        idmapped: vec![],
        warnings: vec![],
        user: ContainerUser::default(),
    }
}

fn node(path: &Path) -> io::Result<DeviceNode> {
    match path.to_str() {
        Some("/dev/gpu0") => {
            Ok(DeviceNode { kind: DeviceKind::Char, major: 195, minor: 0, mode: 0o20660, uid: 0, gid: 0 })
        }
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

fn wanted(names: &[&str]) -> Vec<Wanted> {
    let names = names.iter().map(|n| (*n).to_owned()).collect();
    requested(&ContainerConfig { cdi_devices: names, ..Default::default() }).unwrap()
}

/// Folders with files in them; removed at the end.
struct Folders(Vec<std::path::PathBuf>, std::path::PathBuf);

impl Folders {
    fn new(name: &str, files: &[(usize, &str, &str)]) -> Self {
        let root = std::env::temp_dir().join(format!("crisp-cdi-{}-{name}", std::process::id()));
        let folders: Vec<_> = (0..2).map(|i| root.join(i.to_string())).collect();
        folders.iter().for_each(|folder| fs::create_dir_all(folder).unwrap());
        for (folder, file, text) in files {
            fs::write(folders[*folder].join(file), text).unwrap();
        }
        Folders(folders, root)
    }
}

impl Drop for Folders {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.1);
    }
}

#[test]
fn a_device_changes_the_plan() {
    let folders = Folders::new("plan", &[(0, "gpu.yaml", GPU)]);
    let mut plan = plan();
    let devices = wanted(&["vendor.example/gpu=0", "vendor.example/gpu=all", "vendor.example/gpu=0"]);
    inject(&mut plan, &devices, &load(&folders.0), &node).unwrap();
    assert_eq!(plan.process.env, [b"PATH=/gpu/bin".to_vec(), b"GPU=1".to_vec()]);
    assert_eq!(plan.process.additional_gids, [44]);
    assert_eq!(
        plan.spec["linux"]["devices"],
        json!([
            {"path": "/dev/gpu0", "type": "c", "major": 195, "minor": 0, "fileMode": 0o660, "gid": 9},
            {"path": "/dev/gpuctl", "type": "c", "major": 195, "minor": 255, "fileMode": 438, "uid": 7, "gid": 9},
        ])
    );
    assert_eq!(plan.spec["linux"]["resources"]["devices"][1]["access"], "rw");
    let destinations: Vec<_> =
        plan.spec["mounts"].as_array().unwrap().iter().map(|m| &m["destination"]).collect();
    assert_eq!(destinations, ["/proc", "/tmp/gpu", "/usr/lib/libgpu.so"]);
    assert_eq!(plan.spec["mounts"][1]["type"], "tmpfs");
    assert_eq!(plan.spec["mounts"][2]["source"], "/usr/lib/libgpu.so");
    assert_eq!(plan.propagation, [("/usr/lib/libgpu.so".to_owned(), Propagation::Private)]);
    // Common edits once, though two devices were asked for.
    assert_eq!(plan.spec["hooks"]["createContainer"].as_array().unwrap().len(), 1);
}

#[test]
fn unknown_devices_are_named_with_the_files_that_are_broken() {
    let folders = Folders::new("unknown", &[(0, "gpu.yaml", GPU)]);
    let error =
        inject(&mut plan(), &wanted(&["vendor.example/gpu=9"]), &load(&folders.0), &node).unwrap_err();
    assert!(matches!(&error, SpecError::NotFound { field, object, .. }
        if field == "config.CDI_devices[0].name" && object.contains("vendor.example/gpu=9")));
    let folders =
        Folders::new("broken", &[(0, "x.json", "{"), (1, "ignored.txt", "{"), (1, ".hidden.json", "{")]);
    let registry = load(&folders.0);
    assert_eq!(registry.broken().len(), 1);
    let error = inject(&mut plan(), &wanted(&["vendor.example/gpu=9"]), &registry, &node).unwrap_err();
    assert!(error.to_string().contains("x.json"), "{error}");
    let none: [&str; 1] = ["/no/such/folder"];
    assert!(load(&none).broken().is_empty());
}

#[test]
fn a_node_that_is_not_there_is_named() {
    let text = r#"{"cdiVersion": "1.0.0", "kind": "v.e/c", "devices": [
        {"name": "a", "containerEdits": {"deviceNodes": [{"path": "/dev/gone"}]}}]}"#;
    let folders = Folders::new("gone", &[(0, "a.json", text)]);
    let error = inject(&mut plan(), &wanted(&["v.e/c=a"]), &load(&folders.0), &node).unwrap_err();
    assert!(error.to_string().contains("/dev/gone"), "{error}");
}

#[test]
fn later_folders_win_and_equals_conflict() {
    let file = |value: &str| {
        format!(
            r#"{{"cdiVersion": "0.5.0", "kind": "v.e/c", "devices": [
            {{"name": "a", "containerEdits": {{"env": ["FROM={value}"]}}}}]}}"#
        )
    };
    let folders = Folders::new("rank", &[(0, "a.json", &file("etc")), (1, "b.json", &file("run"))]);
    let mut plan_ = plan();
    inject(&mut plan_, &wanted(&["v.e/c=a"]), &load(&folders.0), &node).unwrap();
    assert!(plan_.process.env.contains(&b"FROM=run".to_vec()));
    let folders = Folders::new("conflict", &[(0, "a.json", &file("1")), (0, "b.json", &file("2"))]);
    let error = inject(&mut plan(), &wanted(&["v.e/c=a"]), &load(&folders.0), &node).unwrap_err();
    assert!(error.to_string().contains("a.json") && error.to_string().contains("b.json"), "{error}");
}

#[test]
fn names_are_checked() {
    let annotations = BTreeMap::from([
        ("cdi.k8s.io/plugin".to_owned(), "v.e/c=1, v.e/c=2".to_owned()),
        ("other".to_owned(), "nonsense".to_owned()),
    ]);
    let config = ContainerConfig { cdi_devices: vec!["v.e/c=2".into()], annotations, ..Default::default() };
    let names: Vec<_> = requested(&config).unwrap().into_iter().map(|w| w.name).collect();
    assert_eq!(names, ["v.e/c=2", "v.e/c=1"]);
    for bad in ["", "v.e/c", "v.e=c", "1v/c=a", "v/c=a/b", "v/c=-a", "v/c=", "v/c.d=a"] {
        let config = ContainerConfig { cdi_devices: vec![bad.into()], ..Default::default() };
        assert_eq!(requested(&config).unwrap_err().field(), "config.CDI_devices[0].name", "{bad}");
    }
}

#[test]
fn bad_files_say_why() {
    let with = |edits: &str| {
        format!(
            r#"{{"cdiVersion": "0.6.0", "kind": "v.e/c", "devices": [{{"name": "a", "containerEdits": {edits}}}]}}"#
        )
    };
    for edits in [
        r#"{"env": ["X"]}"#,
        r#"{"deviceNodes": [{"path": "/etc/x"}]}"#,
        r#"{"deviceNodes": [{"path": "/dev/x", "type": "q"}]}"#,
        r#"{"deviceNodes": [{"path": "/dev/x", "permissions": "x"}]}"#,
        r#"{"mounts": [{"hostPath": "", "containerPath": "/x"}]}"#,
        r#"{"mounts": [{"hostPath": "/x", "containerPath": "x"}]}"#,
        r#"{"hooks": [{"hookName": "whenever", "path": "/x"}]}"#,
        r#"{"hooks": [{"hookName": "poststop", "path": "x"}]}"#,
    ] {
        assert!(matches!(parse(&with(edits)), Err(FileError::Value(_))), "{edits}");
    }
    assert!(parse(&with("{}")).is_ok());
    for (text, version) in [
        (r#"{"cdiVersion": "0.2.0", "kind": "v.e/c"}"#, true),
        (r#"{"cdiVersion": "2.0.0", "kind": "v.e/c"}"#, true),
        (r#"{"cdiVersion": "1.1.0", "kind": "v"}"#, false),
    ] {
        assert_eq!(matches!(parse(text), Err(FileError::Version(_))), version);
        assert!(parse(text).is_err());
    }
}

proptest! {
    #[test]
    fn any_text_is_survived(text in "\\PC{0,300}") {
        let _ = parse(&text);
    }
}
