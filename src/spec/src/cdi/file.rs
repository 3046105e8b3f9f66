//! The contents of a CDI file.

use std::collections::BTreeSet;

use serde::Deserialize;

/// Longest file that is read, bytes. Files for a node full of accelerators have some hundred KiB.
pub(super) const MAX_FILE: u64 = 4 << 20;

/// Why a text is not a CDI file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// Neither JSON nor YAML of a CDI file.
    #[error("{0}")]
    Syntax(String),
    /// Written for a version that this program does not know.
    #[error("cdiVersion {0:?} is not known: 0.3 to 1.x are")]
    Version(String),
    /// A value that cannot be.
    #[error("{0}")]
    Value(String),
}

/// A CDI file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    cdi_version: String,
    /// `vendor.example/class`
    pub kind: String,
    #[serde(default)]
    pub devices: Vec<Device>,
    #[serde(default)]
    pub container_edits: Edits,
}

/// A device of a file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Device {
    pub name: String,
    #[serde(default)]
    pub container_edits: Edits,
}

/// What a device changes in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Edits {
    pub env: Vec<String>,
    pub device_nodes: Vec<Node>,
    pub net_devices: Vec<NetDevice>,
    pub mounts: Vec<Mount>,
    pub hooks: Vec<Hook>,
    pub additional_gids: Vec<u32>,
    pub intel_rdt: Option<serde_json::Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Node {
    pub path: String,
    #[serde(default)]
    pub host_path: String,
    #[serde(default, rename = "type")]
    pub kind: String,
    pub major: Option<i64>,
    pub minor: Option<i64>,
    pub file_mode: Option<u32>,
    #[serde(default)]
    pub permissions: String,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NetDevice {
    pub host_interface_name: String,
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Mount {
    pub host_path: String,
    pub container_path: String,
    #[serde(default)]
    pub options: Vec<String>,
    #[serde(default, rename = "type")]
    pub kind: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Hook {
    pub hook_name: String,
    pub path: String,
    #[serde(default)]
    pub args: Vec<String>,
    #[serde(default)]
    pub env: Vec<String>,
    pub timeout: Option<i64>,
}

/// Where in a container's life a hook runs (OCI names).
const HOOKS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// Reads and checks a CDI file; JSON is YAML too.
pub fn parse(text: &str) -> Result<CheckedSpec, FileError> {
    let json = text.trim_start().starts_with('{');
    let spec: Spec = if json {
        serde_json::from_str(text).map_err(|error| FileError::Syntax(error.to_string()))?
    } else {
        serde_saphyr::from_str(text).map_err(|error| FileError::Syntax(error.to_string()))?
    };
    check(&spec)?;
    Ok(CheckedSpec(spec))
}

/// A CDI file in which every value can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedSpec(pub(super) Spec);

fn check(spec: &Spec) -> Result<(), FileError> {
    let mut version = spec.cdi_version.split('.').map(|part| part.parse::<u32>().ok());
    match (version.next().flatten(), version.next().flatten()) {
        (Some(0), Some(3..)) | (Some(1), Some(_)) => {}
        _ => return Err(FileError::Version(spec.cdi_version.clone())),
    }
    if !is_kind(&spec.kind) {
        return Err(FileError::Value(format!("kind {:?} is not vendor/class", spec.kind)));
    }
    let mut names = BTreeSet::new();
    for device in &spec.devices {
        if !is_device(&device.name) {
            return Err(FileError::Value(format!("{:?} cannot be the name of a device", device.name)));
        }
        if !names.insert(&device.name) {
            return Err(FileError::Value(format!("device {:?} is there twice", device.name)));
        }
        check_edits(&device.container_edits)
            .map_err(|reason| FileError::Value(format!("device {:?}: {reason}", device.name)))?;
    }
    check_edits(&spec.container_edits).map_err(FileError::Value)
}

fn check_edits(edits: &Edits) -> Result<(), String> {
    if let Some(bad) = edits.env.iter().find(|entry| !is_variable(entry)) {
        return Err(format!("env {bad:?} is not NAME=value"));
    }
    for node in &edits.device_nodes {
        if !["", "b", "c", "u", "p"].contains(&node.kind.as_str()) {
            return Err(format!("device node {}: type {:?} is none of b, c, u and p", node.path, node.kind));
        }
        if !node.permissions.chars().all(|c| "rwm".contains(c)) {
            return Err(format!("device node {}: permissions {:?}", node.path, node.permissions));
        }
        if !crate::mounts::clean(&node.path).is_some_and(|path| path.starts_with("/dev/")) {
            return Err(format!("device node {:?} is not below /dev", node.path));
        }
    }
    for mount in &edits.mounts {
        if crate::mounts::clean(&mount.container_path).is_none_or(|path| path == "/")
            || mount.host_path.is_empty()
        {
            return Err(format!("mount of {:?} to {:?}", mount.host_path, mount.container_path));
        }
    }
    for hook in &edits.hooks {
        if !HOOKS.contains(&hook.hook_name.as_str()) {
            return Err(format!("hook {:?} is none of {}", hook.hook_name, HOOKS.join(", ")));
        }
        if !hook.path.starts_with('/') || hook.env.iter().any(|entry| !is_variable(entry)) {
            return Err(format!(
                "hook {:?}: the path is not absolute or a variable is not NAME=value",
                hook.path
            ));
        }
    }
    Ok(())
}

fn is_variable(entry: &str) -> bool {
    entry.split_once('=').is_some_and(|(name, _)| !name.is_empty()) && !entry.contains('\0')
}

/// `vendor.example/class`
pub(super) fn is_kind(text: &str) -> bool {
    text.split_once('/')
        .is_some_and(|(vendor, class)| is_word(vendor, "-_.", true) && is_word(class, "-_", true))
}

/// The part after `=`.
pub(super) fn is_device(text: &str) -> bool {
    is_word(text, "-_.:", false)
}

/// Letters, digits and `marks`; the ends are letters or digits, the first a letter if `letter`.
fn is_word(text: &str, marks: &str, letter: bool) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || marks.contains(c);
    let first = |c: char| if letter { c.is_ascii_alphabetic() } else { c.is_ascii_alphanumeric() };
    text.len() <= 256
        && text.starts_with(first)
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(inner)
}
