//! The container's view of its cgroups on version 1: a small file system with one bind mount for each hierarchy.
//!
//! libcontainer looks at the container's root file system some seventy times for each mount in it, which is right for what
//! an image may have put there, and for nothing here. So the worker puts these mounts together in a place of its own, and libcontainer
//! mounts the whole. They go with the worker's mount namespace.

use std::{
    fs,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use crisp_host::mount as by_fd;
use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};

use crate::process::{Failure, failed, host, rootfs};

/// Where containers see them.
const AT: &str = "/sys/fs/cgroup";

/// A hierarchy: its name below [`AT`], the cgroup's folder, whether it may be written to.
#[derive(Debug, PartialEq, Eq)]
struct Bind {
    name: String,
    source: PathBuf,
    writable: bool,
}

/// Mounts at `staging` what the spec wants below [`AT`] of the container's own cgroup, whose folders are `own`, and has the
/// spec bind that. Leaves the spec as it is if it wants something else there.
pub(super) fn stage(spec: &mut Value, own: &[PathBuf], staging: &Path) -> Result<(), Failure> {
    let binds = take(spec, own, staging);
    if binds.is_empty() {
        return Ok(());
    }
    let operation = || format!("mount the container's cgroups at {}", staging.display());
    fs::create_dir_all(staging).map_err(host(operation()))?;
    rootfs::isolate(staging);
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    // Only the mount points go into this file system: it needs next to no room.
    let options = Some("mode=755,size=64k,nr_inodes=64");
    mount(Some("tmpfs"), staging, Some("tmpfs"), flags, options).map_err(failed(operation()))?;
    for bind in &binds {
        let target = staging.join(&bind.name);
        let mounted = fs::create_dir(&target).and_then(|()| {
            let tree = by_fd::clone_tree(&bind.source, true)?;
            let safe = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
            let access = if bind.writable { 0 } else { libc::MOUNT_ATTR_RDONLY };
            by_fd::set_attributes(tree.as_fd(), safe | access, None, true)?;
            by_fd::attach(tree.as_fd(), &target)
        });
        mounted.map_err(host(format!("mount {} at {}", bind.source.display(), target.display())))?;
    }
    Ok(())
}

/// Takes the binds of the container's own cgroup out of the spec, and puts the whole in the place of the file system they were in.
fn take(spec: &mut Value, own: &[PathBuf], staging: &Path) -> Vec<Bind> {
    let mut binds = Vec::new();
    let Some(mounts) = spec.pointer_mut("/mounts").and_then(Value::as_array_mut) else { return binds };
    let text =
        |mount: &Value, key: &str| mount.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let Some(whole) = mounts.iter().position(|m| text(m, "destination") == AT && text(m, "type") == "tmpfs")
    else {
        return binds;
    };
    mounts[whole] = json!({"destination": AT, "type": "bind", "source": staging,
                           "options": ["rbind", "nosuid", "noexec", "nodev"]});
    mounts.retain(|mount| {
        let destination = text(mount, "destination");
        let name = destination.strip_prefix(AT).and_then(|rest| rest.strip_prefix('/'));
        let source = PathBuf::from(text(mount, "source"));
        let (Some(name), true) = (name.filter(|name| !name.contains('/')), own.contains(&source)) else {
            return true;
        };
        let options = mount.get("options").and_then(Value::as_array);
        let writable = options.is_some_and(|all| all.iter().any(|o| o == "rw"));
        binds.push(Bind { name: name.to_owned(), source, writable });
        false
    });
    binds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_cgroups_are_taken_and_volumes_stay() {
        let own = ["/sys/fs/cgroup/memory/pod/c".into(), "/sys/fs/cgroup/cpu/pod/c".into()];
        let bind = |at: &str, source: &str, access: &str| {
            json!({"destination": at, "type": "bind", "source": source,
                                                                 "options": ["rbind", access]})
        };
        let mut spec = json!({"mounts": [
            {"destination": "/sys", "type": "sysfs"},
            {"destination": AT, "type": "tmpfs", "source": "tmpfs"},
            bind("/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/pod/c", "ro"),
            bind("/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu/pod/c", "rw"),
            bind("/sys/fs/cgroup/pids", "/somewhere", "ro"),
            bind("/data", "/sys/fs/cgroup/cpu/pod/c", "ro")]});
        let binds = take(&mut spec, &own, Path::new("/s"));
        let found: Vec<_> = binds.iter().map(|b| (b.name.as_str(), b.writable)).collect();
        assert_eq!(found, [("memory", false), ("cpu", true)]);
        let left: Vec<_> = spec["mounts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| (m["destination"].as_str().unwrap(), m["type"].as_str().unwrap()))
            .collect();
        let expected = [("/sys", "sysfs"), (AT, "bind"), ("/sys/fs/cgroup/pids", "bind"), ("/data", "bind")];
        assert_eq!(left, expected);
        assert_eq!(spec["mounts"][1]["source"], "/s");
    }

    #[test]
    fn a_volume_at_the_root_is_left_alone() {
        let mut spec = json!({"mounts": [{"destination": AT, "type": "bind", "source": "/sys/fs/cgroup"}]});
        let before = spec.clone();
        assert_eq!(take(&mut spec, &["/sys/fs/cgroup/cpu/c".into()], Path::new("/s")), []);
        assert_eq!(spec, before);
    }
}
