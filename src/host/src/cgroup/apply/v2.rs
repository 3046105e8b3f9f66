//! Limits on cgroup v2 (kernel `Documentation/admin-guide/cgroup-v2.rst`).

use std::path::Path;

use crisp_model::LinuxResources;

use super::super::{CgroupError, files};
use super::cpu_weight;

pub(super) fn apply(dir: &Path, cgroup: &str, r: &LinuxResources) -> Result<(), CgroupError> {
    check_unified(r)?;
    if r.memory_limit.is_some() || r.memory_swap_limit.is_some() {
        memory(dir, cgroup, r.memory_limit, r.memory_swap_limit)?;
    }
    if let Some(shares) = r.cpu_shares {
        set(dir, "cpu", "cpu.weight", &cpu_weight(shares).to_string())?;
    }
    if r.cpu_period.is_some() || r.cpu_quota.is_some() {
        bandwidth(dir, r.cpu_period, r.cpu_quota)?;
    }
    for (file, value) in [("cpuset.cpus", &r.cpuset_cpus), ("cpuset.mems", &r.cpuset_mems)] {
        if let Some(list) = value.as_deref().filter(|list| !list.is_empty()) {
            set(dir, "cpuset", file, list)?;
        }
    }
    for page in &r.hugepage_limits {
        let file = format!("hugetlb.{}.max", page.page_size);
        // Kubelets send a limit of 0 for every page size, whether the host has the controller or not.
        if page.limit != 0 || dir.join(&file).exists() {
            set(dir, "hugetlb", &file, &page.limit.to_string())?;
        }
    }
    for (file, value) in &r.unified {
        // A file may take one setting a write (`io.max`): one line, one write.
        for line in value.lines() {
            files::write(&dir.join(file), line)?;
        }
    }
    Ok(())
}

/// `unified` comes from outside: names of files right here that belong to a controller, and nothing else.
fn check_unified(r: &LinuxResources) -> Result<(), CgroupError> {
    for name in r.unified.keys() {
        let controller = name.split('.').next().unwrap_or_default();
        let plain = name.contains('.') && !name.contains(['/', '\0', '\n']) && !name.starts_with('.');
        if !plain || controller == "cgroup" || name.contains("..") {
            let reason = "a key of unified is a controller's file name, such as memory.high";
            return Err(CgroupError::InvalidPath { path: name.clone(), reason });
        }
    }
    Ok(())
}

/// Writes a controller's file; if it is missing, says that the controller is.
fn set(dir: &Path, controller: &'static str, file: &str, value: &str) -> Result<(), CgroupError> {
    match files::write(&dir.join(file), value) {
        Err(CgroupError::Refused { source, .. }) if files::is_gone(&source) => {
            Err(CgroupError::NoController { controller, setting: file.to_owned() })
        }
        other => other,
    }
}

/// `max` or a number of bytes.
fn bytes(text: &str) -> u64 {
    text.trim().parse().unwrap_or(u64::MAX)
}

fn max_or(value: u64) -> String {
    if value == u64::MAX { "max".into() } else { value.to_string() }
}

/// v2 limits memory and swap apart, the CRI memory and both together: swap is the difference. When only the memory
/// limit is named the swap limit stays.
fn memory(dir: &Path, cgroup: &str, limit: Option<i64>, both: Option<i64>) -> Result<(), CgroupError> {
    let max_file = dir.join("memory.max");
    let Some(old) = files::read_optional(&max_file)?.map(|text| bytes(&text)) else {
        return Err(CgroupError::NoController { controller: "memory", setting: "memory.max".into() });
    };
    let wanted = limit.map(|limit| u64::try_from(limit).unwrap_or(u64::MAX));
    // A swap limit that is lowered first, or raised last, never leaves more than either state allows.
    let swap = both.map(|both| match (u64::try_from(both), wanted.unwrap_or(old)) {
        (Err(_), _) => u64::MAX,
        (Ok(both), memory) => both.saturating_sub(memory),
    });
    if let Some(limit) = wanted {
        if limit < old {
            make_room(dir, cgroup, limit)?;
        }
        files::write(&max_file, &max_or(limit))?;
    }
    if let Some(swap) = swap {
        match set(dir, "memory", "memory.swap.max", &max_or(swap)) {
            // Without swap in the kernel (or with swapaccount=0) there is none to be used.
            Err(CgroupError::NoController { .. }) => {}
            other => other?,
        }
    }
    Ok(())
}

/// A `memory.max` below what is in use makes the kernel kill (v1 refused it), so what can be reclaimed is, and the
/// limit is refused if that is not enough.
fn make_room(dir: &Path, cgroup: &str, limit: u64) -> Result<(), CgroupError> {
    let current = dir.join("memory.current");
    let usage = || Ok::<u64, CgroupError>(files::read_optional(&current)?.map_or(0, |text| bytes(&text)));
    let before = usage()?;
    if before <= limit {
        return Ok(());
    }
    // Linux 5.19. EAGAIN: it got less than it was asked for. Where it is missing, usage decides as it is.
    let _ = files::write(&dir.join("memory.reclaim"), &(before - limit).to_string());
    let after = usage()?;
    if after <= limit {
        return Ok(());
    }
    Err(CgroupError::BelowUsage { cgroup: cgroup.to_owned(), limit, usage: after })
}

/// `cpu.max` is quota and period in one file; the one that is not named stays.
fn bandwidth(dir: &Path, period: Option<u64>, quota: Option<i64>) -> Result<(), CgroupError> {
    let Some(old) = files::read_optional(&dir.join("cpu.max"))? else {
        return Err(CgroupError::NoController { controller: "cpu", setting: "cpu.max".into() });
    };
    let mut old = old.split_whitespace();
    let (old_quota, old_period) = (old.next().unwrap_or("max"), old.next().unwrap_or("100000"));
    let quota = match quota {
        Some(quota) if quota <= 0 => "max".to_owned(),
        Some(quota) => quota.to_string(),
        None => old_quota.to_owned(),
    };
    let period = period.map_or_else(|| old_period.to_owned(), |period| period.to_string());
    set(dir, "cpu", "cpu.max", &format!("{quota} {period}"))
}
