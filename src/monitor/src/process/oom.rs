//! Out-of-memory kills of a container, as the kernel counts them.
//!
//! With the systemd driver the count goes with the container: systemd removes a scope as soon as its last process has ended,
//! and often before we hear of that end. So there (on version 2) the file is kept open and read whenever the kernel announces a
//! change, which it does at most a hundred times a second, and so may be too late for the kill that ends the container. That
//! one is found in the slice above, whose count has the kills of all its scopes and stays: what no container has counted
//! there is the one's that ended with SIGKILL and without a count. A pod of the kubelet's has a slice of its own.
//!
//! With the other driver the cgroup stays until the container is removed, and one look at the end is enough.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crisp_host::cgroup::CgroupFs;
use crisp_model::{ContainerId, ExitStatus};
use nix::unistd::Pid;

use super::server::{Server, Source};

/// Two handfuls of short lines.
const FILE: usize = 1024;
/// What a process ends with that was killed, or whose only child was.
const KILLED: i32 = 128 + libc::SIGKILL;

/// What is known of the kills in one container.
#[derive(Debug, Default)]
pub(super) struct Kills {
    /// `memory.events`, where the cgroup goes without us, until it has gone.
    events: Option<File>,
    token: Option<u64>,
    seen: u64,
    /// What the slice had counted and no container when this one was made.
    before: u64,
}

impl Kills {
    /// Looks again; what was seen once stays seen.
    fn look(&mut self) {
        let Some(events) = &self.events else { return };
        let mut text = [0; FILE];
        match events.read_at(&mut text, 0) {
            Ok(length) => self.seen = count(&String::from_utf8_lossy(&text[..length])),
            // Removed; from now on it would be reported as ready for ever.
            Err(_) => self.events = None,
        }
    }
}

/// The file with the cgroup's count.
fn path(cgroups: &CgroupFs, cgroup: &str) -> Option<PathBuf> {
    let file = if cgroups.layout().is_v2() { "memory.events" } else { "memory.oom_control" };
    Some(cgroups.path("memory", cgroup).ok()??.join(file))
}

/// The cgroup's count; 0 if it has gone.
fn read(cgroups: &CgroupFs, cgroup: &str) -> u64 {
    path(cgroups, cgroup).and_then(|path| fs::read_to_string(path).ok()).map_or(0, |text| count(&text))
}

fn count(text: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
}

impl Server {
    /// A container whose cgroup systemd has made: its count is watched.
    pub(super) fn watch_kills(&mut self, id: &ContainerId) {
        let Some(cgroups) = self.cgroups.clone().filter(|cgroups| cgroups.layout().is_v2()) else { return };
        let Ok(container) = self.pod.container(id) else { return };
        let cgroup = container.cgroup.clone();
        let before = self.uncounted(&cgroups, &cgroup);
        let events = path(&cgroups, &cgroup).and_then(|path| File::open(path).ok());
        let token = self.token(Source::Kills(id.clone()));
        // Without it the looks at the exit remain.
        if let Some(Err(error)) = events.as_ref().map(|events| self.watch_changes(events, token)) {
            eprintln!("memory.events of container {id}: {error}");
        }
        if let Ok(container) = self.pod.container(id) {
            container.kills = Kills { events, token: Some(token), seen: 0, before };
            // The first look is what the kernel compares the next change with.
            container.kills.look();
        }
    }

    /// The kernel has counted something in a container.
    pub(super) fn look_at_kills(&mut self, id: &ContainerId) {
        if let Ok(container) = self.pod.container(id) {
            container.kills.look();
        }
    }

    /// A process has ended. If it is a container's first, systemd may be removing its scope at this moment.
    pub(super) fn look_before_it_goes(&mut self, pid: Pid) {
        if let Some(container) = self.pod.containers.iter_mut().find(|c| c.pid == Some(pid)) {
            container.kills.look();
        }
    }

    /// Kills that the slice of this cgroup has counted, and none of the pod's containers.
    fn uncounted(&mut self, cgroups: &CgroupFs, cgroup: &str) -> u64 {
        let slice = Path::new(cgroup).parent().and_then(Path::to_str).unwrap_or_default();
        let counted: u64 = self
            .pod
            .containers
            .iter_mut()
            .map(|container| {
                container.kills.look();
                container.kills.seen
            })
            .sum();
        read(cgroups, slice).saturating_sub(counted + self.pod.kills_of_removed)
    }

    /// The container has ended: whether something in it was killed.
    pub(super) fn settle_kills(&mut self, at: usize, status: &ExitStatus) -> bool {
        let Some(cgroups) = self.cgroups.clone() else { return false };
        let container = &mut self.pod.containers[at];
        let (cgroup, systemd) = (container.cgroup.clone(), container.systemd && cgroups.layout().is_v2());
        container.kills.look();
        if container.kills.seen == 0 {
            container.kills.seen = read(&cgroups, &cgroup);
        }
        if systemd && container.kills.seen == 0 && status.code == KILLED {
            let before = container.kills.before;
            let more = self.uncounted(&cgroups, &cgroup).saturating_sub(before);
            self.pod.containers[at].kills.seen = more;
        }
        let kills = &mut self.pod.containers[at].kills;
        kills.events = None;
        let killed = kills.seen > 0;
        if let Some(token) = kills.token.take() {
            self.sources.remove(&token);
        }
        killed
    }

    /// The container is being forgotten; its slice is not.
    pub(super) fn keep_count(&mut self, id: &ContainerId) {
        let seen = self.pod.container(id).map_or(0, |container| container.kills.seen);
        self.pod.kills_of_removed += seen;
    }
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn counts_of_both_versions() {
        for (text, killed) in [
            ("low 0\nhigh 0\nmax 12\noom 1\noom_kill 1\noom_group_kill 0\n", 1),
            ("low 0\nhigh 0\nmax 12\noom 1\noom_kill 0\noom_group_kill 3\n", 0),
            ("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n", 2),
            ("oom_kill_disable 1\nunder_oom 1\noom_kill 0\n", 0),
            ("", 0),
        ] {
            assert_eq!(count(text), killed, "{text}");
        }
    }
}
