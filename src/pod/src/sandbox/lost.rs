//! A pod whose monitor is gone: what it wrote down, and the end of what it left.

use std::{path::Path, time::Duration};

use crisp_model::{ContainerId, ExitStatus};

use crate::{context::Context, error::PodError, owner::exits_dir};

/// How long killed processes may take to leave their cgroup.
const KILL: Duration = Duration::from_secs(5);

/// The exits that the monitor recorded.
pub(crate) fn exits<'a>(
    pod_dir: &Path,
    containers: impl Iterator<Item = &'a ContainerId>,
) -> Vec<(ContainerId, ExitStatus)> {
    let dir = exits_dir(pod_dir);
    let read = |id: &ContainerId| {
        let bytes = std::fs::read(dir.join(format!("{id}.json"))).ok()?;
        Some((id.clone(), serde_json::from_slice(&bytes).ok()?))
    };
    containers.filter_map(read).collect()
}

/// Kills all processes in these cgroups.
pub(crate) fn kill(context: &Context, cgroups: &[String]) {
    for cgroup in cgroups {
        if let Err(error) = context.cgroups.kill_all(cgroup, KILL) {
            tracing::error!(cgroup, %error, "kill what a dead monitor left");
        }
    }
}

/// Kills what is in a cgroup and removes it. None there is fine.
pub(crate) fn end_cgroup(context: &Context, cgroup: &str) -> Result<(), PodError> {
    let failed = |e| PodError::host(format!("remove cgroup {cgroup}"), e);
    if !context.cgroups.exists(cgroup).map_err(failed)? {
        return Ok(());
    }
    if !context.cgroups.remove_empty(cgroup).map_err(failed)? {
        context.cgroups.kill_all(cgroup, KILL).map_err(failed)?;
        context.cgroups.remove(cgroup, KILL).map_err(failed)?;
    }
    match cgroup.rsplit('/').next().filter(|unit| context.config.systemd_cgroup && unit.ends_with(".slice")) {
        // Scopes go by themselves, slices do not.
        Some(slice) => context
            .systemd()
            .and_then(|mut s| s.stop(slice, KILL))
            .map_err(|error| PodError::host(format!("stop the slice {slice}"), error)),
        None => Ok(()),
    }
}
