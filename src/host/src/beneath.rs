//! Opening paths that somebody else chose, without leaving the folder they belong to (`openat2(2)`, Linux 5.6).
//!
//! Stateless. The kernel does the confinement while it walks the path, so nothing that changes meanwhile can escape.
#![allow(unsafe_code)]

use std::{
    ffi::CString,
    io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
};

/// How symbolic links on the way are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// Followed as if the root were `/`, as a process in a chroot would see them (`RESOLVE_IN_ROOT`).
    InRoot,
    /// Any link on the way is an error (`ELOOP`).
    Refuse,
}

/// Opens `path` with `open(2)` flags, confined to `root`. Magic links are never followed. `O_CLOEXEC` is added.
pub fn open_beneath(root: impl AsFd, path: &[u8], flags: i32, links: Links) -> io::Result<OwnedFd> {
    let path = CString::new(path).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: open_how is a plain struct of integers, for which all zeroes is valid; the kernel demands that
    // everything not set is zero.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (flags | libc::O_CLOEXEC) as u64;
    how.resolve = libc::RESOLVE_NO_MAGICLINKS
        | match links {
            Links::InRoot => libc::RESOLVE_IN_ROOT,
            Links::Refuse => libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS,
        };
    loop {
        // SAFETY: the descriptor is borrowed for the call, the path is NUL-terminated, `how` is a valid open_how of
        // the size given. The result is checked.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_openat2,
                root.as_fd().as_raw_fd(),
                path.as_ptr(),
                &how,
                std::mem::size_of::<libc::open_how>(),
            )
        };
        if fd >= 0 {
            // SAFETY: a fresh descriptor that nobody else owns. Descriptors fit RawFd.
            return Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) });
        }
        let error = io::Error::last_os_error();
        // EAGAIN: a rename or mount raced with the walk, and the kernel could not prove that nothing escaped.
        if !matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_the_root_can_be_opened() {
        let root = std::env::temp_dir().join(format!("crisp-beneath-{}", std::process::id()));
        std::fs::create_dir_all(root.join("inner/etc")).expect("folders");
        std::fs::write(root.join("outside"), b"no").expect("file");
        std::fs::write(root.join("inner/etc/passwd"), b"inner").expect("file");
        for (link, target) in
            [("up", "../outside"), ("abs", "/etc/passwd"), ("dir", "/etc"), ("self", "self")]
        {
            std::os::unix::fs::symlink(target, root.join("inner").join(link)).expect("link");
        }
        let fd = std::fs::File::open(root.join("inner")).expect("root");
        let open = |path: &str, links| open_beneath(&fd, path.as_bytes(), libc::O_RDONLY, links);

        for inside in ["etc/passwd", "abs", "dir/passwd", "/etc/passwd", "../../etc/passwd"] {
            assert!(open(inside, Links::InRoot).is_ok(), "{inside}");
        }
        for refused in ["up", "../outside", "self", "dir/../../outside"] {
            assert!(open(refused, Links::InRoot).is_err(), "{refused}");
        }
        for refused in ["abs", "dir/passwd", "/etc/passwd", "../outside", "up"] {
            assert!(open(refused, Links::Refuse).is_err(), "{refused}");
        }
        assert!(open("etc/passwd", Links::Refuse).is_ok());
        std::fs::remove_dir_all(&root).expect("clean up");
    }
}
