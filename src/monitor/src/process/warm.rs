//! Keeps the first container of a pod from waiting for a lock of the kernel's.
//!
//! The first move of a process into a cgroup after a rest waits for a grace period (8 ms, up to 16), because the lock that forks
//! take for reading has to be taken for writing; moves shortly after cost nothing. libcontainer moves each init by writing
//! to `cgroup.procs`. So a process that has nothing else to do moves itself to where it is as soon as the pod begins.

use std::fs;

use crisp_host::cgroup::CgroupFs;

use super::{Failure, host};

/// The worker's part.
pub(super) fn warm(cgroups: &CgroupFs) -> Result<(), Failure> {
    let text = fs::read_to_string("/proc/self/cgroup").map_err(host("read /proc/self/cgroup"))?;
    let own = |controller: &str| {
        text.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (names, path) = rest.split_once(':')?;
            names.split(',').any(|name| name == controller).then_some(path)
        })
    };
    // v2: processes are born in their cgroup where it matters. v1: one hierarchy suffices, the lock is one for all.
    if cgroups.layout().is_v2() {
        return Ok(());
    }
    match (cgroups.layout().controller("freezer"), own("freezer")) {
        (Some(root), Some(path)) => {
            let file = root.join(path.trim_start_matches('/')).join("cgroup.procs");
            fs::write(file, "0").map_err(host("move to the same cgroup"))
        }
        _ => Ok(()),
    }
}
