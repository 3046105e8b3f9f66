//! cgroups of pods, containers and execs, on v1, hybrid and v2 hosts.
//!
//! Owns the knowledge of the kernel's cgroup files: [`Layout`] says which hierarchies there are, [`CgroupFs`] makes,
//! limits, empties, removes and measures cgroups in all of them. It talks to the kernel's files only (the systemd
//! driver's cgroups are made by systemd and then used like any other). Calls block for as long as a kernel file takes;
//! those that wait for processes take a bound. Nothing is kept in memory but the layout, so a crash in the middle
//! leaves at most cgroups, and every call may be repeated: `create` accepts what exists, `remove` what is gone.
//!
//! A cgroup is named by its path below the hierarchies' roots, `/kubepods/burstable/pod…/<id>`; [`Scope`] and
//! [`slice_path`] make such paths of systemd's names.

mod apply;
pub mod devices;
mod error;
mod files;
mod freeze;
mod kill;
mod layout;
mod oom_score;
mod path;
mod remove;
mod stats;
pub mod systemd;

use std::{
    fs,
    io::{self, ErrorKind},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

pub use apply::cpu_weight;
pub use error::CgroupError;
pub use layout::{Hierarchies, Layout};
pub use path::{Scope, slice_path};
pub use stats::{BlockIo, CgroupStats, CpuStats, IoOperation, MemoryStats, PidStats, Pressure, Psi};

/// Controllers that a container's cgroup on v2 gets, if the host has them (the order is that of need).
const V2_CONTROLLERS: [&str; 7] = ["memory", "cpu", "pids", "cpuset", "io", "hugetlb", "misc"];

/// The cgroup hierarchies of the host.
#[derive(Debug, Clone)]
pub struct CgroupFs {
    layout: Layout,
}

impl CgroupFs {
    /// Looks at the host, once; the result is cheap to clone.
    pub fn detect() -> Result<Self, CgroupError> {
        Ok(Self { layout: Layout::detect()? })
    }

    /// With a layout that is known already.
    pub fn with_layout(layout: Layout) -> Self {
        Self { layout }
    }

    /// What the host has.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The cgroup's folder in every hierarchy, whether it exists or not.
    pub fn paths(&self, cgroup: &str) -> Result<Vec<PathBuf>, CgroupError> {
        let relative = path::relative(cgroup)?;
        Ok(self.layout.roots().into_iter().map(|root| path::under(root, relative)).collect())
    }

    /// The cgroup's folder in the controller's hierarchy; `None`: this host does not have the controller.
    pub fn path(&self, controller: &str, cgroup: &str) -> Result<Option<PathBuf>, CgroupError> {
        let relative = path::relative(cgroup)?;
        Ok(self.layout.controller(controller).map(|root| path::under(root, relative)))
    }

    /// The files to which a single-threaded process writes `0` to join the cgroup itself. v1: `tasks`, which skips
    /// the kernel's threadgroup lock (8 ms after a rest); v2: `cgroup.procs`, whose cost only `CLONE_INTO_CGROUP` avoids.
    pub fn join_files(&self, cgroup: &str) -> Result<Vec<PathBuf>, CgroupError> {
        let name = if self.layout.is_v2() { "cgroup.procs" } else { "tasks" };
        Ok(self.paths(cgroup)?.into_iter().map(|dir| dir.join(name)).collect())
    }

    /// A descriptor of a v2 cgroup for `CLONE_INTO_CGROUP`; `None` on other layouts.
    pub fn open(&self, cgroup: &str) -> Result<Option<OwnedFd>, CgroupError> {
        if !self.layout.is_v2() {
            return Ok(None);
        }
        let dir = self.paths(cgroup)?.remove(0);
        let file = fs::File::open(&dir).map_err(|source| self.gone_or(cgroup, "open", &dir, source))?;
        Ok(Some(file.into()))
    }

    /// Whether the cgroup is there, in any hierarchy.
    pub fn exists(&self, cgroup: &str) -> Result<bool, CgroupError> {
        Ok(self.paths(cgroup)?.iter().any(|dir| dir.is_dir()))
    }

    /// Makes the cgroup and its parents in every hierarchy. On v2 the parents hand their controllers down; on v1 new
    /// cpusets get their parent's processors and memory nodes, without which nothing can be put into them.
    pub fn create(&self, cgroup: &str) -> Result<(), CgroupError> {
        let relative = path::relative(cgroup)?;
        match &self.layout {
            Layout::V1(v1) | Layout::Hybrid { v1, .. } => {
                let cpuset = v1.controllers.get("cpuset");
                for root in v1.mount_points() {
                    if Some(root) == cpuset.map(PathBuf::as_path) {
                        create_cpuset(root, relative)?;
                    } else {
                        make_dirs(&path::under(root, relative))?;
                    }
                }
            }
            Layout::V2 { root, .. } => create_v2(root, relative)?,
        }
        Ok(())
    }

    /// Puts a process into the cgroup, in every hierarchy. The first such move after a rest costs the kernel 8 ms.
    pub fn join(&self, cgroup: &str, pid: i32) -> Result<(), CgroupError> {
        for dir in self.paths(cgroup)? {
            files::write(&dir.join("cgroup.procs"), &pid.to_string())?;
        }
        Ok(())
    }

    /// Makes the calling process, which must be single-threaded, a member, in every hierarchy.
    pub fn join_self(&self, cgroup: &str) -> Result<(), CgroupError> {
        self.join_files(cgroup)?.iter().try_for_each(|file| files::write(file, "0"))
    }

    /// The processes in the cgroup and below it, in any hierarchy, without duplicates; none if it is gone. Processes
    /// outside the caller's pid namespace are not seen.
    pub fn procs(&self, cgroup: &str) -> Result<Vec<i32>, CgroupError> {
        let (mut pids, mut text) = (Vec::new(), String::new());
        for top in self.paths(cgroup)? {
            for dir in remove::subtree(&top)? {
                let file = dir.join("cgroup.procs");
                match files::read_into(&file, &mut text) {
                    Ok(()) => {
                        pids.extend(
                            text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0),
                        );
                    }
                    Err(e) if files::is_gone(&e) => {}
                    Err(source) => return Err(CgroupError::host("read", file, source)),
                }
            }
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    fn gone_or(&self, cgroup: &str, operation: &'static str, path: &Path, source: io::Error) -> CgroupError {
        if files::is_gone(&source) {
            CgroupError::NotFound { cgroup: cgroup.to_owned() }
        } else {
            CgroupError::host(operation, path, source)
        }
    }
}

fn make_dir(dir: &Path) -> Result<bool, CgroupError> {
    match fs::create_dir(dir) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(source) => Err(CgroupError::host("mkdir", dir, source)),
    }
}

fn make_dirs(dir: &Path) -> Result<(), CgroupError> {
    // The parents mostly exist: one call then, not one a level.
    match fs::create_dir(dir) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(_) => fs::create_dir_all(dir).map_err(|source| CgroupError::host("mkdir", dir, source)),
    }
}

fn create_cpuset(root: &Path, relative: &Path) -> Result<(), CgroupError> {
    let mut dir = root.to_path_buf();
    for part in relative.components() {
        let parent = dir.clone();
        dir.push(part);
        make_dir(&dir)?;
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let own = files::read(&dir.join(file))?;
            if own.trim().is_empty() {
                files::write(&dir.join(file), files::read(&parent.join(file))?.trim())?;
            }
        }
    }
    Ok(())
}

fn create_v2(root: &Path, relative: &Path) -> Result<(), CgroupError> {
    let mut dir = root.to_path_buf();
    for part in relative.components() {
        delegate(&dir, dir == root)?;
        dir.push(part);
        make_dir(&dir)?;
    }
    Ok(())
}

/// Enables in a v2 cgroup's children what it has and they lack. Not if it holds processes (an exec's parent, which is the
/// container's): then the kernel refuses some controllers and takes others, and makes the children unusable with them.
fn delegate(dir: &Path, is_root: bool) -> Result<(), CgroupError> {
    if !is_root && files::read_optional(&dir.join("cgroup.procs"))?.is_some_and(|procs| !procs.is_empty()) {
        return Ok(());
    }
    let available = files::read(&dir.join("cgroup.controllers"))?;
    let control = dir.join("cgroup.subtree_control");
    let enabled = files::read(&control)?;
    let has = |text: &str, name: &str| text.split_whitespace().any(|word| word == name);
    for name in V2_CONTROLLERS {
        if has(&available, name) && !has(&enabled, name) {
            // One by one: a controller that cannot be had here (realtime processes, a threaded subtree) must not
            // cost the others. Setting its limit says later that it is missing.
            if let Err(error) = files::write(&control, &format!("+{name}")) {
                tracing::warn!(%error, "a cgroup controller cannot be handed down");
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
