//! Mounts by descriptor (`fsopen(2)`, `open_tree(2)`, `mount_setattr(2)`) and what nix has no name for.
//!
//! Owns nothing: a mount that is not attached dies with its descriptor. Changes the mount namespace of the calling process.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString},
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use nix::{errno::Errno, libc};

const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;

/// Longest value that `fsconfig(2)` takes as a string, without the terminator.
pub const LONGEST_VALUE: usize = 255;

fn c(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from)
}

fn descriptor(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = Errno::result(result)?;
    // SAFETY: callers pass the result of a call that makes a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// A file system being configured (`fsopen(2)`).
#[derive(Debug)]
pub struct NewFilesystem(OwnedFd);

impl NewFilesystem {
    /// Begins one of this type. `ENOSYS` before Linux 5.2.
    pub fn open(kind: &CStr) -> io::Result<Self> {
        // SAFETY: a C string that lives over the call.
        descriptor(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) }).map(Self)
    }

    fn config(&self, command: libc::c_uint, key: Option<&CStr>, value: Option<&CStr>) -> io::Result<()> {
        let pointer = |s: Option<&CStr>| s.map_or(std::ptr::null(), CStr::as_ptr);
        // SAFETY: null or C strings that live over the call.
        let result = unsafe {
            libc::syscall(libc::SYS_fsconfig, self.0.as_raw_fd(), command, pointer(key), pointer(value), 0)
        };
        Errno::result(result)?;
        Ok(())
    }

    /// An option with a value.
    pub fn set(&self, key: &CStr, value: &CStr) -> io::Result<()> {
        self.config(FSCONFIG_SET_STRING, Some(key), Some(value))
    }

    /// An option without one.
    pub fn flag(&self, key: &CStr) -> io::Result<()> {
        self.config(FSCONFIG_SET_FLAG, Some(key), None)
    }

    /// Makes the file system and a mount of it that is attached nowhere yet. `attributes`: `MOUNT_ATTR_…`.
    pub fn mount(&self, attributes: u64) -> io::Result<OwnedFd> {
        self.config(FSCONFIG_CMD_CREATE, None, None)?;
        // SAFETY: no pointers.
        descriptor(unsafe {
            libc::syscall(libc::SYS_fsmount, self.0.as_raw_fd(), FSMOUNT_CLOEXEC, attributes as libc::c_uint)
        })
    }
}

/// A copy of the mount at `path`, with all that is mounted below it if `recursive`, attached nowhere.
pub fn clone_tree(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let path = c(path)?;
    let mut flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= libc::AT_RECURSIVE as libc::c_uint;
    }
    // SAFETY: a C string that lives over the call.
    descriptor(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })
}

/// Sets attributes of an unattached mount; with a user namespace, `MOUNT_ATTR_IDMAP` for its maps.
pub fn set_attributes(
    mount: BorrowedFd<'_>,
    attributes: u64,
    idmap: Option<BorrowedFd<'_>>,
    recursive: bool,
) -> io::Result<()> {
    // SAFETY: all zeros is a valid mount_attr.
    let mut change: libc::mount_attr = unsafe { std::mem::zeroed() };
    change.attr_set = attributes;
    if let Some(userns) = idmap {
        change.attr_set |= libc::MOUNT_ATTR_IDMAP;
        change.userns_fd = userns.as_raw_fd() as u64;
    }
    let at = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: a valid mount_attr of the size that is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            at,
            &raw const change,
            size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(result)?;
    Ok(())
}

/// Attaches a mount at `target`.
pub fn attach(mount: BorrowedFd<'_>, target: &Path) -> io::Result<()> {
    let target = c(target)?;
    // SAFETY: C strings that live over the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    Errno::result(result)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    /// Unattached mounts need no namespace of the test's own and leave nothing.
    #[test]
    fn a_file_system_that_is_attached_nowhere() {
        let new = NewFilesystem::open(c"tmpfs").unwrap();
        new.set(c"size", c"4096").unwrap();
        assert!(new.set(c"no-such-option", c"1").is_err());
        let mount = new.mount(libc::MOUNT_ATTR_NODEV).unwrap();
        std::fs::write(format!("/proc/self/fd/{}/file", mount.as_raw_fd()), "x").unwrap();
        set_attributes(mount.as_fd(), libc::MOUNT_ATTR_RDONLY, None, false).unwrap();
        let again = std::fs::write(format!("/proc/self/fd/{}/file", mount.as_raw_fd()), "x");
        assert_eq!(again.unwrap_err().raw_os_error(), Some(libc::EROFS));
    }

    #[test]
    fn a_tree_that_is_not_there() {
        let error = clone_tree(Path::new("/no/such/folder"), false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
