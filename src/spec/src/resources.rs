//! Limits.

use crisp_model::LinuxResources;
use serde_json::{Map, Value, json};

use crate::{error::SpecError, input::HostFacts};

const FIELD: &str = "config.linux.resources";

/// `linux.resources` (without its device rules) and the process's OOM score.
#[derive(Debug, Clone, PartialEq)]
pub struct Resources {
    /// OCI `LinuxResources`.
    pub oci: Map<String, Value>,
    /// `/proc/<pid>/oom_score_adj`; not part of the spec, because libcontainer would apply it to itself.
    pub oom_score_adj: i32,
}

/// Converts limits, for a new container or an update. What this host has no controller for is left out with a
/// warning: the kubelet sends the same limits (of huge pages above all) to every node.
///
/// `cpu.shares` stays as it is on version 2, where libcontainer converts it to a weight. A memory limit always comes
/// with one for memory and swap together: on version 1 the first cannot be raised above the second.
pub fn resources(
    limits: &LinuxResources,
    host: &HostFacts,
    warnings: &mut Vec<String>,
) -> Result<Resources, SpecError> {
    let mut oci = Map::new();
    let mut put = |controller: &str, key: &str, values: Map<String, Value>, warnings: &mut Vec<String>| {
        if values.is_empty() {
            return;
        }
        if host.cgroup.has(controller) {
            let entry = oci.entry(key).or_insert_with(|| json!({}));
            if let Value::Object(object) = entry {
                object.extend(values);
            }
        } else {
            let names: Vec<String> = values.into_iter().map(|(name, _)| format!("{key} {name}")).collect();
            warnings.push(format!(
                "{FIELD}: {} ignored: this host has no {controller} controller",
                names.join(", ")
            ));
        }
    };
    put("cpu", "cpu", cpu(limits)?, warnings);
    put("cpuset", "cpu", cpuset(limits)?, warnings);
    put("memory", "memory", memory(limits, host, warnings)?, warnings);
    if let Some(limit) = host.defaults.pids_limit {
        put("pids", "pids", Map::from_iter([("limit".to_owned(), json!(limit))]), warnings);
    }
    let hugepages = hugepages(limits, host, warnings);
    if !hugepages.is_empty() {
        oci.insert("hugepageLimits".into(), Value::Array(hugepages));
    }
    if !limits.unified.is_empty() {
        if host.cgroup.unified() {
            oci.insert("unified".into(), json!(unified(limits)?));
        } else {
            warnings.push(format!("{FIELD}.unified: ignored: this host has cgroup version 1"));
        }
    }
    Ok(Resources { oci, oom_score_adj: oom_score_adj(limits)? })
}

fn oom_score_adj(limits: &LinuxResources) -> Result<i32, SpecError> {
    let score = limits.oom_score_adj;
    i32::try_from(score).ok().filter(|score| (-1000..=1000).contains(score)).ok_or_else(|| {
        SpecError::invalid(format!("{FIELD}.oom_score_adj"), format!("{score} is not between -1000 and 1000"))
    })
}

fn cpu(limits: &LinuxResources) -> Result<Map<String, Value>, SpecError> {
    let mut cpu = Map::new();
    if let Some(shares) = limits.cpu_shares {
        // The kernel clamps to this range too, but a reader of the record should see what holds.
        cpu.insert("shares".into(), json!(shares.clamp(2, 262_144)));
    }
    if let Some(period) = limits.cpu_period {
        if !(1_000..=1_000_000).contains(&period) {
            let reason = format!("{period} is not between 1000 and 1000000 microseconds");
            return Err(SpecError::invalid(format!("{FIELD}.cpu_period"), reason));
        }
        cpu.insert("period".into(), json!(period));
    }
    if let Some(quota) = limits.cpu_quota {
        if quota > 0 && quota < 1_000 {
            let reason = format!("{quota} is less than 1000 microseconds");
            return Err(SpecError::invalid(format!("{FIELD}.cpu_quota"), reason));
        }
        cpu.insert("quota".into(), json!(quota.max(-1)));
    }
    Ok(cpu)
}

fn cpuset(limits: &LinuxResources) -> Result<Map<String, Value>, SpecError> {
    let mut set = Map::new();
    for (name, field, list) in
        [("cpus", "cpuset_cpus", &limits.cpuset_cpus), ("mems", "cpuset_mems", &limits.cpuset_mems)]
    {
        if let Some(list) = list {
            if !is_list(list) {
                let reason = format!("{list:?} is not a list such as 0-3,7");
                return Err(SpecError::invalid(format!("{FIELD}.{field}"), reason));
            }
            set.insert(name.into(), json!(list));
        }
    }
    Ok(set)
}

/// `cpuset(7)`, list format.
fn is_list(text: &str) -> bool {
    let number = |part: &str| part.parse::<u32>().ok().filter(|_| part.bytes().all(|b| b.is_ascii_digit()));
    text.split(',').all(|part| match part.split_once('-') {
        None => number(part).is_some(),
        Some((from, to)) => matches!((number(from), number(to)), (Some(from), Some(to)) if from <= to),
    })
}

fn memory(
    limits: &LinuxResources,
    host: &HostFacts,
    warnings: &mut Vec<String>,
) -> Result<Map<String, Value>, SpecError> {
    let mut memory = Map::new();
    let bad = |name: &str, reason: String| Err(SpecError::invalid(format!("{FIELD}.{name}"), reason));
    if let Some(limit) = limits.memory_limit {
        if limit < -1 {
            return bad("memory_limit_in_bytes", format!("{limit} is neither a size nor -1"));
        }
        memory.insert("limit".into(), json!(limit));
    }
    let swap = limits.memory_swap_limit.or(limits.memory_limit);
    let Some(swap) = swap else { return Ok(memory) };
    let Some(limit) = limits.memory_limit else {
        return bad("memory_swap_limit_in_bytes", "needs memory_limit_in_bytes too".into());
    };
    if swap != -1 && (swap < limit || limit == -1) {
        return bad("memory_swap_limit_in_bytes", format!("{swap} is less than the memory limit of {limit}"));
    }
    if host.swap_accounting {
        memory.insert("swap".into(), json!(swap));
    } else if limits.memory_swap_limit.is_some_and(|swap| swap != limit) {
        warnings
            .push(format!("{FIELD}.memory_swap_limit_in_bytes: ignored: this host does not account swap"));
    }
    Ok(memory)
}

fn hugepages(limits: &LinuxResources, host: &HostFacts, warnings: &mut Vec<String>) -> Vec<Value> {
    let mut kept = Vec::new();
    for page in &limits.hugepage_limits {
        if host.hugepage_sizes.contains(&page.page_size) {
            kept.push(json!({"pageSize": page.page_size, "limit": page.limit}));
        } else if page.limit > 0 {
            // A limit of 0 for pages that nobody can use holds anyway.
            let size = &page.page_size;
            warnings.push(format!(
                "{FIELD}.hugepage_limits: {size} ignored: this host cannot limit pages of that size"
            ));
        }
    }
    kept
}

fn unified(limits: &LinuxResources) -> Result<&std::collections::BTreeMap<String, String>, SpecError> {
    for name in limits.unified.keys() {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        // The names become file names in the container's cgroup; cgroup.* would move or freeze it.
        if name.is_empty() || name.starts_with('.') || !name.contains('.') || !name.chars().all(plain) {
            let reason = format!("{name:?} is not the name of a cgroup file such as memory.high");
            return Err(SpecError::invalid(format!("{FIELD}.unified"), reason));
        }
        if name.starts_with("cgroup.") {
            let reason = format!("{name:?} is the runtime's own to set");
            return Err(SpecError::invalid(format!("{FIELD}.unified"), reason));
        }
    }
    Ok(&limits.unified)
}

#[cfg(test)]
mod tests;
