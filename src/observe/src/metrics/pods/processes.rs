//! What `/proc` says of a container's processes.

use std::fs;

/// Most processes that are looked into: a fork bomb must not cost the node more than it does by itself. All are
/// counted.
const MAX_PROCESSES: usize = 1000;

/// Sums over processes.
#[derive(Debug, Default)]
pub(super) struct Processes {
    pub(super) count: u64,
    pub(super) descriptors: u64,
    pub(super) sockets: u64,
    /// Of the first; `None`: no limit, or it is gone.
    pub(super) max_open_files: Option<u64>,
}

impl Processes {
    /// Processes that end meanwhile count as far as they were seen.
    pub(super) fn of(pids: &[i32]) -> Self {
        let mut all = Self { count: pids.len() as u64, ..Self::default() };
        for pid in pids.iter().take(MAX_PROCESSES) {
            let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
            for entry in entries.flatten() {
                all.descriptors += 1;
                let target = fs::read_link(entry.path()).unwrap_or_default();
                all.sockets += u64::from(target.to_string_lossy().starts_with("socket:"));
            }
        }
        all.max_open_files =
            pids.first().and_then(|pid| soft_limit(&fs::read_to_string(format!("/proc/{pid}/limits")).ok()?));
        all
    }
}

/// The soft limit in the line `Max open files  1024  524288  files`.
fn soft_limit(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max open files            1024                 524288               files     \n";
        assert_eq!(soft_limit(text), Some(1024));
        assert_eq!(soft_limit(&text.replace("1024  ", "unlimited")), None);
        assert_eq!(soft_limit(""), None);
    }

    #[test]
    fn our_own_descriptors_are_counted() {
        let own = i32::try_from(std::process::id()).unwrap();
        let (_one, _two) = std::os::unix::net::UnixStream::pair().unwrap();
        let processes = Processes::of(&[own, i32::MAX]);
        assert_eq!(processes.count, 2);
        assert!(processes.descriptors >= 5 && processes.sockets >= 2, "{processes:?}");
    }
}
