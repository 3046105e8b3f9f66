//! overlayfs on the file system that will hold the layers.

use std::{
    ffi::{CStr, CString},
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    thread,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use serde::Serialize;

use super::{Ability, idmap};
use crate::mount::{NewFilesystem, attach};

/// What overlayfs can do here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Overlay {
    /// A writable overlay over layers.
    pub writable: Ability,
    /// Layers named one by one (`lowerdir+`), with no bound on the length of all names together.
    pub layer_by_layer: Ability,
    /// Writes that need not reach the disk (`volatile`).
    pub volatile: Ability,
    /// Changes of a file's owner or mode without a copy of its content (`metacopy`).
    pub metacopy: Ability,
    /// Layers with mapped ids, for pods with a user namespace.
    pub idmapped_layers: Ability,
}

const FOLDER: &str = ".probe";

/// A mount option, with or without a value.
type MountOption<'a> = (&'a CStr, Option<&'a CStr>);

/// Tries all of it in a folder of `root`, which is removed.
pub(super) fn probe(root: &Path, namespace: &io::Result<OwnedFd>) -> Overlay {
    let folder = root.join(FOLDER);
    let overlay = match prepare(&folder) {
        Ok(trial) => trial.all(namespace),
        Err(error) => {
            let no = || Ability::no(format!("{}: {error}", folder.display()));
            Overlay {
                writable: no(),
                layer_by_layer: no(),
                volatile: no(),
                metacopy: no(),
                idmapped_layers: no(),
            }
        }
    };
    if let Err(error) = fs::remove_dir_all(&folder)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(folder = %folder.display(), %error, "what a probe made stays");
    }
    overlay
}

struct Trial {
    folder: PathBuf,
    lower: PathBuf,
}

fn prepare(folder: &Path) -> io::Result<Trial> {
    use std::os::unix::fs::DirBuilderExt;
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::DirBuilder::new().mode(0o700).create(folder)?;
    for name in ["lower", "upper", "work", "mapped"] {
        fs::create_dir(folder.join(name))?;
    }
    Ok(Trial { lower: folder.join("lower"), folder: folder.to_owned() })
}

impl Trial {
    fn all(&self, namespace: &io::Result<OwnedFd>) -> Overlay {
        // The end of a writable overlay writes back all of the upper file system, which may take seconds; that of a
        // volatile one does not. So whatever is tried is volatile, where that works.
        let volatile: &[MountOption<'static>] = &[(c"volatile", None)];
        let tried = self.mount(c"lowerdir", volatile);
        let quick = if tried.is_ok() { volatile } else { &[] };
        let with = |more: MountOption<'static>| self.mount(c"lowerdir", &[quick, &[more]].concat());
        Overlay {
            writable: match &tried {
                Ok(_) => Ability::of(tried.as_ref()),
                Err(_) => Ability::of(self.mount(c"lowerdir", &[])),
            },
            volatile: Ability::of(tried),
            layer_by_layer: Ability::of(self.mount(c"lowerdir+", quick)),
            metacopy: Ability::of(with((c"metacopy", Some(c"on")))),
            idmapped_layers: match namespace {
                Ok(namespace) => Ability::of(self.mount_mapped(namespace, quick)),
                Err(error) => Ability::no(format!("no user namespace: {error}")),
            },
        }
    }

    /// An overlay that is attached nowhere. Each mount gets upper and work folders of its own: `volatile` leaves a
    /// mark that forbids the next mount.
    fn mount(&self, layer: &CStr, more: &[MountOption<'_>]) -> io::Result<OwnedFd> {
        for name in ["upper", "work"] {
            let dir = self.folder.join(name);
            fs::remove_dir_all(&dir)?;
            fs::create_dir(&dir)?;
        }
        let overlay = NewFilesystem::open(c"overlay")?;
        overlay.set(layer, &text(&self.lower)?)?;
        overlay.set(c"upperdir", &text(&self.folder.join("upper"))?)?;
        overlay.set(c"workdir", &text(&self.folder.join("work"))?)?;
        for (key, value) in more {
            match value {
                Some(value) => overlay.set(key, value)?,
                None => overlay.flag(key)?,
            }
        }
        overlay.mount(0)
    }

    /// overlayfs takes layers by path only, so the mapped one is attached: in a mount namespace of a thread's own.
    fn mount_mapped(&self, namespace: &OwnedFd, more: &[MountOption<'_>]) -> io::Result<()> {
        let in_thread = || -> io::Result<()> {
            unshare(CloneFlags::CLONE_NEWNS)?;
            let nothing: Option<&str> = None;
            mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
            let mapped = idmap::clone_mapped(namespace, &self.lower)?;
            let at = self.folder.join("mapped");
            attach(mapped.as_fd(), &at)?;
            Trial { folder: self.folder.clone(), lower: at }.mount(c"lowerdir", more)?;
            Ok(())
        };
        thread::scope(|scope| scope.spawn(in_thread).join())
            .unwrap_or_else(|_| Err(io::Error::other("the probing thread panicked")))
    }
}

fn text(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from)
}
