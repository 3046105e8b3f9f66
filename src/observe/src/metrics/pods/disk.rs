//! The file system that a writable layer is on.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use nix::sys::{
    stat::{major, minor},
    statvfs::statvfs,
};

/// A file system.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) device: String,
    pub(super) bytes: u64,
    pub(super) inodes: u64,
    pub(super) inodes_free: u64,
}

impl Disk {
    /// `None`: the layer is gone.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let device = fs::symlink_metadata(path).ok()?.dev();
        let stat = statvfs(path).ok()?;
        let number = |n: u64| u32::try_from(n).unwrap_or(0);
        Some(Self {
            device: device_name(number(major(device)), number(minor(device))),
            bytes: stat.blocks().saturating_mul(stat.fragment_size()),
            inodes: stat.files(),
            inodes_free: stat.files_free(),
        })
    }
}

/// `/dev/vda`; `8:0` for one that the kernel has no name for (overlay, tmpfs).
pub(super) fn device_name(major: u32, minor: u32) -> String {
    let text = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/uevent")).unwrap_or_default();
    match text.lines().find_map(|line| line.strip_prefix("DEVNAME=")) {
        Some(name) => format!("/dev/{name}"),
        None => format!("{major}:{minor}"),
    }
}
