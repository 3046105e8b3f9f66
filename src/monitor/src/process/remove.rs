//! Killing and removing: workers' parts.

use std::{fs, path::Path, time::Duration};

use crisp_host::cgroup::CgroupFs;

use super::{Failure, create::state_root, failed, reap, report::Reporter, worker};

/// How long killed processes may take to go. Longer means that they hang in the kernel, and the caller has to know.
const KILL: Duration = Duration::from_secs(10);
/// How long a cgroup may be busy after its last process has gone.
const BUSY: Duration = Duration::from_secs(2);

/// Kills everything in these cgroups.
pub(super) fn kill(reporter: &Reporter, cgroups: &CgroupFs, group: &str) -> Result<(), Failure> {
    cgroups.kill_all(group, KILL).map_err(failed(format!("kill everything in {group}")))?;
    worker::done(reporter)
}

/// Removes a container.
pub(super) fn container(
    reporter: &Reporter,
    cgroups: &CgroupFs,
    dir: &Path,
    (id, group): (&str, &str),
) -> Result<(), Failure> {
    cgroups.kill_all(group, KILL).map_err(failed(format!("kill everything in {group}")))?;
    remove_cgroup(cgroups, group)?;
    forget(dir, id);
    worker::done(reporter)
}

/// Ends the pod: the containers first, then the infra container (whose cgroup is the last in the list).
pub(super) fn pod(
    reporter: &Reporter,
    cgroups: &CgroupFs,
    dir: &Path,
    groups: &[String],
) -> Result<(), Failure> {
    let mut outcome = Ok(());
    // Those of containers that have ended. An error here is met again below, and reported there.
    let left: Vec<&String> =
        groups.iter().filter(|group| !cgroups.remove_empty(group).unwrap_or_default()).collect();
    for step in [
        |cgroups: &CgroupFs, group: &str| {
            cgroups.kill_all(group, KILL).map_err(failed(format!("kill everything in {group}")))
        },
        remove_cgroup,
    ] {
        for group in &left {
            // Goes on after a failure: as much as can go goes.
            outcome = outcome.and(step(cgroups, group));
        }
    }
    let _ = fs::remove_dir_all(state_root(dir));
    outcome?;
    worker::done(reporter)
}

/// Removes a cgroup with all below it, in every hierarchy.
pub(super) fn remove_cgroup(cgroups: &CgroupFs, group: &str) -> Result<(), Failure> {
    cgroups.remove(group, BUSY).map_err(failed(format!("remove the cgroup {group}")))
}

/// Removes the files of a container.
pub(super) fn forget(dir: &Path, id: &str) {
    let _ = fs::remove_dir_all(state_root(dir).join(id));
    let _ = fs::remove_file(reap::record(dir, id));
}
