//! What is mounted where.
//!
//! libcontainer gives every mount the propagation of the root (`rootfsPropagation`); mounts that need another are
//! listed in [`Mounts::propagation`] and corrected by the monitor after the container was created.

mod requested;

use std::path::{Path, PathBuf};

use crisp_model::container::Propagation;
use serde_json::{Value, json};

use crate::{
    error::SpecError,
    input::{CgroupLayout, Controller, Input},
    namespaces::Sharing,
    plan::Idmapped,
};

/// All mounts of a container.
#[derive(Debug, Default)]
pub(crate) struct Mounts {
    /// `mounts`, parents before children.
    pub list: Vec<Value>,
    /// `linux.rootfsPropagation`.
    pub rootfs_propagation: &'static str,
    /// Mounts that differ from it.
    pub propagation: Vec<(String, Propagation)>,
    /// Volumes to clone with an id mapping.
    pub idmapped: Vec<Idmapped>,
}

/// One mount on its way into the spec.
#[derive(Debug)]
struct Entry {
    destination: String,
    kind: &'static str,
    source: String,
    options: Vec<String>,
    propagation: Propagation,
    idmapped: Option<Idmapped>,
}

impl Entry {
    fn new(destination: &str, kind: &'static str, source: &str, options: &[&str]) -> Self {
        Entry {
            destination: destination.to_owned(),
            kind,
            source: source.to_owned(),
            options: options.iter().map(|o| (*o).to_owned()).collect(),
            propagation: Propagation::Private,
            idmapped: None,
        }
    }

    fn depth(&self) -> usize {
        self.destination.split('/').filter(|part| !part.is_empty()).count()
    }
}

/// An absolute path without `.`, `..` and doubled slashes; `None` if it is none. Purely textual: the container's
/// symlinks are resolved by libcontainer, inside its root.
pub fn clean(path: &str) -> Option<String> {
    if !path.starts_with('/') || path.contains('\0') {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    Some(format!("/{}", parts.join("/")))
}

/// All mounts: the usual ones, unless the request has its own in their place, then the request's.
pub(crate) fn mounts(input: &Input<'_>, sharing: Sharing) -> Result<Mounts, SpecError> {
    let requested = requested::entries(input)?;
    let covers = |path: &str| {
        requested
            .iter()
            .any(|r| r.destination == path || (r.destination == "/dev" && path.starts_with("/dev/")))
    };
    let usual = system(input, sharing).into_iter().chain(cgroup(input)).chain(pod_files(input, sharing)?);
    let mut entries: Vec<Entry> = usual.filter(|entry| !covers(&entry.destination)).collect();
    // A cgroup mount that the request replaces takes its children with it.
    if covers("/sys/fs/cgroup") {
        entries.retain(|entry| !entry.destination.starts_with("/sys/fs/cgroup/"));
    }
    entries.extend(requested);
    entries.sort_by_key(Entry::depth);

    let strongest = |wanted| entries.iter().any(|entry| entry.propagation == wanted);
    let (root, rootfs_propagation) = if strongest(Propagation::Bidirectional) {
        (Propagation::Bidirectional, "shared")
    } else if strongest(Propagation::HostToContainer) {
        (Propagation::HostToContainer, "slave")
    } else {
        (Propagation::Private, "private")
    };
    let differs = entries.iter().filter(|entry| entry.kind == "bind" && entry.propagation != root);
    let propagation = differs.map(|entry| (entry.destination.clone(), entry.propagation)).collect();
    let idmapped = entries.iter_mut().filter_map(|entry| entry.idmapped.take()).collect();
    let list = entries.into_iter().map(|entry| {
        json!({
            "destination": entry.destination,
            "type": entry.kind,
            "source": entry.source,
            "options": entry.options,
        })
    });
    Ok(Mounts { list: list.collect(), rootfs_propagation, propagation, idmapped })
}

/// The kernel's file systems.
fn system(input: &Input<'_>, sharing: Sharing) -> Vec<Entry> {
    let privileged = input.container.security.privileged;
    let access = if privileged { "rw" } else { "ro" };
    let safe = ["nosuid", "noexec", "nodev"];
    // sysfs belongs to the network namespace: a user namespace that does not own it may only bind what is there.
    let sys = if sharing.user && sharing.host_network {
        let recursive = if input.host.recursive_readonly { "rro" } else { "ro" };
        Entry::new("/sys", "bind", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro", recursive])
    } else {
        Entry::new("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", access])
    };
    let pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
    vec![
        Entry::new("/proc", "proc", "proc", &safe),
        Entry::new("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        Entry::new("/dev/pts", "devpts", "devpts", &pts),
        Entry::new("/dev/mqueue", "mqueue", "mqueue", &safe),
        sys,
    ]
}

/// The container's own cgroups, read-only but for privileged ones. Version 1 is put together from bind mounts:
/// libcontainer would mount it writable whatever the options say, and a container could lift its own limits.
fn cgroup(input: &Input<'_>) -> Vec<Entry> {
    let access = if input.container.security.privileged { "rw" } else { "ro" };
    let safe = ["nosuid", "noexec", "nodev", "relatime", access];
    let root = "/sys/fs/cgroup";
    match &input.host.cgroup {
        CgroupLayout::V2(_) => vec![Entry::new(root, "cgroup", "cgroup", &safe)],
        CgroupLayout::V1(controllers) => {
            // Only the mount points go into this file system: it needs next to no room.
            let options = ["nosuid", "noexec", "nodev", "mode=755", "size=64k", "nr_inodes=64"];
            let mut entries = vec![Entry::new(root, "tmpfs", "tmpfs", &options)];
            let bind = |c: &Controller| {
                let source = c.mountpoint.join(input.cgroup.folder.trim_start_matches('/'));
                let options = ["rbind", "nosuid", "noexec", "nodev", access];
                Entry::new(&format!("{root}/{}", c.name), "bind", &source.to_string_lossy(), &options)
            };
            entries.extend(controllers.iter().map(bind));
            entries
        }
    }
}

/// Files and folders that the pod gives to all its containers.
fn pod_files(input: &Input<'_>, sharing: Sharing) -> Result<Vec<Entry>, SpecError> {
    let facts = &input.sandbox_facts;
    let host_shm = Path::new("/dev/shm");
    let shm = facts.shm.filter(|_| !sharing.host_ipc).unwrap_or(host_shm);
    let access = if input.container.security.readonly_rootfs { "ro" } else { "rw" };
    let safe = ["rbind", "nosuid", "noexec", "nodev"];
    let mut entries =
        vec![Entry::new("/dev/shm", "bind", text("sandbox.shm", shm)?, &[&safe[..], &["rw"]].concat())];
    for (destination, file) in [
        ("/etc/resolv.conf", facts.resolv_conf),
        ("/etc/hostname", facts.hostname),
        ("/etc/hosts", facts.hosts),
    ] {
        if let Some(file) = file {
            entries.push(Entry::new(
                destination,
                "bind",
                text(destination, file)?,
                &[&safe[..], &[access]].concat(),
            ));
        }
    }
    Ok(entries)
}

/// A path as JSON can carry it.
fn text<'a>(field: &str, path: &'a Path) -> Result<&'a str, SpecError> {
    let reason = || format!("{} is not UTF-8, which a runtime spec cannot express", path.display());
    path.to_str().ok_or_else(|| SpecError::invalid(field, reason()))
}

/// Where mount `i` of the request is staged.
fn staging(input: &Input<'_>, i: usize) -> PathBuf {
    input.idmap_staging.join(i.to_string())
}
