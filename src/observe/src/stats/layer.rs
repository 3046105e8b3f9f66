//! How much disk a container's writable layer takes.
//!
//! The files are the container's, which may rename and remove folders while they are counted, so nothing is opened
//! by a path of more than one name, no link is followed, and the way back up is checked. Whatever the tree's depth, two
//! descriptors are open.

use std::{
    collections::HashSet,
    ffi::{CStr, CString},
    io,
    os::fd::AsRawFd,
    path::Path,
};

use nix::{
    dir::{Dir, Type},
    errno::Errno,
    fcntl::{AtFlags, OFlag},
    sys::stat::{FileStat, Mode, fstat, fstatat},
};

/// Files with several names are remembered, so that each counts once: at most this many (16 bytes each). Beyond it
/// names are counted, which errs on the side of too much.
const MAX_LINKED: usize = 65_536;

/// Size of a tree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TreeSize {
    /// Allocated, not apparent, bytes.
    pub bytes: u64,
    /// Files, folders and everything else, the top folder included.
    pub inodes: u64,
}

/// A folder on the way down.
struct Level {
    identity: (u64, u64),
    /// Folders in it that are still to be counted.
    pending: Vec<CString>,
}

/// Counts what is on the top folder's file system at and below it. Folders that change while they are counted may be
/// missed; the next count finds them.
pub fn measure(top: &Path) -> io::Result<TreeSize> {
    let mut current = Dir::open(top, flags(), Mode::empty())?;
    let stat = fstat(current.as_raw_fd())?;
    let device = stat.st_dev;
    let mut count = Counter { linked: HashSet::new(), size: TreeSize::default() };
    count.add(&stat);
    let mut levels =
        vec![Level { identity: identity(&stat), pending: list(&mut current, device, &mut count)? }];
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.pending.pop() else {
            levels.pop();
            let Some(parent) = levels.last() else { break };
            let up = Dir::openat(Some(current.as_raw_fd()), c"..", flags(), Mode::empty())?;
            if identity(&fstat(up.as_raw_fd())?) != parent.identity {
                // Somebody moved a folder on our way: what is above it cannot be reached safely any more.
                return Err(io::Error::from_raw_os_error(libc::ESTALE));
            }
            current = up;
            continue;
        };
        let mut child = match Dir::openat(Some(current.as_raw_fd()), name.as_c_str(), flags(), Mode::empty())
        {
            Ok(child) => child,
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => continue,
            Err(errno) => return Err(errno.into()),
        };
        let stat = fstat(child.as_raw_fd())?;
        if stat.st_dev != device {
            continue;
        }
        let pending = list(&mut child, device, &mut count)?;
        levels.push(Level { identity: identity(&stat), pending });
        current = child;
    }
    Ok(count.size)
}

fn flags() -> OFlag {
    OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NOATIME
}

fn identity(stat: &FileStat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

/// Counts a folder's entries and returns those that are folders.
fn list(dir: &mut Dir, device: u64, count: &mut Counter) -> io::Result<Vec<CString>> {
    let fd = dir.as_raw_fd();
    let mut folders = Vec::new();
    for entry in dir.iter() {
        let entry = entry?;
        let name: &CStr = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = match fstatat(Some(fd), name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::ENOENT) => continue,
            Err(errno) => return Err(errno.into()),
        };
        if stat.st_dev != device {
            continue;
        }
        count.add(&stat);
        let is_folder = match entry.file_type() {
            Some(kind) => kind == Type::Directory,
            None => stat.st_mode & libc::S_IFMT == libc::S_IFDIR,
        };
        if is_folder {
            folders.push(name.to_owned());
        }
    }
    Ok(folders)
}

struct Counter {
    linked: HashSet<u64>,
    size: TreeSize,
}

impl Counter {
    fn add(&mut self, stat: &FileStat) {
        let is_folder = stat.st_mode & libc::S_IFMT == libc::S_IFDIR;
        if stat.st_nlink > 1 && !is_folder {
            let known = self.linked.contains(&stat.st_ino);
            if known {
                return;
            }
            if self.linked.len() < MAX_LINKED {
                self.linked.insert(stat.st_ino);
            }
        }
        // st_blocks counts 512 bytes whatever the file system's block is (stat(2)).
        self.size.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
        self.size.inodes += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn names_of_one_file_count_once_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let big = dir.path().join("big");
        fs::write(&big, vec![1u8; 1 << 20]).unwrap();
        fs::File::open(&big).unwrap().sync_all().unwrap();
        let one = measure(dir.path()).unwrap();
        assert!(one.bytes >= 1 << 20, "{one:?}");
        assert_eq!(one.inodes, 2);

        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::hard_link(&big, dir.path().join("sub/again")).unwrap();
        symlink("/", dir.path().join("sub/root")).unwrap();
        let two = measure(dir.path()).unwrap();
        assert_eq!(two.inodes, 4, "the folder and the link are new, the name is not");
        assert!(two.bytes - one.bytes <= 8192, "{one:?} {two:?}");
    }

    #[test]
    fn depth_costs_no_descriptors_and_no_path_length() {
        let dir = tempfile::tempdir().unwrap();
        // Deeper than a path can be long: only relative names get there.
        let mut here = Dir::open(dir.path(), flags(), Mode::empty()).unwrap();
        let name = "d".repeat(200);
        for _ in 0..300 {
            nix::sys::stat::mkdirat(Some(here.as_raw_fd()), name.as_str(), Mode::S_IRWXU).unwrap();
            here = Dir::openat(Some(here.as_raw_fd()), name.as_str(), flags(), Mode::empty()).unwrap();
        }
        drop(here);
        assert_eq!(measure(dir.path()).unwrap().inodes, 301);
    }

    #[test]
    fn apparent_size_is_not_disk() {
        let dir = tempfile::tempdir().unwrap();
        let file = fs::File::create(dir.path().join("sparse")).unwrap();
        file.set_len(1 << 30).unwrap();
        assert!(measure(dir.path()).unwrap().bytes < 1 << 20);
    }

    #[test]
    fn a_missing_tree_is_an_error() {
        assert_eq!(measure(Path::new("/nonexistent")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
