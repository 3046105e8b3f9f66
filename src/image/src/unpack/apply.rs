//! Turns the entries of one layer's archive into files, in overlayfs form.
//!
//! Owns the folder it unpacks into until it returns; a crash or an error leaves a folder that its owner throws away.
//! A layer is unpacked alone, without those below it, so that all layers of an image can be unpacked at once.
//! Folders get their owners, modes and times last, because making something in them changes those.

use std::{
    fs::File,
    io::{self, BufRead, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
};

use crisp_host::{
    at::open_at,
    beneath::{Links, open_beneath},
};
use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag},
    sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmod, fchmodat, fstat, makedev, mkdirat, mknodat},
    unistd::{fchown, ftruncate, linkat, symlinkat},
};

use super::{
    archive::{Archive, ArchiveError, Entry},
    attributes::{self, Attributes},
    header::Kind,
    path::{BadPath, LayerPath},
    recipe::Recipe,
    tree::{self, Tree, TreeError},
};
use crate::error::printable;

/// Bounds for one layer.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Members of the archive.
    pub entries: u64,
}

/// Most memory for what is known about folders until the end: a million everyday ones take less than 200 MiB.
const MAX_KEPT: usize = 256 << 20;

/// What came out of an archive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Bytes on disk.
    pub bytes: u64,
    /// Files, folders, links and devices.
    pub inodes: u64,
    /// Folders that the archive names only as part of other names, shortest first. The root is the empty name.
    pub implied: Vec<Vec<u8>>,
    /// Whether everything in lower layers is hidden.
    pub opaque_root: bool,
    /// Whether the recipe can rebuild the archive.
    pub recipe_is_whole: bool,
    /// Length of the uncompressed archive; known to whoever reads the stream.
    pub archive_bytes: u64,
}

/// Why a layer cannot be unpacked, and at which entry.
#[derive(Debug, thiserror::Error)]
#[error("{cause}")]
pub struct UnpackError {
    /// Name of the entry that was being unpacked; empty before the first.
    pub entry: String,
    /// What went wrong.
    pub cause: Cause,
}

/// What went wrong with an entry.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The stream is no archive.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The archive asks for what no honest one asks.
    #[error("{0}")]
    Refused(String),
    /// More members than allowed.
    #[error("more than {0} entries")]
    TooMany(u64),
    /// The kernel says no.
    #[error("{0}: {1}")]
    Host(&'static str, io::Error),
}

impl From<TreeError> for Cause {
    fn from(error: TreeError) -> Self {
        match error {
            TreeError::Refused(why) => Self::Refused(why.to_owned()),
            // What only the archive's choice of names can cause.
            TreeError::Host(operation, error) => match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::ENAMETOOLONG) => Self::Refused(format!("{operation}: the name is too long")),
                Some(Errno::EMLINK) => Self::Refused(format!("{operation}: too many links")),
                Some(Errno::EFBIG) => Self::Refused(format!("{operation}: the file is too large")),
                _ => Self::Host(operation, error),
            },
        }
    }
}

impl From<BadPath> for Cause {
    fn from(error: BadPath) -> Self {
        Self::Refused(error.to_string())
    }
}

/// Unpacks a whole archive into `root`, an empty folder. The recipe takes down what a later check needs.
pub fn unpack<R: BufRead, W: Write>(
    input: R,
    root: OwnedFd,
    recipe: Recipe<W>,
    limits: Limits,
) -> Result<(Unpacked, W), UnpackError> {
    let mut archive = Archive::new(input, recipe);
    let mut unpacker = Unpacker::new(root);
    let mut entries = 0u64;
    loop {
        let mut name = String::new();
        let mut step = || -> Result<bool, Cause> {
            let Some(entry) = archive.next_entry()? else { return Ok(false) };
            name = printable(&entry.path);
            entries += 1;
            unpacker.entry(entry, &mut archive)?;
            // One entry may stand for a thousand folders.
            if entries + unpacker.tree.implied.len() as u64 > limits.entries {
                return Err(Cause::TooMany(limits.entries));
            }
            if unpacker.kept + unpacker.tree.implied_bytes > MAX_KEPT {
                return Err(Cause::Refused("names and attributes of folders that take 256 MiB".into()));
            }
            Ok(true)
        };
        match step() {
            Ok(true) => {}
            Ok(false) => break,
            Err(cause) => return Err(UnpackError { entry: name, cause }),
        }
    }
    let at_end = |cause| UnpackError { entry: String::new(), cause };
    let mut unpacked = unpacker.finish().map_err(at_end)?;
    let (writer, whole) = std::mem::replace(archive.sink(), Recipe::spent()).finish();
    unpacked.recipe_is_whole &= whole;
    let writer = writer.map_err(|e| at_end(Cause::Host("writing the recipe", e)))?;
    Ok((unpacked, writer))
}

struct Unpacker {
    tree: Tree,
    folders: Vec<(LayerPath, Attributes)>,
    /// Memory that those take.
    kept: usize,
    totals: Unpacked,
    in_user_namespace: bool,
}

impl Unpacker {
    fn new(root: OwnedFd) -> Self {
        Self {
            tree: Tree::new(root),
            folders: Vec::new(),
            kept: 0,
            totals: Unpacked { recipe_is_whole: true, ..Unpacked::default() },
            in_user_namespace: in_user_namespace(),
        }
    }

    fn entry<R: BufRead, W: Write>(
        &mut self,
        entry: Entry,
        archive: &mut Archive<R, Recipe<W>>,
    ) -> Result<(), Cause> {
        let path = LayerPath::parse(&entry.path)?;
        let Some((folder, name)) = path.split() else {
            return match entry.kind {
                Kind::Folder => {
                    self.keep(LayerPath::parse(b"")?, Attributes::of(entry));
                    Ok(())
                }
                _ => Err(Cause::Refused("something that is no folder takes the place of the root".into())),
            };
        };
        if path.parts().any(|part| part.starts_with(b".wh.")) {
            return self.whiteout(&path, folder, name);
        }
        let parent = self.tree.folder(folder)?;
        let parent = parent.as_fd();
        self.totals.inodes += u64::from(entry.kind != Kind::HardLink);
        match entry.kind {
            Kind::Folder => {
                self.make_folder(parent, name)?;
                self.totals.bytes += 4096;
                self.keep(path.clone(), Attributes::of(entry));
            }
            Kind::File => self.file(&path, parent, name, entry, archive)?,
            Kind::HardLink => self.hard_link(parent, name, &entry)?,
            Kind::SymLink => {
                if entry.link.is_empty() {
                    return Err(Cause::Refused("a link without a target".into()));
                }
                self.tree.make(parent, name, "making a link", |folder| {
                    Ok(symlinkat(entry.link.as_slice(), Some(folder), name)?)
                })?;
                attributes::apply_to_name(parent, name, &Attributes::of(entry))?;
            }
            Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => self.node(parent, name, entry)?,
            Kind::OldSparse => return Err(Cause::Refused("a sparse file that was not read as one".into())),
        }
        Ok(())
    }

    /// `.wh.name` hides a name of lower layers, `.wh..wh..opq` everything below its folder; other names that begin
    /// with `.wh..wh.` are aufs' own bookkeeping (OCI image-spec, layer.md, "Whiteouts").
    fn whiteout(&mut self, path: &LayerPath, folder: &[u8], name: &[u8]) -> Result<(), Cause> {
        if name == b".wh..wh..opq" && !folder.split(|b| *b == b'/').any(|part| part.starts_with(b".wh.")) {
            let parent = self.tree.folder(folder)?;
            self.totals.opaque_root |= folder.is_empty();
            return Ok(tree::make_opaque(parent.as_fd(), b".")?);
        }
        if path.parts().any(|part| part.starts_with(b".wh..wh.")) {
            return Ok(());
        }
        if folder.split(|b| *b == b'/').any(|part| part.starts_with(b".wh.")) {
            return Err(Cause::Refused("a whiteout is used as a folder".into()));
        }
        let hidden = &name[b".wh.".len()..];
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(Cause::Refused("a whiteout of nothing or of a parent".into()));
        }
        let parent = self.tree.folder(folder)?;
        match tree::look(parent.as_fd(), hidden)? {
            // What this layer itself has is not hidden, only what is below.
            Some(stat) if tree::is_folder(&stat) => tree::make_opaque(parent.as_fd(), hidden)?,
            Some(_) => {}
            None => {
                tree::make_whiteout(parent.as_fd(), hidden)?;
                self.totals.inodes += 1;
            }
        }
        Ok(())
    }

    fn keep(&mut self, path: LayerPath, attributes: Attributes) {
        self.kept += size_of::<LayerPath>() + path.as_bytes().len() + attributes.size();
        self.folders.push((path, attributes));
    }

    fn make_folder(&mut self, parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Cause> {
        let make = || mkdirat(Some(parent.as_raw_fd()), name, Mode::S_IRWXU);
        match make() {
            Ok(()) => return Ok(()),
            Err(Errno::EEXIST) => {}
            Err(errno) => return Err(TreeError::host("making a folder")(errno).into()),
        }
        let Some(stat) = tree::look(parent, name)? else {
            return Err(Cause::Refused("the name cannot be used for a folder".into()));
        };
        if tree::is_folder(&stat) {
            return Ok(());
        }
        let hides_lower = tree::is_whiteout(&stat);
        self.tree.remove(parent, name)?;
        make().map_err(TreeError::host("making a folder"))?;
        if hides_lower {
            tree::make_opaque(parent, name)?;
        }
        Ok(())
    }

    fn file<R: BufRead, W: Write>(
        &mut self,
        path: &LayerPath,
        parent: BorrowedFd<'_>,
        name: &[u8],
        entry: Entry,
        archive: &mut Archive<R, Recipe<W>>,
    ) -> Result<(), Cause> {
        let flags = (OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW).bits();
        // Nobody else gets into the staging folder, so the mode may be the final one from the start.
        let mode = entry.mode & 0o777;
        let fd = self.tree.make(parent, name, "making a file", |_| open_at(parent, name, flags, mode))?;
        let mut file = File::from(fd);
        let wrote = |e| Cause::from(TreeError::Host("writing a file", e));
        let content = archive.remaining();
        archive.sink().file(path.as_bytes(), entry.sparse.as_deref(), content).map_err(wrote)?;
        match &entry.sparse {
            None => loop {
                let content = archive.content()?;
                if content.is_empty() {
                    break;
                }
                file.write_all(content).map_err(wrote)?;
                let count = content.len();
                archive.consume(count);
            },
            Some(segments) => {
                for segment in segments {
                    let (mut offset, end) = (segment.offset, segment.offset + segment.length);
                    while offset < end {
                        let content = archive.content()?;
                        let count = content.len().min(usize::try_from(end - offset).unwrap_or(usize::MAX));
                        file.write_all_at(&content[..count], offset).map_err(wrote)?;
                        archive.consume(count);
                        offset += count as u64;
                    }
                }
                let size = i64::try_from(entry.size)
                    .map_err(|_| Cause::Refused("a file that is too large".into()))?;
                ftruncate(&file, size).map_err(|e| wrote(e.into()))?;
            }
        }
        let stat = look_at(file.as_fd())?;
        attributes::apply_to_file(file.as_fd(), &stat, &Attributes::of(entry))?;
        self.totals.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
        Ok(())
    }

    fn hard_link(&mut self, parent: BorrowedFd<'_>, name: &[u8], entry: &Entry) -> Result<(), Cause> {
        let target = LayerPath::parse(&entry.link)
            .map_err(|_| Cause::Refused("a hard link that leaves the layer".into()))?;
        let Some((target_folder, target_name)) = target.split() else {
            return Err(Cause::Refused("a hard link to the root".into()));
        };
        let outside = || {
            Cause::Refused(format!("a hard link to {:?}, which is not in the layer", printable(&entry.link)))
        };
        let folder = self.tree.existing_folder(target_folder).map_err(|e| match e {
            TreeError::Refused(_) => outside(),
            other => other.into(),
        })?;
        let Some(found) = tree::look(folder.as_fd(), target_name)? else { return Err(outside()) };
        if tree::is_folder(&found) {
            return Err(Cause::Refused("a hard link to a folder".into()));
        }
        // A link to itself would be removed before it is made.
        if let Some(present) = tree::look(parent, name)?
            && (present.st_dev, present.st_ino) == (found.st_dev, found.st_ino)
        {
            return Ok(());
        }
        let from = folder.as_raw_fd();
        self.tree.make(parent, name, "making a hard link", |to| {
            Ok(linkat(Some(from), target_name, Some(to), name, AtFlags::empty())?)
        })?;
        Ok(())
    }

    fn node(&mut self, parent: BorrowedFd<'_>, name: &[u8], entry: Entry) -> Result<(), Cause> {
        let kind = match entry.kind {
            Kind::CharDevice => SFlag::S_IFCHR,
            Kind::BlockDevice => SFlag::S_IFBLK,
            _ => SFlag::S_IFIFO,
        };
        if self.in_user_namespace && kind != SFlag::S_IFIFO {
            // The kernel would refuse it, and containers get their devices from the runtime anyway.
            tracing::debug!(entry = %printable(&entry.path), "a device is left out in a user namespace");
            return Ok(());
        }
        let device = makedev(entry.device.0.into(), entry.device.1.into());
        let mode = Mode::from_bits_truncate(entry.mode);
        self.tree.make(parent, name, "making a device or pipe", |folder| {
            Ok(mknodat(Some(folder), name, kind, Mode::S_IRUSR, device)?)
        })?;
        attributes::apply_to_name(parent, name, &Attributes::of(entry))?;
        // Not a link: it was made just now, and nobody else works in this folder.
        fchmodat(Some(parent.as_raw_fd()), name, mode, FchmodatFlags::FollowSymlink)
            .map_err(TreeError::host("setting the mode"))?;
        Ok(())
    }

    fn finish(mut self) -> Result<Unpacked, Cause> {
        let described: std::collections::HashSet<&[u8]> =
            self.folders.iter().map(|(path, _)| path.as_bytes()).collect();
        let mut implied = std::mem::take(&mut self.tree.implied);
        self.totals.inodes += implied.len() as u64;
        self.totals.bytes += 4096 * implied.len() as u64;
        implied.push(Vec::new());
        implied.retain(|path| !described.contains(path.as_slice()));
        implied.sort();
        implied.dedup();
        let root = self.tree.root();
        let mut kept = Vec::with_capacity(implied.len());
        for path in implied {
            // A later entry may have taken its place.
            let Some(folder) = open_folder(root.as_fd(), &path)? else { continue };
            fchown(folder.as_raw_fd(), Some(0.into()), Some(0.into()))
                .map_err(TreeError::host("setting the owner"))?;
            fchmod(folder.as_raw_fd(), Mode::from_bits_truncate(0o755))
                .map_err(TreeError::host("setting the mode"))?;
            kept.push(path);
        }
        for (path, attributes) in &self.folders {
            if let Some(folder) = open_folder(root.as_fd(), path.as_bytes())? {
                attributes::apply_to_file(folder.as_fd(), &look_at(folder.as_fd())?, attributes)?;
            }
        }
        self.totals.recipe_is_whole = !self.tree.replaced;
        self.totals.implied = kept;
        Ok(self.totals)
    }
}

fn look_at(file: BorrowedFd<'_>) -> Result<FileStat, TreeError> {
    fstat(file.as_raw_fd()).map_err(TreeError::host("looking at a file"))
}

/// Opens a folder that was made; `None` if a later entry put something else in its place.
fn open_folder(root: BorrowedFd<'_>, path: &[u8]) -> Result<Option<OwnedFd>, Cause> {
    let flags = (OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW).bits();
    let path = if path.is_empty() { b"." } else { path };
    match open_beneath(root, path, flags, Links::InRoot) {
        Ok(fd) => Ok(Some(fd)),
        Err(error) => match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
            _ => Err(TreeError::Host("opening a folder", error).into()),
        },
    }
}

/// Whether user ids here are not the host's (`user_namespaces(7)`: the initial map is the whole range onto itself).
fn in_user_namespace() -> bool {
    std::fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_ascii_whitespace().collect::<Vec<_>>() != ["0", "0", "4294967295"])
}
