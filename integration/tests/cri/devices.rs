//! Devices: by path and by name (CDI).

use std::fs;

use anyhow::{Result, ensure};
use crisp_integration::{
    bed::Bed,
    client::{script, security},
};
use crisp_proto::v1;

use super::place::{IMAGE, Place};

/// A device that no container has by itself and that can be opened without effect.
const DEVICE: &str = "/dev/loop-control";

fn device(inside: &str, permissions: &str) -> v1::Device {
    v1::Device { host_path: DEVICE.into(), container_path: inside.into(), permissions: permissions.into() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_are_there_and_allow_what_was_asked() -> Result<()> {
    let place = Place::new("devices").await?;
    let open = "test -c /dev/mine && echo node; (: </dev/mine) && echo read; (: >>/dev/mine) 2>/dev/null && echo write";
    for (name, permissions, wanted) in
        [("all", "rwm", "node\nread\nwrite\n"), ("readable", "r", "node\nread\n")]
    {
        let mut config = script(name, IMAGE, &format!("{open}; true"));
        config.devices = vec![device("/dev/mine", permissions)];
        let (code, text) = place.run(&config).await?;
        ensure!((code, text.as_str()) == (0, wanted), "{name}: {code} {text:?}");
    }
    // Without asking, not even by a node of one's own.
    let mut config = script(
        "none",
        IMAGE,
        "mknod /mine c 10 237 && (: </mine) 2>/dev/null && echo opened; test -e /dev/loop-control || echo hidden",
    );
    security(&mut config).capabilities =
        Some(v1::Capability { add_capabilities: vec!["MKNOD".into()], ..Default::default() });
    ensure!(place.run(&config).await?.1 == "hidden\n");
    let mut config = script("absent", IMAGE, "true");
    config.devices = vec![v1::Device { host_path: "/dev/no-such-device".into(), ..device("/dev/mine", "r") }];
    let refused = place.create(&config).await;
    ensure!(refused.as_ref().is_err_and(|e| format!("{e:#}").contains("/dev/no-such-device")), "{refused:?}");

    let mut privileged = script("folder", IMAGE, "ls /dev/pack");
    privileged.devices = vec![v1::Device { host_path: "/dev/net".into(), ..device("/dev/pack", "rwm") }];
    ensure!(place.run(&privileged).await?.1 == "tun\n");
    Ok(())
}

/// /etc as it is, writable in the bed only.
fn own_etc(bed: &Bed) -> Result<()> {
    let (upper, work) = (bed.folder.join("etc"), bed.folder.join("etc-work"));
    fs::create_dir_all(&upper)?;
    fs::create_dir_all(&work)?;
    let options = format!("lowerdir=/etc,upperdir={},workdir={}", upper.display(), work.display());
    bed.run("mount", &["-t", "overlay", "overlay", "-o", &options, "/etc"])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_by_name_bring_nodes_variables_and_mounts() -> Result<()> {
    let place = Place::new("cdi").await?;
    own_etc(&place.bed)?;
    let shared = place.bed.folder.join("cdi-files");
    fs::create_dir(&shared)?;
    fs::write(shared.join("library"), "of the vendor\n")?;
    let file = serde_json::json!({
        "cdiVersion": "0.6.0",
        "kind": "vendor.example/loop",
        "containerEdits": {"env": ["VENDOR=yes"]},
        "devices": [{"name": "one", "containerEdits": {
            "env": ["DEVICE=one"],
            "deviceNodes": [{"path": "/dev/vendor0", "hostPath": DEVICE, "permissions": "rw"}],
            "mounts": [{"hostPath": shared, "containerPath": "/usr/lib/vendor", "options": ["ro", "rbind"]}],
        }}],
    });
    let made = format!("mkdir -p /etc/cdi && cat > /etc/cdi/vendor.json <<'END'\n{file}\nEND");
    place.bed.run("sh", &["-c", &made])?;

    let text = "echo $VENDOR $DEVICE; (: </dev/vendor0) && echo opened; cat /usr/lib/vendor/library";
    for (name, by_annotation) in [("field", false), ("annotation", true)] {
        let mut config = script(name, IMAGE, text);
        if by_annotation {
            config.annotations.insert("cdi.k8s.io/plugin".into(), "vendor.example/loop=one".into());
        } else {
            config.cdi_devices = vec![v1::CdiDevice { name: "vendor.example/loop=one".into() }];
        }
        let (code, text) = place.run(&config).await?;
        ensure!((code, text.as_str()) == (0, "yes one\nopened\nof the vendor\n"), "{name}: {code} {text:?}");
    }
    let mut config = script("unknown", IMAGE, "true");
    config.cdi_devices = vec![v1::CdiDevice { name: "vendor.example/loop=two".into() }];
    let refused = place.create(&config).await;
    ensure!(
        refused.as_ref().is_err_and(|e| format!("{e:#}").contains("vendor.example/loop=two")),
        "{refused:?}"
    );
    Ok(())
}
