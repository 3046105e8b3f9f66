//! A worker's part in making cgroups: by the kernel's files, or as a scope of systemd's with this worker in it.
//!
//! A scope needs a process to begin with, and goes with its last one. The worker is the first: what it forks is born in
//! the scope, and when the worker ends the scope stays with that, or goes. So a worker that is killed in the middle leaves nothing.

use std::time::Duration;

use crisp_host::cgroup::{
    CgroupFs, Scope,
    devices::{self, DeviceRule},
    systemd::Systemd,
};
use crisp_monitor::protocol::Cgroup;
use serde::Deserialize;
use serde_json::Value;

use super::{Failure, failed, invalid, pod::cgroup_path};

/// How long systemd may take to answer; it is slow while it reloads with many units.
const SYSTEMD: Duration = Duration::from_secs(30);

/// Makes the cgroup; its path.
pub(super) fn make(cgroups: &CgroupFs, cgroup: &Cgroup) -> Result<String, Failure> {
    let path = cgroup_path(cgroup)?;
    let v2 = cgroups.layout().is_v2();
    if cgroup.systemd {
        let scope = Scope::parse(&cgroup.path).map_err(|e| invalid(format!("cgroup {}", cgroup.path), e))?;
        let pid = i32::try_from(std::process::id()).map_err(failed("read the own process id"))?;
        Systemd::connect(v2, SYSTEMD)
            .and_then(|mut systemd| systemd.start_scope(&scope, &[pid], &cgroup.limits, SYSTEMD))
            .map_err(failed("ask systemd for a scope"))?;
    }
    if !(v2 && cgroup.systemd) {
        cgroups.create(&path).map_err(failed(format!("make the cgroup {path}")))?;
    }
    Ok(path)
}

/// Restricts the devices of a container on version 2, where libcontainer, as it is built here, leaves them all open.
/// A spec that says nothing of devices restricts none.
pub(super) fn restrict_devices(cgroups: &CgroupFs, path: &str, spec: &Value) -> Result<(), Failure> {
    let Some(rules) = spec.pointer("/linux/resources/devices").filter(|_| cgroups.layout().is_v2()) else {
        return Ok(());
    };
    let rules = Vec::<DeviceRule>::deserialize(rules).map_err(|e| invalid("device rules of the spec", e))?;
    devices::restrict(cgroups, path, &rules).map_err(failed("restrict the container's devices"))
}
