//! User namespaces and id-mapped mounts.
#![allow(unsafe_code)]

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    sys::wait::{WaitPidFlag, waitpid},
    unistd::Pid,
};

use super::Ability;
use crate::mount;

/// A map that shifts every id, as a pod's does.
const MAP: &str = "0 100000 65536\n";

/// A user namespace with a map, held by its descriptor alone.
pub(super) fn user_namespace() -> io::Result<OwnedFd> {
    // SAFETY: no memory is shared (no CLONE_VM) and no pointer passed. The child makes only one system call, which needs
    // no lock of a thread that is not there. It sends nobody a signal when it ends.
    let pid = Errno::result(unsafe { libc::syscall(libc::SYS_clone, libc::CLONE_NEWUSER, 0, 0, 0, 0) })?;
    if pid == 0 {
        loop {
            // SAFETY: no pointers that the kernel follows: nothing is to be waited for, and there is no timeout.
            unsafe { libc::syscall(libc::SYS_ppoll, 0, 0, 0, 0, 0) };
        }
    }
    let pid = Pid::from_raw(i32::try_from(pid).map_err(io::Error::other)?);
    let namespace = mapped(pid);
    // It is ours, not reaped yet, so the number is its.
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL)?;
    waitpid(pid, Some(WaitPidFlag::__WALL))?;
    namespace
}

fn mapped(pid: Pid) -> io::Result<OwnedFd> {
    fs::write(format!("/proc/{pid}/uid_map"), MAP)?;
    fs::write(format!("/proc/{pid}/gid_map"), MAP)?;
    Ok(File::open(format!("/proc/{pid}/ns/user"))?.into())
}

/// Whether the file system at `path` can be mounted with mapped ids.
pub(super) fn try_path(namespace: &io::Result<OwnedFd>, path: &Path) -> Ability {
    match namespace {
        Ok(namespace) => Ability::of(clone_mapped(namespace, path)),
        Err(error) => Ability::no(format!("no user namespace: {error}")),
    }
}

/// An unattached, mapped clone of the mount at `path`.
pub(super) fn clone_mapped(namespace: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let clone = mount::clone_tree(path, false)?;
    mount::set_attributes(clone.as_fd(), 0, Some(namespace.as_fd()), false)?;
    Ok(clone)
}
