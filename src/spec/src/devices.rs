//! Devices and the rules that allow their use.
//!
//! libcontainer makes the six nodes that every container has; the spec lists what comes on top.

use std::path::Path;

use serde_json::{Value, json};

use crate::{
    error::SpecError,
    input::{DeviceKind, DeviceNode, Input},
};

/// Nodes and rules.
#[derive(Debug, Default)]
pub(crate) struct Devices {
    /// `linux.devices`.
    pub nodes: Vec<Value>,
    /// `linux.resources.devices`, in the order in which they apply.
    pub rules: Vec<Value>,
}

/// What every container may use: mknod of anything, and the nodes that libcontainer makes, the terminals among them.
/// (kind, major, minor, access); no minor: any.
const ALLOWED: [(&str, Option<i64>, Option<i64>, &str); 11] = [
    ("c", None, None, "m"),
    ("b", None, None, "m"),
    ("c", Some(1), Some(3), "rwm"),
    ("c", Some(1), Some(5), "rwm"),
    ("c", Some(1), Some(7), "rwm"),
    ("c", Some(1), Some(8), "rwm"),
    ("c", Some(1), Some(9), "rwm"),
    ("c", Some(5), Some(0), "rwm"),
    ("c", Some(5), Some(1), "rwm"),
    ("c", Some(5), Some(2), "rwm"),
    ("c", Some(136), None, "rwm"),
];

fn rule(kind: &str, major: Option<i64>, minor: Option<i64>, access: &str) -> Value {
    let mut rule = json!({"allow": true, "type": kind, "access": access});
    if let Some(major) = major {
        rule["major"] = json!(major);
    }
    if let Some(minor) = minor {
        rule["minor"] = json!(minor);
    }
    rule
}

fn letter(kind: DeviceKind) -> &'static str {
    match kind {
        DeviceKind::Char => "c",
        DeviceKind::Block => "b",
        DeviceKind::Fifo => "p",
    }
}

fn node(path: &str, node: &DeviceNode) -> Value {
    json!({
        "path": path,
        "type": letter(node.kind),
        "major": node.major,
        "minor": node.minor,
        "fileMode": node.mode & 0o7777,
        "uid": node.uid,
        "gid": node.gid,
    })
}

/// Nodes that libcontainer makes by itself, or that lead into another terminal: never taken from the host.
fn made_elsewhere(path: &Path) -> bool {
    const MADE: [&str; 8] = [
        "/dev/null",
        "/dev/zero",
        "/dev/full",
        "/dev/tty",
        "/dev/urandom",
        "/dev/random",
        "/dev/ptmx",
        "/dev/console",
    ];
    MADE.iter().any(|made| path == Path::new(made))
        || ["/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd"].iter().any(|dir| path.starts_with(dir))
}

/// The container's devices. Privileged ones may use everything and see every node of the host.
pub(crate) fn devices(input: &Input<'_>) -> Result<Devices, SpecError> {
    let mut found = Devices::default();
    let privileged = input.container.security.privileged;
    if privileged {
        found.rules.push(json!({"allow": true, "access": "rwm"}));
        if !input.host.defaults.privileged_without_host_devices {
            let host = input.host.devices.iter().filter(|(path, _)| !made_elsewhere(path));
            found.nodes.extend(host.filter_map(|(path, facts)| Some(node(path.to_str()?, facts))));
        }
    } else {
        found.rules.push(json!({"allow": false, "access": "rwm"}));
        let allowed = ALLOWED.iter().map(|(kind, major, minor, access)| rule(kind, *major, *minor, access));
        found.rules.extend(allowed);
    }
    for i in 0..input.container.devices.len() {
        for (path, facts, access) in requested(input, i)? {
            // A later request for the same path replaces the earlier one, as a later mount covers an earlier one.
            found.nodes.retain(|node| node["path"] != json!(path));
            found.nodes.push(node(&path, &facts));
            if !privileged && facts.kind != DeviceKind::Fifo {
                found.rules.push(rule(letter(facts.kind), Some(facts.major), Some(facts.minor), &access));
            }
        }
    }
    Ok(found)
}

/// Device `i` of the request: path inside, node, access. A folder stands for all nodes below it.
fn requested(input: &Input<'_>, i: usize) -> Result<Vec<(String, DeviceNode, String)>, SpecError> {
    let device = &input.container.devices[i];
    let field = |name: &str| format!("config.devices[{i}].{name}");
    let access = if device.permissions.is_empty() { "rwm" } else { device.permissions.as_str() };
    if !access.chars().all(|c| "rwm".contains(c)) {
        let reason = format!("{access:?} is not made of 'r', 'w' and 'm'");
        return Err(SpecError::invalid(field("permissions"), reason));
    }
    let inside = match device.container_path.as_str() {
        "" => device.host_path.to_str().unwrap_or_default(),
        path => path,
    };
    let inside = crate::mounts::clean(inside).filter(|path| path.starts_with("/dev/")).ok_or_else(|| {
        SpecError::invalid(field("container_path"), format!("{inside:?} is not a path below /dev"))
    })?;
    let nodes = input.devices.iter().filter_map(|(path, facts)| {
        let rest = path.strip_prefix(&device.host_path).ok()?.to_str()?;
        let path = if rest.is_empty() { inside.clone() } else { format!("{inside}/{rest}") };
        Some((path, *facts, access.to_owned()))
    });
    let nodes: Vec<_> = nodes.collect();
    if nodes.is_empty() {
        let object = format!("device {}", device.host_path.display());
        return Err(SpecError::not_found(field("host_path"), object, "the host has no device node there"));
    }
    Ok(nodes)
}
