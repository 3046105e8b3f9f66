//! Mounts that the daemon itself makes and removes: a pod's shared memory, pinned namespaces, its own state folder.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
};

/// Mounts a tmpfs (`tmpfs(5)` options) that runs no programs and has no devices.
pub fn tmpfs(at: &Path, options: &str) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    Ok(mount(Some("shm"), at, Some("tmpfs"), flags, Some(options))?)
}

/// Keeps a namespace (`/proc/<pid>/ns/<kind>`) alive at `at`, which is made.
pub fn pin(namespace: &Path, at: &Path) -> io::Result<()> {
    fs::OpenOptions::new().write(true).create_new(true).open(at)?;
    let bound = mount(Some(namespace), at, None::<&str>, MsFlags::MS_BIND, None::<&str>);
    if bound.is_err() {
        // Nothing half-made stays; the error that counts is the mount's.
        let _ = fs::remove_file(at);
    }
    Ok(bound?)
}

/// Detaches what is mounted at `at`, all layers of it. Nothing mounted, or nothing there, is fine.
pub fn unmount_if_mounted(at: &Path) -> io::Result<()> {
    loop {
        match umount2(at, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            // EINVAL: it is no mount point.
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Makes `folder` a mount of its own that passes no mounts on: what is mounted below it in another mount namespace stays
/// there, even where the host's root is shared. May be repeated.
pub fn make_private(folder: &Path) -> io::Result<()> {
    let none = None::<&str>;
    if !is_mountpoint(folder)? {
        mount(Some(folder), folder, none, MsFlags::MS_BIND, none)?;
    }
    Ok(mount(none, folder, none, MsFlags::MS_PRIVATE, none)?)
}

/// Whether something is mounted exactly there (`/proc/self/mountinfo`, `proc(5)`).
pub fn is_mountpoint(folder: &Path) -> io::Result<bool> {
    let folder: PathBuf = fs::canonicalize(folder)?;
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    let folder = folder.to_string_lossy();
    Ok(text.lines().filter_map(|line| line.split(' ').nth(4)).any(|at| at == folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_come_and_go() {
        let folder = tempfile::tempdir().expect("folder");
        let at = folder.path().join("shm");
        unmount_if_mounted(&at).expect("nothing there is fine");
        fs::create_dir(&at).expect("folder");
        unmount_if_mounted(&at).expect("nothing mounted is fine");
        tmpfs(&at, "mode=1777,size=65536").expect("tmpfs");
        assert!(is_mountpoint(&at).expect("look"));
        make_private(&at).expect("private");
        unmount_if_mounted(&at).expect("unmount");
        assert!(!is_mountpoint(&at).expect("look"));
    }

    #[test]
    fn a_namespace_is_pinned() {
        let folder = tempfile::tempdir().expect("folder");
        let at = folder.path().join("net");
        pin(Path::new("/proc/self/ns/net"), &at).expect("pin");
        use std::os::unix::fs::MetadataExt;
        let inode = |p: &Path| fs::metadata(p).expect("stat").ino();
        assert_eq!(inode(&at), inode(Path::new("/proc/self/ns/net")));
        assert!(pin(Path::new("/proc/self/ns/net"), &at).is_err(), "pinned twice");
        unmount_if_mounted(&at).expect("unpin");
        let missing = folder.path().join("other");
        assert!(pin(Path::new("/proc/self/ns/nothing"), &missing).is_err());
        assert!(!missing.exists());
    }
}
