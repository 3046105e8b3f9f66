//! Owners, modes, times and extended attributes of what was unpacked.

use std::{
    ffi::CString,
    os::fd::{AsRawFd, BorrowedFd},
};

use crisp_host::xattr;
use nix::{
    errno::Errno,
    fcntl::AtFlags,
    sys::{
        stat::{FileStat, Mode, UtimensatFlags, fchmod, futimens, utimensat},
        time::TimeSpec,
    },
    unistd::{Gid, Uid, fchown, fchownat},
};

use super::{archive::Entry, tree::TreeError};

/// What an entry says about a file beside its content.
#[derive(Debug, Clone)]
pub(crate) struct Attributes {
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: (i64, u32),
    atime: (i64, u32),
    xattrs: Vec<(CString, Vec<u8>)>,
}

impl Attributes {
    /// Memory it takes.
    pub(crate) fn size(&self) -> usize {
        let xattrs = self.xattrs.iter().map(|(name, value)| name.as_bytes().len() + value.len() + 64);
        size_of::<Self>() + xattrs.sum::<usize>()
    }

    pub(crate) fn of(entry: Entry) -> Self {
        let keep =
            |(name, value): (Vec<u8>, Vec<u8>)| is_wanted(&name).then_some((CString::new(name).ok()?, value));
        Self {
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            atime: entry.atime.unwrap_or(entry.mtime),
            xattrs: entry.xattrs.into_iter().filter_map(keep).collect(),
        }
    }
}

/// overlayfs' own attributes would let an archive redirect names to other files; labels are the host's to give.
pub(crate) fn is_wanted(name: &[u8]) -> bool {
    !name.starts_with(b"trusted.overlay.")
        && !name.starts_with(b"user.overlay.")
        && name != b"security.selinux"
}

/// To an open file or folder, which is as `now` says; what is right already is not set again, since most entries
/// belong to root and have everyday modes. The order matters: chown drops setuid bits and capabilities.
pub(crate) fn apply_to_file(
    file: BorrowedFd<'_>,
    now: &FileStat,
    attributes: &Attributes,
) -> Result<(), TreeError> {
    let fd = file.as_raw_fd();
    let mut mode = now.st_mode & 0o7777;
    if (now.st_uid, now.st_gid) != (attributes.uid, attributes.gid) {
        fchown(fd, Some(Uid::from_raw(attributes.uid)), Some(Gid::from_raw(attributes.gid)))
            .map_err(TreeError::host("setting the owner"))?;
        mode &= 0o1777;
    }
    if mode != attributes.mode || mode & 0o6000 != 0 {
        fchmod(fd, Mode::from_bits_truncate(attributes.mode)).map_err(TreeError::host("setting the mode"))?;
    }
    for (name, value) in &attributes.xattrs {
        tolerate(name, xattr::set(file, name, value))?;
    }
    let (atime, mtime) = times(attributes);
    futimens(fd, &atime, &mtime).map_err(TreeError::host("setting the times"))
}

/// To a link, device or pipe, by name and without following. Modes are left alone: links have none.
pub(crate) fn apply_to_name(
    folder: BorrowedFd<'_>,
    name: &[u8],
    attributes: &Attributes,
) -> Result<(), TreeError> {
    let fd = Some(folder.as_raw_fd());
    let (uid, gid) = (Some(Uid::from_raw(attributes.uid)), Some(Gid::from_raw(attributes.gid)));
    fchownat(fd, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)
        .map_err(TreeError::host("setting the owner"))?;
    for (key, value) in &attributes.xattrs {
        tolerate(key, xattr::set_at(folder, name, key, value))?;
    }
    let (atime, mtime) = times(attributes);
    utimensat(fd, name, &atime, &mtime, UtimensatFlags::NoFollowSymlink)
        .map_err(TreeError::host("setting the times"))
}

fn times(attributes: &Attributes) -> (TimeSpec, TimeSpec) {
    let spec = |(seconds, nanos): (i64, u32)| TimeSpec::new(seconds, nanos.into());
    (spec(attributes.atime), spec(attributes.mtime))
}

/// File systems differ in what attributes they keep; only a capability that is lost would break a program.
fn tolerate(name: &CString, result: std::io::Result<()>) -> Result<(), TreeError> {
    match result {
        Err(error)
            if name.as_c_str() != c"security.capability"
                && matches!(
                    error.raw_os_error().map(Errno::from_raw),
                    Some(Errno::EOPNOTSUPP | Errno::EPERM | Errno::EINVAL | Errno::ERANGE | Errno::E2BIG)
                ) =>
        {
            tracing::debug!(attribute = ?name, %error, "an extended attribute is left out");
            Ok(())
        }
        result => result.map_err(TreeError::io("setting an extended attribute")),
    }
}
