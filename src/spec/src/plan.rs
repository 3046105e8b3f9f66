//! The whole container, put together.

use std::path::PathBuf;

use crisp_model::{
    container::Propagation,
    process::Process,
    security::{IdMapping, Profile},
};
use serde_json::{Value, json};

use crate::{
    annotations::annotations,
    capabilities::capabilities,
    command::{command, working_dir},
    devices::devices,
    environment::environment,
    error::SpecError,
    input::Input,
    labels,
    mounts::mounts,
    namespaces::namespaces,
    resources::resources,
    user::{ContainerUser, user},
};

/// How to make a container.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// OCI runtime spec with a bare process, for libcontainer.
    pub spec: Value,
    /// What the process becomes on the last leg. Kept in the container's record: execs are made from it.
    pub process: Process,
    /// Mounts whose propagation differs from the spec's `rootfsPropagation`: path inside, kind. Parents come first.
    pub propagation: Vec<(String, Propagation)>,
    /// Which seccomp profile to load; [`crate::seccomp::filter`] makes a filter of it.
    pub seccomp: Profile,
    /// Volumes to clone with an id mapping before the container is created.
    pub idmapped: Vec<Idmapped>,
    /// What was asked for and cannot be had here, for the log and for events.
    pub warnings: Vec<String>,
    /// Who it runs as, for `ContainerStatus.user`.
    pub user: ContainerUser,
}

/// A volume seen through an id mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idmapped {
    /// On the host.
    pub source: PathBuf,
    /// Where to mount the mapped clone: the bind mount's source in the spec.
    pub staging: PathBuf,
    /// User ids.
    pub uids: Vec<IdMapping>,
    /// Group ids.
    pub gids: Vec<IdMapping>,
}

/// Makes the plan of a container. Pure: the same input gives the same plan.
pub fn container(input: &Input<'_>) -> Result<Plan, SpecError> {
    let security = &input.container.security;
    if security.privileged && !input.sandbox.security.privileged {
        let reason = "the pod's sandbox is not privileged: run it with privileged set too";
        return Err(SpecError::invalid("config.linux.security_context.privileged", reason));
    }
    let mut warnings = Vec::new();
    let user = user(security, input.image, input.accounts)?;
    let (namespaces, sharing) = namespaces(input)?;
    let mounts = mounts(input, sharing)?;
    let devices = devices(input)?;
    let limits = resources(&input.container.resources, input.host, &mut warnings)?;
    let host_name = input.sandbox_facts.host_name;
    let process = Process {
        args: command(input.container, input.image)?,
        env: environment(input.container, input.image, host_name, user.home.as_deref(), &mut warnings)?,
        cwd: working_dir(input.container, input.image)?,
        uid: user.uid,
        gid: user.gid,
        additional_gids: user.supplemental.clone(),
        umask: None,
        capabilities: capabilities(security, input.host, &mut warnings)?,
        no_new_privs: security.no_new_privs,
        rlimits: input.host.defaults.rlimits.clone(),
        oom_score_adj: Some(limits.oom_score_adj),
        apparmor_profile: labels::apparmor(input)?,
        selinux_label: labels::selinux(input),
        terminal: input.container.tty.then_some((0, 0)),
    };

    let mut oci_resources = limits.oci;
    oci_resources.insert("devices".into(), Value::Array(devices.rules));
    let mut linux = json!({
        "cgroupsPath": input.cgroup.oci,
        "namespaces": namespaces,
        "resources": oci_resources,
        "rootfsPropagation": mounts.rootfs_propagation,
        "devices": devices.nodes,
    });
    if !security.privileged {
        linux["maskedPaths"] = json!(paths("masked_paths", &security.masked_paths)?);
        linux["readonlyPaths"] = json!(paths("readonly_paths", &security.readonly_paths)?);
    }
    // On a host without SELinux a label would break the masked folders.
    if let Some(label) = input.sandbox_facts.selinux_mount.filter(|_| input.host.selinux) {
        linux["mountLabel"] = json!(label);
    }
    let spec = json!({
        "ociVersion": "1.2.0",
        "root": {"path": input.rootfs_mountpoint, "readonly": security.readonly_rootfs},
        "process": bare(),
        "mounts": mounts.list,
        "annotations": annotations(input),
        "linux": linux,
    });
    Ok(Plan {
        spec,
        process,
        propagation: mounts.propagation,
        seccomp: labels::seccomp(input)?,
        idmapped: mounts.idmapped,
        warnings,
        user,
    })
}

/// What libcontainer gets to see of the process: nothing that it could get wrong. Without `HOME` it would look the
/// user up inside the container; a terminal is the monitor's to make.
fn bare() -> Value {
    json!({
        "user": {"uid": 0, "gid": 0},
        "args": ["/"],
        "env": ["PATH=/", "HOME=/"],
        "cwd": "/",
    })
}

fn paths(name: &str, list: &[String]) -> Result<Vec<String>, SpecError> {
    let check = |(i, path): (usize, &String)| match crate::mounts::clean(path) {
        Some(path) => Ok(path),
        None => {
            let field = format!("config.linux.security_context.{name}[{i}]");
            Err(SpecError::invalid(field, format!("{path:?} is not an absolute path")))
        }
    };
    list.iter().enumerate().map(check).collect()
}
