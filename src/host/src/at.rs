//! `openat(2)` with owned descriptors; nix 0.29 returns bare numbers here.
#![allow(unsafe_code)]

use std::{
    ffi::CString,
    io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
};

/// Opens one name in an open folder. `O_CLOEXEC` is added; pass `O_NOFOLLOW` to refuse links. `name` must not contain
/// a slash, so that no other folder can be meant.
pub fn open_at(folder: impl AsFd, name: &[u8], flags: i32, mode: u32) -> io::Result<OwnedFd> {
    if name.contains(&b'/') || name == b".." {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let name = CString::new(name).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    loop {
        // SAFETY: a borrowed descriptor and a NUL-terminated name; the mode is passed as the variadic argument needs.
        let fd =
            unsafe { libc::openat(folder.as_fd().as_raw_fd(), name.as_ptr(), flags | libc::O_CLOEXEC, mode) };
        if fd >= 0 {
            // SAFETY: a fresh descriptor that nobody else owns.
            return Ok(unsafe { OwnedFd::from_raw_fd(fd) });
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_in_the_folder_itself() {
        let folder = std::fs::File::open(std::env::temp_dir()).expect("folder");
        for bad in [&b"a/b"[..], b"..", b"/etc", b"a\0b"] {
            let error = open_at(&folder, bad, libc::O_RDONLY, 0).expect_err("refused");
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{bad:?}");
        }
        assert!(open_at(&folder, b".", libc::O_RDONLY | libc::O_DIRECTORY, 0).is_ok());
    }
}
