//! Extended attributes (`xattr(7)`), which nix does not offer.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

/// Sets an attribute of an open file or folder. Not for `O_PATH` descriptors.
pub fn set(fd: impl AsFd, name: &CStr, value: &[u8]) -> io::Result<()> {
    // SAFETY: a borrowed descriptor, a NUL-terminated name, and a buffer of the length given.
    let done = unsafe {
        libc::fsetxattr(fd.as_fd().as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    };
    check(done).map(|_| ())
}

/// Sets an attribute of `name` in an open folder, of the link itself if it is one.
pub fn set_at(folder: BorrowedFd<'_>, name: &[u8], attribute: &CStr, value: &[u8]) -> io::Result<()> {
    let path = path_at(folder, name)?;
    // SAFETY: two NUL-terminated strings and a buffer of the length given.
    let done =
        unsafe { libc::lsetxattr(path.as_ptr(), attribute.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    check(done).map(|_| ())
}

/// Reads an attribute of `name` in an open folder, of the link itself if it is one. `None`: it has none of that name.
pub fn get_at(folder: BorrowedFd<'_>, name: &[u8], attribute: &CStr) -> io::Result<Option<Vec<u8>>> {
    let path = path_at(folder, name)?;
    let mut value = vec![0; 64 << 10]; // XATTR_SIZE_MAX, so that one call is always enough
    // SAFETY: two NUL-terminated strings and a buffer of the length given.
    let length =
        unsafe { libc::lgetxattr(path.as_ptr(), attribute.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    match check(length as libc::c_int) {
        Ok(length) => {
            value.truncate(length as usize);
            Ok(Some(value))
        }
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENODATA | libc::EOPNOTSUPP)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Names of all attributes of `name` in an open folder, of the link itself if it is one.
pub fn list_at(folder: BorrowedFd<'_>, name: &[u8]) -> io::Result<Vec<CString>> {
    let path = path_at(folder, name)?;
    let mut names = vec![0u8; 64 << 10]; // XATTR_LIST_MAX
    // SAFETY: a NUL-terminated string and a buffer of the length given.
    let length = unsafe { libc::llistxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    match check(length as libc::c_int) {
        Ok(length) => names.truncate(length as usize),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    }
    Ok(names.split(|b| *b == 0).filter(|n| !n.is_empty()).filter_map(|n| CString::new(n).ok()).collect())
}

/// The l*xattr calls take no folder; /proc/self/fd names one without a race, and the last component is not followed.
fn path_at(folder: BorrowedFd<'_>, name: &[u8]) -> io::Result<CString> {
    let mut path = format!("/proc/self/fd/{}/", folder.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    CString::new(path).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_read_and_listed() {
        let path = std::env::temp_dir().join(format!("crisp-xattr-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("folder");
        let file = std::fs::File::create(path.join("file")).expect("file");
        let folder = std::fs::File::open(&path).expect("open");
        set(&file, c"trusted.crisp", b"one").expect("set by descriptor");
        set_at(folder.as_fd(), b"file", c"trusted.second", b"").expect("set by name");
        assert_eq!(get_at(folder.as_fd(), b"file", c"trusted.crisp").expect("get"), Some(b"one".to_vec()));
        assert_eq!(get_at(folder.as_fd(), b"file", c"trusted.none").expect("get"), None);
        let names = list_at(folder.as_fd(), b"file").expect("list");
        assert!(names.iter().any(|n| n.as_c_str() == c"trusted.crisp"));
        assert!(names.iter().any(|n| n.as_c_str() == c"trusted.second"));
        std::fs::remove_dir_all(&path).expect("clean up");
    }
}
