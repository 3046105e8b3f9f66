//! SELinux: what the policy says of containers, whether it knows a label, and labels on files.
//!
//! A walk that dies in the middle leaves a tree with some files labelled; the next one goes over all of them again, and
//! changes those that are not right.

use std::{
    ffi::CStr,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::{MetadataExt, OpenOptionsExt},
        },
    },
    path::{Path, PathBuf},
};

use nix::{
    dir::Dir,
    fcntl::AtFlags,
    sys::stat::{SFlag, fstatat},
};

use crate::{
    beneath::{Links, open_beneath},
    xattr,
};

/// The attribute that holds a file's label (`xattr(7)`).
const ATTRIBUTE: &CStr = c"security.selinux";

/// Folders of the host. With the label of one pod's files on them, nothing else on the host could use them.
const NEVER: [&str; 24] = [
    "/", "/bin", "/boot", "/dev", "/etc", "/etc/pki", "/home", "/lib", "/lib32", "/lib64", "/media", "/mnt",
    "/opt", "/proc", "/root", "/run", "/sbin", "/srv", "/sys", "/tmp", "/usr", "/var", "/var/lib",
    "/var/log",
];

/// Trees of the host in which nothing is a volume.
const NEVER_BELOW: [&str; 4] = ["/usr", "/boot", "/proc", "/sys"];

/// The text of the policy's file with labels of containers. It belongs to the policy that the host is configured for.
pub fn container_contexts() -> io::Result<(PathBuf, String)> {
    let config = fs::read_to_string("/etc/selinux/config")?;
    let kind =
        policy_type(&config).ok_or_else(|| io::Error::other("/etc/selinux/config has no SELINUXTYPE"))?;
    let path = Path::new("/etc/selinux").join(kind).join("contexts/lxc_contexts");
    let text = fs::read_to_string(&path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    Ok((path, text))
}

fn policy_type(config: &str) -> Option<&str> {
    let mut values = config.lines().filter_map(|line| line.trim().strip_prefix("SELINUXTYPE="));
    values.next_back().map(str::trim).filter(|name| !name.is_empty() && !name.contains('/'))
}

/// Whether the loaded policy takes this label: an error if not.
pub fn check(label: &str) -> io::Result<()> {
    match fs::write("/sys/fs/selinux/context", label) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the loaded SELinux policy does not know this label",
        )),
        other => other,
    }
}

/// Labels one file or folder. A file system that keeps no labels is left as it is.
pub fn label(path: &Path, label: &str) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    };
    let folder = File::options().read(true).custom_flags(libc::O_DIRECTORY).open(parent)?;
    set(folder.as_fd(), name.as_bytes(), label)
}

/// Why a volume cannot be labelled.
#[derive(Debug, thiserror::Error)]
pub enum RelabelError {
    /// It belongs to the host.
    #[error("it is a folder of the host, and relabelling it would make it useless for everything else")]
    Refused,
    /// The kernel said no.
    #[error("label {}: {source}", path.display())]
    Failed {
        /// Of which file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// Labels a file, or a folder and everything below it on the same file system. Reads the label of each first, and writes those only
/// that are not right: a volume that was labelled before is not changed. `path` has no links in it. Links below it are not
/// followed; what disappears meanwhile is no error. Blocks as long as it takes to look at each file.
pub fn relabel(path: &Path, label: &str) -> Result<(), RelabelError> {
    if refused(path) {
        return Err(RelabelError::Refused);
    }
    let failed = |at: &Path| {
        let path = at.to_owned();
        move |source| RelabelError::Failed { path, source }
    };
    self::label(path, label).map_err(failed(path))?;
    let meta = fs::symlink_metadata(path).map_err(failed(path))?;
    if !meta.is_dir() {
        return Ok(());
    }
    let flags = libc::O_RDONLY | libc::O_DIRECTORY;
    let top =
        File::options().read(true).custom_flags(flags | libc::O_NOFOLLOW).open(path).map_err(failed(path))?;
    // Names of folders that are still to be looked into; one descriptor at a time is open, however deep they are.
    let mut waiting = vec![PathBuf::from(".")];
    while let Some(folder) = waiting.pop() {
        let opened = match open_beneath(&top, folder.as_os_str().as_bytes(), flags, Links::Refuse) {
            Err(error) if gone(&error) => continue,
            other => other.map_err(failed(&path.join(&folder)))?,
        };
        label_entries(opened, meta.dev(), label, |name| waiting.push(folder.join(name)))
            .map_err(failed(&path.join(&folder)))?;
    }
    Ok(())
}

/// Labels what lies in a folder, and names the folders in it.
fn label_entries(
    folder: OwnedFd,
    device: u64,
    label: &str,
    mut found: impl FnMut(&std::ffi::OsStr),
) -> io::Result<()> {
    let mut entries = Dir::from(folder.try_clone()?)?;
    for entry in entries.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = match fstatat(Some(folder.as_raw_fd()), name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(nix::errno::Errno::ENOENT) => continue,
            other => other?,
        };
        // Something else is mounted there.
        if stat.st_dev != device {
            continue;
        }
        match set(folder.as_fd(), name.to_bytes(), label) {
            Err(error) if gone(&error) => continue,
            other => other?,
        }
        if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR {
            found(std::ffi::OsStr::from_bytes(name.to_bytes()));
        }
    }
    Ok(())
}

/// It was removed, or replaced by something that is no folder, since it was seen.
fn gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP))
}

fn refused(path: &Path) -> bool {
    NEVER.iter().any(|own| Path::new(own) == path) || NEVER_BELOW.iter().any(|own| path.starts_with(own))
}

/// The kernel gives labels with a NUL at their end, and takes them without.
fn set(folder: BorrowedFd<'_>, name: &[u8], label: &str) -> io::Result<()> {
    let now = xattr::get_at(folder, name, ATTRIBUTE)?;
    if now.is_some_and(|now| now.strip_suffix(b"\0").unwrap_or(&now) == label.as_bytes()) {
        return Ok(());
    }
    match xattr::set_at(folder, name, ATTRIBUTE, label.as_bytes()) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label_of(path: &Path) -> Option<String> {
        let folder = File::open(path.parent().expect("parent")).expect("open");
        let name = path.file_name().expect("name").as_bytes();
        let value = xattr::get_at(folder.as_fd(), name, ATTRIBUTE).expect("read");
        value.map(|v| String::from_utf8(v).expect("text").trim_end_matches('\0').to_owned())
    }

    /// Without SELinux the kernel keeps this attribute like any other, so this needs root and no policy.
    #[test]
    fn a_tree_is_labelled_and_what_is_right_is_not_touched() {
        let folder = tempfile::tempdir().expect("folder");
        let (top, outside) = (folder.path().join("top"), folder.path().join("outside"));
        let deep = top.join("a/b");
        fs::create_dir_all(&deep).expect("folders");
        for file in [&outside, &top.join("file"), &deep.join("file")] {
            fs::write(file, "").expect("file");
        }
        std::os::unix::fs::symlink(&outside, top.join("link")).expect("link");
        let wanted = "system_u:object_r:container_file_t:s0:c1,c2";
        label(&top.join("file"), wanted).expect("label");
        let changed = |path: &Path| {
            let meta = fs::symlink_metadata(path).expect("metadata");
            (meta.ctime(), meta.ctime_nsec())
        };
        let all =
            [top.clone(), top.join("file"), top.join("link"), top.join("a"), deep.clone(), deep.join("file")];
        let before = changed(&all[1]);
        relabel(&top, wanted).expect("relabel");
        assert_eq!(changed(&all[1]), before);
        for path in &all {
            assert_eq!(label_of(path).as_deref(), Some(wanted), "{}", path.display());
        }
        assert_eq!(label_of(&outside), None);
        let before: Vec<_> = all.iter().map(|path| changed(path)).collect();
        relabel(&top, wanted).expect("again");
        assert_eq!(all.iter().map(|path| changed(path)).collect::<Vec<_>>(), before);
        relabel(&deep.join("file"), "a:b:c").expect("one file");
        assert_eq!(label_of(&deep.join("file")).as_deref(), Some("a:b:c"));
    }

    #[test]
    fn folders_of_the_host_are_refused() {
        for path in ["/", "/usr", "/usr/share/x", "/etc", "/home", "/var/lib", "/proc/1", "/sys/fs"] {
            assert!(refused(Path::new(path)), "{path}");
        }
        for path in ["/var/lib/kubelet/pods/x", "/home/one", "/etc/app", "/usrlocal", "/tmp/x"] {
            assert!(!refused(Path::new(path)), "{path}");
        }
    }

    #[test]
    fn the_policy_s_name() {
        let text = "# SELINUXTYPE=no\nSELINUX=permissive\n SELINUXTYPE=targeted \n";
        assert_eq!(policy_type(text), Some("targeted"));
        for text in ["", "SELINUXTYPE=", "SELINUXTYPE=../x"] {
            assert_eq!(policy_type(text), None);
        }
    }
}
