//! Limits on cgroup v1 (kernel `Documentation/admin-guide/cgroup-v1`).

use std::path::{Path, PathBuf};

use crisp_model::LinuxResources;

use super::super::{CgroupError, Hierarchies, files};

/// What v1 says for "no limit": the largest page-aligned number, close to 2^63.
const UNLIMITED: u64 = 1 << 62;

pub(super) fn apply(v1: &Hierarchies, relative: &Path, r: &LinuxResources) -> Result<(), CgroupError> {
    let dir = |controller: &'static str, setting: &str| -> Result<PathBuf, CgroupError> {
        let root = v1.controllers.get(controller);
        root.map(|root| root.join(relative))
            .ok_or_else(|| CgroupError::NoController { controller, setting: setting.to_owned() })
    };
    if r.memory_limit.is_some() || r.memory_swap_limit.is_some() {
        memory(&dir("memory", "memory.limit_in_bytes")?, r.memory_limit, r.memory_swap_limit)?;
    }
    if let Some(shares) = r.cpu_shares {
        files::write(&dir("cpu", "cpu.shares")?.join("cpu.shares"), &shares.to_string())?;
    }
    if r.cpu_period.is_some() || r.cpu_quota.is_some() {
        bandwidth(&dir("cpu", "cpu.cfs_quota_us")?, r.cpu_period, r.cpu_quota)?;
    }
    for (file, value) in [("cpuset.cpus", &r.cpuset_cpus), ("cpuset.mems", &r.cpuset_mems)] {
        if let Some(list) = value.as_deref().filter(|list| !list.is_empty()) {
            files::write(&dir("cpuset", file)?.join(file), list)?;
        }
    }
    for page in &r.hugepage_limits {
        let file = format!("hugetlb.{}.limit_in_bytes", page.page_size);
        // Kubelets send a limit of 0 for every page size, whether the host has the controller or not.
        match dir("hugetlb", &file) {
            Ok(dir) => files::write(&dir.join(&file), &page.limit.to_string())?,
            Err(_) if page.limit == 0 => {}
            Err(error) => return Err(error),
        }
    }
    // `unified` names files of cgroup v2.
    Ok(())
}

/// Memory alone may never be above memory and swap together, so the order depends on the direction. When only the
/// memory limit is named and there is a limit for both, the swap between them is kept.
fn memory(dir: &Path, limit: Option<i64>, both: Option<i64>) -> Result<(), CgroupError> {
    let limit_file = dir.join("memory.limit_in_bytes");
    let both_file = dir.join("memory.memsw.limit_in_bytes");
    let number = |text: String| text.trim().parse::<u64>().unwrap_or(u64::MAX);
    let old_both = files::read_optional(&both_file)?.map(number);
    let Some(old_both) = old_both else {
        // No swap accounting (`swapaccount=0`): a limit of swap cannot be kept, nor is one needed to keep the other.
        return limit.map_or(Ok(()), |value| files::write(&limit_file, &value.to_string()));
    };
    let old_limit = number(files::read(&limit_file)?);
    let both = both.or_else(|| {
        let wanted = limit?;
        if old_both >= UNLIMITED {
            None
        } else if wanted < 0 {
            Some(-1)
        } else {
            let swap = old_both.saturating_sub(old_limit);
            Some(wanted.saturating_add(i64::try_from(swap).unwrap_or(i64::MAX)))
        }
    });
    let value = |limit: i64| u64::try_from(limit).unwrap_or(u64::MAX);
    // What holds for both now decides: a memory limit above it is only taken after it was raised.
    let both_first =
        limit.is_some_and(|limit| value(limit) > old_both) || both.is_some_and(|both| value(both) > old_both);
    let mut writes = [(limit, &limit_file), (both, &both_file)];
    if both_first {
        writes.reverse();
    }
    for (wanted, file) in writes {
        if let Some(wanted) = wanted {
            files::write(file, &wanted.to_string())?;
        }
    }
    Ok(())
}

/// Quota and period are checked together against the parent's and the children's share, so one of the two orders may be refused
/// half-way where the other is not.
fn bandwidth(dir: &Path, period: Option<u64>, quota: Option<i64>) -> Result<(), CgroupError> {
    let set_quota = || {
        quota.map_or(Ok(()), |quota| files::write(&dir.join("cpu.cfs_quota_us"), &quota.max(-1).to_string()))
    };
    let Some(period) = period else { return set_quota() };
    let set_period = || files::write(&dir.join("cpu.cfs_period_us"), &period.to_string());
    match set_period() {
        Err(CgroupError::Refused { source, .. })
            if source.raw_os_error() == Some(libc::EINVAL) && quota.is_some() =>
        {
            set_quota()?;
            set_period()
        }
        other => {
            other?;
            set_quota()
        }
    }
}
