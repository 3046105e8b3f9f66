//! Every file and folder that crisp makes has the tightest mode that works, and root as its owner.
//!
//! A mode that is looser than the table's fails, and so does something that the table does not know: who adds a file thinks about who
//! may read it.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

use anyhow::{Context, Result, ensure};
use crisp_integration::client::script;

use super::place::{IMAGE, Place};

/// What may be there, and its mode.
const EXPECTED: &[(&str, u32)] = &[
    // Layers and writable layers lie below these: set-user-id programs of images, which no user of the host may run.
    ("lib/", 0o711),
    ("lib/cni/", 0o700),
    ("lib/containers/", 0o700),
    ("lib/images/", 0o700),
    ("lib/pods/", 0o700),
    // The kubelet's own tools read logs by group.
    ("log of a container", 0o640),
    ("run/", 0o711),
    ("run/admin.sock=", 0o600),
    ("run/crisp.sock=", 0o600),
    ("run/events/", 0o700),
    ("run/lock", 0o600),
    ("run/netns/", 0o700),
    ("run/network/", 0o700),
    // The root of a pod's user namespace, who is nobody on the host, mounts what lies below.
    ("run/pods/", 0o711),
    ("run/pods/ID/", 0o711),
    ("run/pods/ID/ID.bpf", 0o644),
    ("run/pods/ID/bundles/", 0o755),
    ("run/pods/ID/cgroups/", 0o755),
    ("run/pods/ID/exits/", 0o755),
    ("run/pods/ID/exits/ID.json", 0o644),
    // Containers' users read them, by a bind mount.
    ("run/pods/ID/hostname", 0o644),
    ("run/pods/ID/resolv.conf", 0o644),
    ("run/pods/ID/libcontainer/", 0o755),
    ("run/pods/ID/libcontainer/ID/", 0o755),
    ("run/pods/ID/libcontainer/ID/notify.sock=", 0o755),
    ("run/pods/ID/libcontainer/ID/state.json", 0o644),
    ("run/pods/ID/libcontainer/ID/youki_config.json", 0o644),
    ("run/pods/ID/monitor.log", 0o600),
    ("run/pods/ID/monitor.sock=", 0o600),
    ("run/pods/ID/rootfs/", 0o755),
    ("run/pods/ID/rootfs/ID/", 0o755),
    ("run/pods/ID/shm/", 0o755),
    ("run/pods/ID/volumes/", 0o755),
];

/// Names that differ from run to run.
fn general(path: &Path) -> String {
    let part = |part: &str| {
        let (stem, end) = part.split_once('.').map_or((part, String::new()), |(a, b)| (a, format!(".{b}")));
        let hex = |text: &str| text.len() >= 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        if hex(stem) {
            format!("ID{end}")
        } else if !stem.is_empty() && stem.bytes().all(|b| b.is_ascii_digit() || b == b'-') {
            format!("N{end}")
        } else {
            part.to_owned()
        }
    };
    path.to_string_lossy().split('/').map(part).collect::<Vec<_>>().join("/")
}

fn walk(root: &Path, at: &Path, found: &mut BTreeMap<String, (u32, u32, u32)>) -> Result<()> {
    let meta = fs::symlink_metadata(root.join(at)).with_context(|| at.display().to_string())?;
    let name = general(at);
    let kind = if meta.is_dir() {
        "/"
    } else if meta.file_type().is_socket() {
        "="
    } else {
        ""
    };
    found.insert(format!("{name}{kind}"), (meta.mode() & 0o7777, meta.uid(), meta.gid()));
    // Below a folder that only root can enter nothing is reachable, whatever its mode.
    if meta.is_dir() && meta.mode() & 0o077 != 0 {
        for entry in fs::read_dir(root.join(at))? {
            // What has gone in the meantime has no mode.
            let below = at.join(entry?.file_name());
            if root.join(&below).symlink_metadata().is_ok() {
                walk(root, &below, found)?;
            }
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_is_made_has_the_tightest_mode() -> Result<()> {
    let place = Place::new("modes").await?;
    place.cri.pull("docker.io/library/declares:latest").await?;
    let mut config = script("modes", "docker.io/library/declares:latest", "echo said; sleep 600");
    config.stdin = true;
    let id = place.launch(&config).await?;
    place.lines_when("modes.log", |lines| !lines.is_empty()).await?;
    place.cri.exec(&id, &["true"], 0).await?;
    place.run(&script("ended", IMAGE, "true")).await?;
    let mut found = BTreeMap::new();
    for top in ["run", "lib"] {
        walk(&place.bed.folder, Path::new(top), &mut found)?;
    }
    found.insert("log of a container".into(), {
        let meta = fs::metadata(place.log_path("modes.log"))?;
        (meta.mode() & 0o7777, meta.uid(), meta.gid())
    });
    let expected: BTreeMap<&str, u32> = EXPECTED.iter().copied().collect();
    let mut wrong = Vec::new();
    for (name, (mode, uid, gid)) in &found {
        match expected.get(name.as_str()) {
            None => wrong.push(format!("(\"{name}\", 0o{mode:o}), is not in the table")),
            Some(wanted) if mode & !wanted != 0 => {
                wrong.push(format!("{name} has mode {mode:o} instead of {wanted:o}"))
            }
            Some(_) => {}
        }
        if (*uid, *gid) != (0, 0) {
            wrong.push(format!("{name} belongs to {uid}:{gid}"));
        }
    }
    ensure!(wrong.is_empty(), "{} things:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}
