//! Where a file system puts new folders.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

/// `FS_TOPDIR_FL` of linux/fs.h, which libc lacks.
const TOPDIR: libc::c_int = 0x0002_0000;

/// Asks the file system to spread the folders made in this one over the disk, each near its own files, as if each were
/// the top of a tree (`chattr +T`, `ext4(5)`). ext4 otherwise keeps all of them in one group of blocks, where
/// parallel writers wait for each other, and, without a journal, each new file looks at every inode there that was
/// freed in the last minutes. Other file systems answer `EOPNOTSUPP`, `ENOTTY` or `EINVAL`: nothing is lost then.
pub fn spread_subfolders(folder: impl AsFd) -> io::Result<()> {
    let fd = folder.as_fd().as_raw_fd();
    let mut flags: libc::c_int = 0;
    // SAFETY: the kernel writes one int (despite the request's name), for which there is room.
    if unsafe { libc::ioctl(fd, libc::FS_IOC_GETFLAGS, &raw mut flags) } < 0 {
        return Err(io::Error::last_os_error());
    }
    if flags & TOPDIR != 0 {
        return Ok(());
    }
    flags |= TOPDIR;
    // SAFETY: the kernel reads one int.
    if unsafe { libc::ioctl(fd, libc::FS_IOC_SETFLAGS, &raw const flags) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_twice_or_politely_refused() {
        let path = std::env::temp_dir().join(format!("crisp-placement-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("folder");
        let folder = std::fs::File::open(&path).expect("open");
        let first = spread_subfolders(&folder).map_err(|e| e.raw_os_error());
        let second = spread_subfolders(&folder).map_err(|e| e.raw_os_error());
        assert_eq!(first, second);
        let refusals = [libc::EOPNOTSUPP, libc::ENOTTY, libc::EINVAL].map(|errno| Err(Some(errno)));
        assert!(first.is_ok() || refusals.contains(&first), "{first:?}");
        // Not a folder that could have the flag.
        let null = std::fs::File::open("/dev/null").expect("open");
        assert!(spread_subfolders(&null).is_err());
        std::fs::remove_dir_all(&path).expect("clean up");
    }
}
