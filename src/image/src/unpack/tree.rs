//! Makes files beneath one folder, and nowhere else.
//!
//! Every parent is opened with `openat2(RESOLVE_IN_ROOT)`, so links made by the archive itself resolve as they would
//! inside a container, and can never lead out; the last component is always handled without following. Nobody else
//! writes to the folder meanwhile. After a crash the whole folder is thrown away by whoever owns it.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    rc::Rc,
};

use crisp_host::{
    at::open_at,
    beneath::{Links, open_beneath},
};
use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag},
    sys::stat::{FileStat, Mode, SFlag, fstatat, mkdirat, mknodat},
    unistd::{UnlinkatFlags, unlinkat},
};

use super::path;

/// Open parents that are remembered. Archives are sorted, so few are needed; bounded because each is a descriptor.
const MAX_OPEN: usize = 64;

/// Why something cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TreeError {
    /// The archive asks for something that makes no sense.
    #[error("{0}")]
    Refused(&'static str),
    /// The kernel says no.
    #[error("{0}: {1}")]
    Host(&'static str, io::Error),
}

impl TreeError {
    pub(crate) fn host(operation: &'static str) -> impl Fn(Errno) -> Self {
        move |errno| Self::Host(operation, errno.into())
    }

    pub(crate) fn io(operation: &'static str) -> impl Fn(io::Error) -> Self {
        move |error| Self::Host(operation, error)
    }
}

/// An open folder, shared by all names made in it.
pub(crate) type Folder = Rc<OwnedFd>;

#[derive(Debug)]
pub(crate) struct Tree {
    root: Folder,
    open: HashMap<Vec<u8>, Folder>,
    /// Folders that no entry described (yet): their parents exist only as part of a name.
    pub(crate) implied: Vec<Vec<u8>>,
    /// Length of their names together.
    pub(crate) implied_bytes: usize,
    /// Something that was made has been removed again.
    pub(crate) replaced: bool,
}

impl Tree {
    pub(crate) fn new(root: OwnedFd) -> Self {
        Self {
            root: Rc::new(root),
            open: HashMap::new(),
            implied: Vec::new(),
            implied_bytes: 0,
            replaced: false,
        }
    }

    pub(crate) fn root(&self) -> Folder {
        Rc::clone(&self.root)
    }

    /// Opens a folder, making it and those above it if they are missing.
    pub(crate) fn folder(&mut self, path: &[u8]) -> Result<Folder, TreeError> {
        if let Some(known) = self.known(path) {
            return Ok(known);
        }
        // From the deepest folder that exists downwards.
        let mut missing = Vec::new();
        let mut at = path;
        let mut folder = loop {
            if let Some(known) = self.known(at) {
                break known;
            }
            match open_beneath(&*self.root, at, libc_path_flags(), Links::InRoot) {
                Ok(fd) => break self.remember(at, fd),
                Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => {
                    let (parent, name) =
                        path::split(at).ok_or(TreeError::Host("opening the layer", error))?;
                    missing.push((at, name));
                    at = parent;
                }
                Err(error) => return Err(not_a_folder(error)),
            }
        };
        for (at, name) in missing.into_iter().rev() {
            match mkdirat(Some(folder.as_raw_fd()), name, Mode::from_bits_truncate(0o755)) {
                Ok(()) => {
                    self.implied_bytes += at.len() + size_of::<Vec<u8>>();
                    self.implied.push(at.to_vec());
                }
                Err(Errno::EEXIST) => {
                    return Err(TreeError::Refused("a link that leads nowhere is used as a folder"));
                }
                Err(errno) => return Err(TreeError::host("making a folder")(errno)),
            }
            let fd =
                open_at(&*folder, name, libc_path_flags(), 0).map_err(TreeError::io("opening a folder"))?;
            folder = self.remember(at, fd);
        }
        Ok(folder)
    }

    /// Opens a folder that must exist.
    pub(crate) fn existing_folder(&mut self, path: &[u8]) -> Result<Folder, TreeError> {
        if let Some(known) = self.known(path) {
            return Ok(known);
        }
        let fd = open_beneath(&*self.root, path, libc_path_flags(), Links::InRoot).map_err(not_a_folder)?;
        Ok(self.remember(path, fd))
    }

    fn known(&self, path: &[u8]) -> Option<Folder> {
        if path.is_empty() { Some(self.root()) } else { self.open.get(path).cloned() }
    }

    fn remember(&mut self, path: &[u8], fd: OwnedFd) -> Folder {
        if self.open.len() >= MAX_OPEN {
            self.open.clear();
        }
        let folder = Rc::new(fd);
        self.open.insert(path.to_vec(), Rc::clone(&folder));
        folder
    }

    /// Makes a name free again. What the remembered folders are called may change by that.
    pub(crate) fn remove(&mut self, folder: BorrowedFd<'_>, name: &[u8]) -> Result<(), TreeError> {
        self.open.clear();
        self.replaced = true;
        match unlinkat(Some(folder.as_raw_fd()), name, UnlinkatFlags::NoRemoveDir) {
            Err(Errno::EISDIR | Errno::EPERM) => {}
            result => return result.map_err(TreeError::host("replacing")),
        }
        if unlinkat(Some(folder.as_raw_fd()), name, UnlinkatFlags::RemoveDir).is_ok() {
            return Ok(());
        }
        let path = [format!("/proc/self/fd/{}/", folder.as_raw_fd()).as_bytes(), name].concat();
        let path =
            std::path::PathBuf::from(<std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(path));
        std::fs::remove_dir_all(path).map_err(TreeError::io("replacing a folder"))
    }

    /// Runs `make`, and once more with the name free if something is there.
    pub(crate) fn make<T>(
        &mut self,
        folder: BorrowedFd<'_>,
        name: &[u8],
        operation: &'static str,
        make: impl Fn(RawFd) -> io::Result<T>,
    ) -> Result<T, TreeError> {
        match make(folder.as_raw_fd()) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.remove(folder, name)?;
                make(folder.as_raw_fd()).map_err(TreeError::io(operation))
            }
            result => result.map_err(TreeError::io(operation)),
        }
    }
}

fn libc_path_flags() -> i32 {
    (OFlag::O_PATH | OFlag::O_DIRECTORY).bits()
}

fn not_a_folder(error: io::Error) -> TreeError {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOTDIR) => TreeError::Refused("something that is no folder is used as one"),
        Some(Errno::ELOOP) => TreeError::Refused("links in a circle are used as a folder"),
        Some(Errno::ENOENT) => TreeError::Refused("a folder that is not in the layer is used"),
        Some(Errno::ENAMETOOLONG) => TreeError::Refused("a part of the name is longer than 255 bytes"),
        _ => TreeError::Host("opening a folder", error),
    }
}

/// What is at a name, the link itself if it is one.
pub(crate) fn look(folder: BorrowedFd<'_>, name: &[u8]) -> Result<Option<FileStat>, TreeError> {
    match fstatat(Some(folder.as_raw_fd()), name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::ENOENT) => Ok(None),
        Err(Errno::ENAMETOOLONG) => Err(TreeError::Refused("a part of the name is longer than 255 bytes")),
        Err(errno) => Err(TreeError::host("looking at a file")(errno)),
    }
}

pub(crate) fn is_folder(stat: &FileStat) -> bool {
    stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits()
}

/// overlayfs' mark for a name that is gone: a character device 0:0.
pub(crate) fn is_whiteout(stat: &FileStat) -> bool {
    stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFCHR.bits() && stat.st_rdev == 0
}

pub(crate) fn make_whiteout(folder: BorrowedFd<'_>, name: &[u8]) -> Result<(), TreeError> {
    let mode = Mode::empty();
    mknodat(Some(folder.as_raw_fd()), name, SFlag::S_IFCHR, mode, 0)
        .map_err(TreeError::host("making a whiteout"))
}

/// Marks a folder (`.` or a name in `folder`) as hiding the same folder of lower layers.
pub(crate) fn make_opaque(folder: BorrowedFd<'_>, name: &[u8]) -> Result<(), TreeError> {
    crisp_host::xattr::set_at(folder.as_fd(), name, OPAQUE, b"y")
        .map_err(TreeError::io("marking a folder opaque"))
}

/// overlayfs' attribute of opaque folders.
pub(crate) const OPAQUE: &std::ffi::CStr = c"trusted.overlay.opaque";
