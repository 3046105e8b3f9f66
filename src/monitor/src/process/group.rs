//! A worker's part in making cgroups: by the kernel's files, or as a scope of systemd's with this worker in it.
//!
//! A scope needs a process to begin with, and goes with its last one. The worker is the first: what it forks is born in
//! the scope, and when the worker ends the scope stays with that, or goes. So a worker that is killed in the middle leaves nothing.

use std::{collections::BTreeMap, os::fd::AsFd, time::Duration};

use crisp_host::{
    cgroup::{
        CgroupFs, Scope,
        devices::{self, DeviceRule},
        systemd::Systemd,
    },
    process::exit_now,
};
use crisp_model::{LinuxResources, resources::HugepageLimit};
use crisp_monitor::protocol::Cgroup;
use serde::Deserialize;
use serde_json::Value;

use super::{
    Failure, failed, host, invalid,
    pod::cgroup_path,
    report::{Report, Reporter},
    worker,
};

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

/// `linux.resources` of the OCI runtime spec, as far as crisp's specs use it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Resources {
    cpu: Cpu,
    memory: Memory,
    pids: Pids,
    hugepage_limits: Vec<Hugepages>,
    unified: BTreeMap<String, String>,
    /// Nothing: none are restricted.
    devices: Option<Vec<DeviceRule>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Cpu {
    shares: Option<u64>,
    quota: Option<i64>,
    period: Option<u64>,
    cpus: Option<String>,
    mems: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Memory {
    limit: Option<i64>,
    swap: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Pids {
    limit: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Hugepages {
    page_size: String,
    limit: u64,
}

/// Sets a container's limits and restricts its devices, as its spec says.
pub(super) fn limit(cgroups: &CgroupFs, path: &str, spec: &Value) -> Result<(), Failure> {
    let Some(resources) = spec.pointer("/linux/resources") else { return Ok(()) };
    let r = Resources::deserialize(resources).map_err(|e| invalid("resources of the spec", e))?;
    let limits = LinuxResources {
        cpu_period: r.cpu.period,
        cpu_quota: r.cpu.quota,
        cpu_shares: r.cpu.shares,
        memory_limit: r.memory.limit,
        memory_swap_limit: r.memory.swap,
        cpuset_cpus: r.cpu.cpus,
        cpuset_mems: r.cpu.mems,
        hugepage_limits: r
            .hugepage_limits
            .into_iter()
            .map(|h| HugepageLimit { page_size: h.page_size, limit: h.limit })
            .collect(),
        unified: r.unified,
        ..LinuxResources::default()
    };
    cgroups.apply(path, &limits).map_err(failed("set the container's limits"))?;
    if let Some(limit) = r.pids.limit {
        cgroups.limit_pids(path, limit).map_err(failed("limit the container's processes"))?;
    }
    match r.devices {
        Some(rules) => {
            devices::restrict(cgroups, path, &rules).map_err(failed("restrict the container's devices"))
        }
        None => Ok(()),
    }
}

/// Makes this worker a member, and so all it forks. On version 2 that is a second worker in its place, born in the cgroup: moving
/// one there would wait for a lock of the kernel's (8 ms after a rest); this one then ends. In a scope of systemd's it is already.
pub(super) fn enter(
    reporter: &Reporter,
    cgroups: &CgroupFs,
    cgroup: &Cgroup,
    path: &str,
) -> Result<(), Failure> {
    let v2 = cgroups.layout().is_v2();
    if v2 && cgroup.systemd {
        return Ok(());
    }
    let into = cgroups.open(path).map_err(failed("open the container's cgroup"))?;
    let Some(into) = into else {
        return cgroups.join_self(path).map_err(failed("join the container's cgroup"));
    };
    match worker::fork_sibling(0, Some(into.as_fd())).map_err(host("fork into the container's cgroup"))? {
        None => Ok(()),
        Some(pid) => {
            reporter.tell(&Report::Handed { pid: pid.as_raw() });
            exit_now(0)
        }
    }
}

/// Goes back to the roots, so that the container's cgroup can be removed.
pub(super) fn leave(cgroups: &CgroupFs) {
    let file = if cgroups.layout().is_v2() { "cgroup.procs" } else { "tasks" };
    for root in cgroups.layout().roots() {
        let _ = std::fs::write(root.join(file), "0");
    }
}
