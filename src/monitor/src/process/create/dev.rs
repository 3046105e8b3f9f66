//! A volume at `/dev`, as drivers that watch the host's devices ask for.
//!
//! libcontainer makes links and nodes in whatever is mounted there, and would replace the host's own `/dev/ptmx`. So it gets an
//! ordinary `/dev` with the volume (and those below it) set aside in it, and once it is done, the last leg puts them in place.

use std::{os::fd::AsFd, path::Path};

use crisp_host::mount::{attach, clone_tree};
use serde_json::{Value, json};

use crate::process::{Failure, host};

/// A mount that was set aside, and where it belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Aside {
    at: String,
    destination: String,
}

fn destination(mount: &Value) -> &str {
    mount.get("destination").and_then(Value::as_str).unwrap_or_default().trim_end_matches('/')
}

/// Sets a volume at `/dev` aside, and the mounts below it; nothing if `/dev` is as usual.
pub(super) fn set_aside(spec: &mut Value) -> Vec<Aside> {
    let mut aside = Vec::new();
    let Some(mounts) = spec.pointer_mut("/mounts").and_then(Value::as_array_mut) else { return aside };
    let volume =
        |m: &Value| destination(m) == "/dev" && m.get("type").and_then(Value::as_str) == Some("bind");
    let Some(first) = mounts.iter().position(volume) else { return aside };
    for mount in mounts.iter_mut() {
        let destination = destination(mount).to_owned();
        if destination == "/dev" || destination.starts_with("/dev/") {
            let at = format!("/dev/.{}", aside.len());
            mount["destination"] = json!(at);
            aside.push(Aside { at, destination });
        }
    }
    let usual = json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                       "options": ["nosuid", "strictatime", "mode=755", "size=64k"]});
    mounts.insert(first, usual);
    // Nobody would see them.
    if let Some(linux) = spec.pointer_mut("/linux").and_then(Value::as_object_mut) {
        linux.remove("devices");
    }
    aside
}

/// Puts the volumes in place, in the container's mount namespace and root; the first covers the places of all. `propagate` sets
/// the propagation of one, before others are mounted in it: those must not appear on the host.
pub(super) fn put_back(
    aside: &[Aside],
    propagate: impl Fn(&str) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let failed = |a: &Aside| host(format!("mount the volume at {}", a.destination));
    let trees: Vec<_> = aside
        .iter()
        .map(|a| clone_tree(Path::new(&a.at), true).map_err(failed(a)))
        .collect::<Result<_, _>>()?;
    for (tree, a) in trees.iter().zip(aside) {
        attach(tree.as_fd(), Path::new(&a.destination)).map_err(failed(a))?;
        propagate(&a.destination)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usual_dev_is_left_alone() {
        let mut spec = json!({"mounts": [{"destination": "/dev", "type": "tmpfs"}, {"destination": "/dev/shm", "type": "bind"}],
                              "linux": {"devices": [1]}});
        let before = spec.clone();
        assert_eq!(set_aside(&mut spec), []);
        assert_eq!(spec, before);
    }

    #[test]
    fn a_volume_at_dev_and_what_is_below_it_are_set_aside() {
        let mut spec = json!({"mounts": [{"destination": "/proc"}, {"destination": "/dev/", "type": "bind"},
                                         {"destination": "/device", "type": "bind"}, {"destination": "/dev/x", "type": "bind"}],
                              "linux": {"devices": [1]}});
        let aside = set_aside(&mut spec);
        let to: Vec<_> = aside.iter().map(|a| (a.at.as_str(), a.destination.as_str())).collect();
        assert_eq!(to, [("/dev/.0", "/dev"), ("/dev/.1", "/dev/x")]);
        let mounts: Vec<_> = spec["mounts"].as_array().unwrap().iter().map(destination).collect();
        assert_eq!(mounts, ["/proc", "/dev", "/dev/.0", "/device", "/dev/.1"]);
        assert!(spec["linux"].get("devices").is_none());
    }
}
