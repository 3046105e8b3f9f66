//! Root file systems and volumes, mounted in the mount namespace of a worker.
//!
//! Nothing here is ever mounted on the host: the namespace, and with it every mount, lives in the container's init only. The
//! folders that are mounted on belong to the daemon.

use std::{
    ffi::CString,
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

use crisp_host::{
    capability,
    file::sync_filesystem,
    mount::{self as by_fd, LONGEST_VALUE, NewFilesystem},
};
use crisp_model::image::Rootfs;
use nix::{
    mount::{MsFlags, mount},
    unistd::{setfsgid, setfsuid},
};

use super::{Failure, host, invalid};

/// Makes the mount that holds `path` private to this namespace, so that what is mounted below it stays in it.
pub(super) fn isolate(path: &Path) {
    for ancestor in path.ancestors().filter(|a| *a != Path::new("/")) {
        // Only the root of a mount can be changed; the first that can is the one that holds the path.
        if mount(None::<&str>, ancestor, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>).is_ok() {
            return;
        }
    }
}

/// Mounts a container's root file system; its layers are seen through `userns`, if there is one, and its files have the SELinux label
/// `label`, if there is one, whatever those of the layers are.
pub(super) fn mount_rootfs(
    rootfs: &Rootfs,
    userns: Option<BorrowedFd<'_>>,
    label: Option<&str>,
) -> Result<(), Failure> {
    let missing = |path: &Path| invalid(path.display().to_string(), "no such folder");
    for path in rootfs.lower.iter().chain([&rootfs.upper, &rootfs.work]) {
        if !path.is_dir() {
            return Err(missing(path));
        }
    }
    let operation = format!("mount the root file system at {}", rootfs.mountpoint.display());
    fs::create_dir_all(&rootfs.mountpoint).map_err(host(operation.clone()))?;
    let mounted = match userns {
        None => overlay(&rootfs.lower, Some((&rootfs.upper, &rootfs.work)), &rootfs.mountpoint, label),
        Some(userns) => idmapped_overlay(rootfs, userns, label),
    };
    mounted.map_err(host(operation))
}

/// Mounts layers of an image, read-only. The only layer of an image keeps the SELinux labels that it has.
pub(super) fn mount_image(
    lower: &[PathBuf],
    mountpoint: &Path,
    userns: Option<BorrowedFd<'_>>,
    label: Option<&str>,
) -> Result<(), Failure> {
    let operation = format!("mount an image at {}", mountpoint.display());
    let run = || -> io::Result<()> {
        fs::create_dir_all(mountpoint)?;
        let mapped = match userns {
            Some(userns) => MappedLayers::new(lower, userns, mountpoint)?,
            None => MappedLayers { folders: lower.to_vec(), _mounts: vec![] },
        };
        match mapped.folders.as_slice() {
            [] => Ok(()), // an image without layers is an empty folder
            [single] => {
                // overlayfs wants two layers where none is writable.
                let tree = by_fd::clone_tree(single, false)?;
                by_fd::set_attributes(tree.as_fd(), libc::MOUNT_ATTR_RDONLY, None, false)?;
                by_fd::attach(tree.as_fd(), mountpoint)
            }
            several => overlay(several, None, mountpoint, label),
        }
    };
    run().map_err(host(operation))
}

/// Mounts a clone of `source` at `staging`, seen through the maps of `userns`.
pub(super) fn mount_idmapped(source: &Path, staging: &Path, userns: BorrowedFd<'_>) -> Result<(), Failure> {
    let tree = by_fd::clone_tree(source, true).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => invalid(source.display().to_string(), e),
        _ => host(format!("clone the mount of {}", source.display()))(e),
    })?;
    let run = || -> io::Result<()> {
        by_fd::set_attributes(tree.as_fd(), 0, Some(userns), true)?;
        if source.is_dir() {
            fs::create_dir_all(staging)?;
        } else {
            staging.parent().map_or(Ok(()), fs::create_dir_all)?;
            File::options().create(true).append(true).open(staging)?;
        }
        by_fd::attach(tree.as_fd(), staging)
    };
    run().map_err(host(format!("map the ids of {} (its file system may not be able to)", source.display())))
}

/// Layers cloned with an id mapping: paths through descriptors of their mounts.
struct MappedLayers {
    folders: Vec<PathBuf>,
    _mounts: Vec<OwnedFd>,
}

impl MappedLayers {
    /// `under`: where they are to be mounted together.
    fn new(layers: &[PathBuf], userns: BorrowedFd<'_>, under: &Path) -> io::Result<Self> {
        let mounts: Vec<OwnedFd> =
            layers.iter().map(|l| idmap(l, userns, under)).collect::<io::Result<_>>()?;
        Ok(Self { folders: mounts.iter().map(through).collect(), _mounts: mounts })
    }
}

/// A mapped clone. Before Linux 6.15 overlayfs takes no mount that is attached nowhere (EINVAL): it is attached where
/// the overlay will cover it. A descriptor finds it there too. The clone of a shared mount is shared: what is mounted on it next
/// would appear on the host.
fn idmap(path: &Path, userns: BorrowedFd<'_>, under: &Path) -> io::Result<OwnedFd> {
    let tree = by_fd::clone_tree(path, false)?;
    by_fd::set_attributes(tree.as_fd(), 0, Some(userns), false)?;
    by_fd::attach(tree.as_fd(), under)?;
    mount(None::<&str>, under, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>)?;
    Ok(tree)
}

fn through(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// The writable layer and its work folder have to lie in one mount: their common parent is mapped, so that what the
/// container's root writes is root's on the disk too.
fn idmapped_overlay(rootfs: &Rootfs, userns: BorrowedFd<'_>, label: Option<&str>) -> io::Result<()> {
    let layers = MappedLayers::new(&rootfs.lower, userns, &rootfs.mountpoint)?;
    let (Some(parent), Some(upper), Some(work)) =
        (rootfs.upper.parent(), rootfs.upper.file_name(), rootfs.work.file_name())
    else {
        return Err(io::Error::other("the writable layer has no parent folder"));
    };
    if rootfs.work.parent() != Some(parent) {
        return Err(io::Error::other("the writable layer and its work folder have different parents"));
    }
    let parent = idmap(parent, userns, &rootfs.mountpoint)?;
    let (upper, work) = (through(&parent).join(upper), through(&parent).join(work));
    as_owner(&parent, || overlay(&layers.folders, Some((&upper, &work)), &rootfs.mountpoint, label))
}

/// Does `work` as the owner of a mapped folder, which is the root of the user namespace, but with all capabilities. overlayfs writes
/// as the one who mounted it, and the host's root has no id in a mapped file system: it would be mounted read-only.
fn as_owner<T>(folder: &OwnedFd, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let owner = fs::metadata(through(folder))?;
    let (uid, gid) = (setfsuid(owner.uid().into()), setfsgid(owner.gid().into()));
    // Leaving root took the capabilities over files away.
    let done = capability::get()
        .and_then(|have| capability::set(capability::Sets { effective: have.permitted, ..have }))
        .and_then(|()| work());
    setfsgid(gid);
    setfsuid(uid);
    done
}

/// Mounts an overlay: by `fsopen` where the kernel takes its layers one by one (Linux 6.8), else by `mount`.
///
/// A writable one is `volatile` where the kernel can (Linux 5.10), as with CRI-O: without it the end of each container writes the
/// whole file system of its layer back to the disk, other containers' data included. What that gives up is fsync(2) in the container's own
/// layer (not in volumes), which could only help after a crash of the host, and after one no container or layer is used again.
///
/// The kernel refuses a volatile mount (EIO) as long as nobody has been told of an earlier write error of the file system: it is told
/// here, once, and so the mount is tried again. Else one such error would keep containers from starting for ever.
fn overlay(
    lower: &[PathBuf],
    upper: Option<(&Path, &Path)>,
    target: &Path,
    label: Option<&str>,
) -> io::Result<()> {
    match (try_overlay(lower, upper, target, label), upper) {
        (Err(e), Some((folder, _))) if e.raw_os_error() == Some(libc::EIO) => {
            if let Err(error) = File::open(folder).and_then(sync_filesystem) {
                eprintln!("the file system of {}: {error}", folder.display());
            }
            try_overlay(lower, upper, target, label)
        }
        (outcome, _) => outcome,
    }
}

fn try_overlay(
    lower: &[PathBuf],
    upper: Option<(&Path, &Path)>,
    target: &Path,
    label: Option<&str>,
) -> io::Result<()> {
    let unknown = |e: &io::Error| matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL));
    match overlay_by_fd(lower, upper, target, label) {
        Err(e) if unknown(&e) => match overlay_by_options(lower, upper, target, ",volatile", label) {
            Err(e) if unknown(&e) => overlay_by_options(lower, upper, target, "", label),
            other => other,
        },
        other => other,
    }
}

fn overlay_by_fd(
    lower: &[PathBuf],
    upper: Option<(&Path, &Path)>,
    target: &Path,
    label: Option<&str>,
) -> io::Result<()> {
    let new = NewFilesystem::open(c"overlay")?;
    let mut short = Shortened::default();
    for layer in lower {
        new.set(c"lowerdir+", &short.value(layer)?)?;
    }
    if let Some((upper, work)) = upper {
        new.set(c"upperdir", &short.value(upper)?)?;
        new.set(c"workdir", &short.value(work)?)?;
        new.flag(c"volatile")?;
    }
    if let Some(label) = label {
        new.set(c"context", &CString::new(label)?)?;
    }
    let read_only = if upper.is_none() { libc::MOUNT_ATTR_RDONLY } else { 0 };
    by_fd::attach(new.mount(read_only)?.as_fd(), target)
}

fn overlay_by_options(
    lower: &[PathBuf],
    upper: Option<(&Path, &Path)>,
    target: &Path,
    writable: &str,
    label: Option<&str>,
) -> io::Result<()> {
    // Through descriptors: every name is short and has no character that would have to be escaped.
    let mut short = Shortened::default();
    let mut name = |path: &Path| short.open(path);
    let layers: Vec<String> = lower.iter().map(|l| name(l)).collect::<io::Result<_>>()?;
    let mut options = format!("lowerdir={}", layers.join(":"));
    let mut flags = MsFlags::MS_RDONLY;
    if let Some((upper, work)) = upper {
        // The work folder has to be a sibling that the kernel sees in the same mount, so these go by name.
        for (key, path) in [("upperdir", upper), ("workdir", work)] {
            options += &format!(",{key}={}", escape(path)?);
        }
        options += writable;
        flags = MsFlags::empty();
    }
    if let Some(label) = label {
        // Quoted, since a level has commas.
        options += &format!(",context=\"{label}\"");
    }
    Ok(mount(Some("overlay"), target, Some("overlay"), flags, Some(options.as_str()))?)
}

/// A value of a mount option, with backslashes before what would end it.
fn escape(path: &Path) -> io::Result<String> {
    let text = path.to_str().ok_or_else(|| io::Error::other("a path that is not UTF-8"))?;
    Ok(text
        .chars()
        .flat_map(|c| if matches!(c, ',' | ':' | '\\') { vec!['\\', c] } else { vec![c] })
        .collect())
}

/// Holds the descriptors through which paths that are too long for an option are named.
#[derive(Default)]
struct Shortened(Vec<File>);

impl Shortened {
    fn value(&mut self, path: &Path) -> io::Result<CString> {
        let bytes = path.as_os_str().as_bytes();
        if bytes.len() <= LONGEST_VALUE {
            return Ok(CString::new(bytes)?);
        }
        Ok(CString::new(self.open(path)?)?)
    }

    fn open(&mut self, path: &Path) -> io::Result<String> {
        let flags = libc::O_PATH | libc::O_CLOEXEC | libc::O_DIRECTORY;
        self.0.push(File::options().read(true).custom_flags(flags).open(path)?);
        Ok(format!("/proc/self/fd/{}", self.0[self.0.len() - 1].as_raw_fd()))
    }
}
