//! What a device changes in a plan.

use std::{io, path::Path};

use crisp_model::container::Propagation;
use serde_json::{Value, json};

use super::file::{Edits, Hook, Mount, Node};
use crate::{
    error::SpecError,
    input::{DeviceKind, DeviceNode},
    mounts::clean,
    plan::Plan,
};

/// A list of the spec, made if it is not there.
fn list<'a>(spec: &'a mut Value, path: &[&str]) -> &'a mut Vec<Value> {
    let mut at = spec;
    for key in path {
        at = &mut at[*key];
    }
    if !at.is_array() {
        *at = json!([]);
    }
    at.as_array_mut().expect("it was made an array just now")
}

pub(super) fn apply(
    plan: &mut Plan,
    edits: &Edits,
    field: &str,
    node: &dyn Fn(&Path) -> io::Result<DeviceNode>,
) -> Result<(), SpecError> {
    for entry in &edits.env {
        variable(&mut plan.process.env, entry);
    }
    for wanted in &edits.device_nodes {
        device(plan, wanted, field, node)?;
    }
    for device in &edits.net_devices {
        plan.spec["linux"]["netDevices"][&device.host_interface_name] = json!({"name": device.name});
    }
    for wanted in &edits.mounts {
        mount(plan, wanted);
    }
    for wanted in &edits.hooks {
        list(&mut plan.spec, &["hooks", &wanted.hook_name]).push(hook(wanted));
    }
    for gid in edits.additional_gids.iter().filter(|gid| **gid != 0) {
        if !plan.process.additional_gids.contains(gid) {
            plan.process.additional_gids.push(*gid);
            plan.user.supplemental.push(*gid);
        }
    }
    if let Some(rdt) = &edits.intel_rdt {
        plan.spec["linux"]["intelRdt"] = rdt.clone();
    }
    Ok(())
}

fn variable(env: &mut Vec<Vec<u8>>, entry: &str) {
    let name = entry.split_once('=').map_or(entry, |(name, _)| name).as_bytes();
    let same = |kept: &&mut Vec<u8>| kept.strip_prefix(name).is_some_and(|rest| rest.first() == Some(&b'='));
    match env.iter_mut().find(same) {
        Some(kept) => *kept = entry.into(),
        None => env.push(entry.into()),
    }
}

fn device(
    plan: &mut Plan,
    wanted: &Node,
    field: &str,
    node: &dyn Fn(&Path) -> io::Result<DeviceNode>,
) -> Result<(), SpecError> {
    let path = clean(&wanted.path).unwrap_or_default();
    let source = if wanted.host_path.is_empty() { &path } else { &wanted.host_path };
    let (kind, major, minor, mode) = match (wanted.kind.as_str(), wanted.major, wanted.minor) {
        ("p", ..) => ("p", 0, 0, None),
        (kind @ ("b" | "c" | "u"), Some(major), Some(minor)) => (kind, major, minor, None),
        _ => {
            let facts = node(Path::new(source)).map_err(|error| {
                SpecError::not_found(
                    field,
                    format!("device node {source} of a CDI device"),
                    error.to_string(),
                )
            })?;
            let kind = match facts.kind {
                DeviceKind::Char => "c",
                DeviceKind::Block => "b",
                DeviceKind::Fifo => "p",
            };
            (kind, wanted.major.unwrap_or(facts.major), wanted.minor.unwrap_or(facts.minor), Some(facts.mode))
        }
    };
    // A user who is not root could not open a node of root's.
    let own = |id: u32| (id > 0).then_some(id);
    let mut entry = json!({"path": path, "type": kind, "major": major, "minor": minor});
    for (key, value) in [
        ("fileMode", wanted.file_mode.or(mode).map(|mode| mode & 0o7777)),
        ("uid", wanted.uid.or(own(plan.process.uid))),
        ("gid", wanted.gid.or(own(plan.process.gid))),
    ] {
        if let Some(value) = value {
            entry[key] = json!(value);
        }
    }
    let nodes = list(&mut plan.spec, &["linux", "devices"]);
    nodes.retain(|kept| kept["path"] != entry["path"]);
    nodes.push(entry);
    if kind != "p" {
        let access = if wanted.permissions.is_empty() { "rwm" } else { &wanted.permissions };
        // "u" is an unbuffered character device; the rules do not tell.
        let kind = if kind == "u" { "c" } else { kind };
        let rule = json!({"allow": true, "type": kind, "major": major, "minor": minor, "access": access});
        list(&mut plan.spec, &["linux", "resources", "devices"]).push(rule);
    }
    Ok(())
}

fn mount(plan: &mut Plan, wanted: &Mount) {
    let destination = clean(&wanted.container_path).unwrap_or_default();
    let mut options = wanted.options.clone();
    let bind = options.iter().any(|o| o == "bind" || o == "rbind")
        || matches!(wanted.kind.as_str(), "" | "bind" | "none");
    if bind && !options.iter().any(|o| o == "bind" || o == "rbind") {
        options.insert(0, "rbind".into());
    }
    let kind = if bind { "bind" } else { &wanted.kind };
    let mounts = list(&mut plan.spec, &["mounts"]);
    mounts.retain(|kept| kept["destination"] != json!(destination));
    mounts.push(
        json!({"destination": destination, "type": kind, "source": wanted.host_path, "options": options}),
    );
    plan.propagation.retain(|(path, _)| *path != destination);
    if bind && plan.spec["linux"]["rootfsPropagation"] != json!("private") {
        plan.propagation.push((destination, Propagation::Private));
    }
}

fn hook(wanted: &Hook) -> Value {
    let mut hook = json!({"path": wanted.path, "args": wanted.args, "env": wanted.env});
    if let Some(timeout) = wanted.timeout {
        hook["timeout"] = json!(timeout);
    }
    hook
}

/// Parents before children, in the mounts and in the list of their propagation.
pub(super) fn sort_mounts(plan: &mut Plan) {
    let depth = |path: &str| path.split('/').filter(|part| !part.is_empty()).count();
    list(&mut plan.spec, &["mounts"]).sort_by_key(|m| m["destination"].as_str().map_or(0, depth));
    plan.propagation.sort_by_key(|(path, _)| depth(path));
}
