//! Keeps the first container of a pod from waiting for a lock of the kernel's.
//!
//! The first move of a process into a cgroup after a rest waits for a grace period (8 ms, up to 16), because the lock that forks
//! take for reading has to be taken for writing; moves shortly after cost nothing, and libcontainer moves each init by writing
//! to `cgroup.procs`. So once the infra container is in its cgroup, a process that has nothing else to do moves itself to where
//! it is, and again every few milliseconds, for as long as it commonly takes until the first container is asked for. (Not before:
//! who waits holds the lock that making and joining any cgroup takes.) For a container that comes later the wait begins with the
//! request, beside the mounts.
//!
//! On cgroup v2 nothing of this is needed: processes are born in their cgroup where it matters.

use std::{
    fs,
    path::PathBuf,
    thread::sleep,
    time::{Duration, Instant},
};

use crisp_host::cgroup::CgroupFs;

use super::{Failure, host};

/// How long after the pod's beginning its first container is waited for.
pub(super) const WHILE: Duration = Duration::from_millis(100);
/// Shorter than a grace period, after which the kernel would rest again.
const PAUSE: Duration = Duration::from_millis(4);

/// The worker's part: moves itself now, and again until `during` has passed.
pub(super) fn warm(cgroups: &CgroupFs, during: Duration) -> Result<(), Failure> {
    let start = Instant::now();
    let Some(file) = own(cgroups)? else { return Ok(()) };
    loop {
        fs::write(&file, "0").map_err(host("move to the same cgroup"))?;
        if start.elapsed() >= during {
            return Ok(());
        }
        sleep(PAUSE);
    }
}

/// `cgroup.procs` of the process's own cgroup in one hierarchy: the lock is one for all.
fn own(cgroups: &CgroupFs) -> Result<Option<PathBuf>, Failure> {
    let text = fs::read_to_string("/proc/self/cgroup").map_err(host("read /proc/self/cgroup"))?;
    let path = text.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (names, path) = rest.split_once(':')?;
        names.split(',').any(|name| name == "freezer").then_some(path)
    });
    let root = cgroups.layout().v1().and_then(|v1| v1.controllers.get("freezer"));
    Ok(root.zip(path).map(|(root, path)| root.join(path.trim_start_matches('/')).join("cgroup.procs")))
}
