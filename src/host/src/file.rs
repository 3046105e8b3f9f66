//! Files that are either the old or the new, never half of one.
//!
//! Owns no state. A crash at any point of [`replace_atomically`] leaves the old file, or the new one, and at most a
//! temporary file whose name starts with [`TEMPORARY_PREFIX`], which whoever owns the folder removes when it starts.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::{
        fd::AsFd,
        unix::fs::{OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// Files with this prefix in a folder of records were left by a crash and mean nothing.
pub const TEMPORARY_PREFIX: &str = ".tmp-";

/// Writes `bytes` to `path` (mode 0600) so that after a crash or a power loss the file is the old or the new one:
/// temporary file in the same folder, fsync, rename, fsync of the folder.
pub fn replace_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_atomically_with_mode(path, bytes, 0o600)
}

/// [`replace_atomically`] with the permissions of the new file.
pub fn replace_atomically_with_mode(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let temporary = temporary_name(folder);
    let done = write_synced(&temporary, bytes, mode).and_then(|()| std::fs::rename(&temporary, path));
    if let Err(error) = done {
        // The error that matters is the first one; a temporary file that stays is harmless.
        let _ = std::fs::remove_file(&temporary);
        return Err(error);
    }
    sync_folder(folder)
}

/// Makes a folder, with those above it, that nobody but its owner can enter: also one that was there already. Programs of images
/// and containers lie below some, set-user-id ones among them, which no user of the host may reach.
pub fn private_folder(path: &Path) -> io::Result<()> {
    std::fs::create_dir_all(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
}

/// Makes the names in a folder durable.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Writes everything of the file system that holds `fd` to its disk (`syncfs(2)`), reporting write-back errors.
pub fn sync_filesystem(fd: impl AsFd) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    nix::unistd::syncfs(fd.as_fd().as_raw_fd()).map_err(io::Error::from)
}

fn temporary_name(folder: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let serial = NEXT.fetch_add(1, Ordering::Relaxed);
    folder.join(format!("{TEMPORARY_PREFIX}{}-{serial}", std::process::id()))
}

fn write_synced(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    // A leftover of a crashed process with the same pid is overwritten, never followed if it is a link.
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path)?;
    // The creation mode is subject to the umask, this is not.
    file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("crisp-file-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("folder");
        folder
    }

    #[test]
    fn the_new_bytes_replace_the_old_and_nothing_else_stays() {
        let folder = folder("replace");
        let path = folder.join("record.json");
        for bytes in [b"first".as_slice(), b"the second, longer", b"3"] {
            replace_atomically(&path, bytes).expect("replace");
            assert_eq!(std::fs::read(&path).expect("read"), bytes);
        }
        assert_eq!(std::fs::metadata(&path).expect("stat").permissions().mode() & 0o7777, 0o600);
        assert_eq!(std::fs::read_dir(&folder).expect("list").count(), 1);
        std::fs::remove_dir_all(&folder).expect("clean up");
    }

    #[test]
    fn a_failure_leaves_no_temporary_file() {
        let folder = folder("fail");
        let path = folder.join("record.json");
        std::fs::create_dir(&path).expect("a folder in the way");
        assert!(replace_atomically(&path, b"x").is_err());
        assert_eq!(std::fs::read_dir(&folder).expect("list").count(), 1);
        assert!(replace_atomically(&folder.join("missing/record"), b"x").is_err());
        std::fs::remove_dir_all(&folder).expect("clean up");
    }
}
