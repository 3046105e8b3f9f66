//! Volumes that an image declares (`VOLUME`): a folder of the container's own that begins as a copy of what the image has
//! at the path, as with every runtime.
//!
//! ```text
//!   <containers>/<id>/volumes/<number>
//! ```
//!
//! The layers are merged into it from the bottom up, by overlayfs' rules, without a mount. It lies beside the writable layer and goes with
//! it; a crash in the middle leaves a container that is undone, volumes and all.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io,
    os::{
        fd::AsFd,
        unix::{
            ffi::OsStrExt,
            fs::{FileTypeExt, MetadataExt, OpenOptionsExt, lchown, symlink},
        },
    },
    path::{Component, Path, PathBuf},
};

use crisp_host::xattr;
use nix::{
    libc,
    sys::{
        stat::{Mode, SFlag, UtimensatFlags, mknod, utimensat},
        time::TimeSpec,
    },
};

use crate::unpack::{attributes::is_wanted, tree};

/// Fills the empty folder `volume` from `layers` (topmost last) with what they have at `path`, a relative path of an image
/// whose links are resolved. A file at the path is an error; nothing at the path leaves the folder as it is. Blocks.
pub(super) fn fill(layers: &[PathBuf], path: &Path, volume: &Path) -> io::Result<()> {
    for layer in layers {
        match part_of(layer, path)? {
            Part::Nothing => {}
            Part::Hidden => clear(volume)?,
            Part::Folder { at, opaque } => {
                if opaque {
                    clear(volume)?;
                }
                merge(&at, volume)?;
            }
        }
    }
    Ok(())
}

/// What one layer has to say about a path.
enum Part {
    /// What lies below is seen.
    Nothing,
    /// What lies below is hidden.
    Hidden,
    /// More of the folder.
    Folder {
        /// Where.
        at: PathBuf,
        /// What lies below it is hidden all the same.
        opaque: bool,
    },
}

fn part_of(layer: &Path, path: &Path) -> io::Result<Part> {
    let (mut at, mut opaque) = (layer.to_owned(), false);
    for part in path.components() {
        let Component::Normal(name) = part else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain path"));
        };
        let parent = at.clone();
        at.push(name);
        match fs::symlink_metadata(&at) {
            Ok(meta) if meta.is_dir() => opaque |= is_opaque(&parent, name.as_bytes())?,
            // A whiteout, or something that upper layers may have replaced by a folder.
            Ok(_) => return Ok(Part::Hidden),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(if opaque { Part::Hidden } else { Part::Nothing });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Part::Folder { at, opaque })
}

fn is_opaque(parent: &Path, name: &[u8]) -> io::Result<bool> {
    let parent = File::open(parent)?;
    Ok(xattr::get_at(parent.as_fd(), name, tree::OPAQUE)?.as_deref() == Some(b"y"))
}

/// Puts a layer's folder over what is there already.
fn merge(from: &Path, to: &Path) -> io::Result<()> {
    if let (Some(parent), Some(name)) = (from.parent(), from.file_name())
        && is_opaque(parent, name.as_bytes())?
    {
        clear(to)?;
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let meta = fs::symlink_metadata(&source)?;
        let there = fs::symlink_metadata(&target).ok();
        if meta.is_dir() {
            match there {
                Some(there) if there.is_dir() => {}
                there => {
                    if there.is_some() {
                        fs::remove_file(&target)?;
                    }
                    fs::create_dir(&target)?;
                }
            }
            merge(&source, &target)?;
            continue;
        }
        match there {
            Some(there) if there.is_dir() => fs::remove_dir_all(&target)?,
            Some(_) => fs::remove_file(&target)?,
            None => {}
        }
        if !(meta.file_type().is_char_device() && meta.rdev() == 0) {
            copy(&source, &target, &meta)?;
            attributes(&source, &target, &meta)?;
        }
    }
    attributes(from, to, &fs::symlink_metadata(from)?)
}

/// Anything but a folder.
fn copy(source: &Path, target: &Path, meta: &Metadata) -> io::Result<()> {
    if meta.is_symlink() {
        return symlink(fs::read_link(source)?, target);
    }
    if meta.is_file() {
        let mut from = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(source)?;
        let mut to = OpenOptions::new().write(true).create_new(true).open(target)?;
        return io::copy(&mut from, &mut to).map(drop);
    }
    let kind = SFlag::from_bits_truncate(meta.mode() & SFlag::S_IFMT.bits());
    Ok(mknod(target, kind, Mode::empty(), meta.rdev())?)
}

/// Owner, mode, extended attributes and times, in the order in which none undoes another.
fn attributes(source: &Path, target: &Path, meta: &Metadata) -> io::Result<()> {
    lchown(target, Some(meta.uid()), Some(meta.gid()))?;
    if !meta.is_symlink() {
        fs::set_permissions(target, meta.permissions())?;
    }
    if let (Some(from), Some(to)) = (source.parent(), target.parent())
        && let (Some(name), Some(new_name)) = (source.file_name(), target.file_name())
    {
        let (from, to) = (File::open(from)?, File::open(to)?);
        for attribute in xattr::list_at(from.as_fd(), name.as_bytes())? {
            let value = xattr::get_at(from.as_fd(), name.as_bytes(), &attribute)?;
            if let Some(value) = value.filter(|_| is_wanted(attribute.as_bytes())) {
                let set = xattr::set_at(to.as_fd(), new_name.as_bytes(), &attribute, &value);
                // File systems differ in what they keep.
                set.or_else(|e| if e.raw_os_error() == Some(libc::EOPNOTSUPP) { Ok(()) } else { Err(e) })?;
            }
        }
    }
    let access = TimeSpec::new(meta.atime(), meta.atime_nsec());
    let change = TimeSpec::new(meta.mtime(), meta.mtime_nsec());
    Ok(utimensat(None, target, &access, &change, UtimensatFlags::NoFollowSymlink)?)
}

/// Empties a folder.
fn clear(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())
        } else {
            fs::remove_file(entry.path())
        }?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Files with their text, by path below `root`.
    fn write(root: &Path, files: &[(&str, &str)]) {
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    fn whiteout(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        mknod(path, SFlag::S_IFCHR, Mode::empty(), 0).unwrap();
    }

    fn opaque(path: &Path) {
        xattr::set(File::open(path).unwrap(), tree::OPAQUE, b"y").unwrap();
    }

    fn listing(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            if entry.file_type().unwrap().is_dir() {
                names.extend(listing(&entry.path()).into_iter().map(|inner| format!("{name}/{inner}")));
            } else {
                names.push(format!("{name}={}", fs::read_to_string(entry.path()).unwrap_or_default()));
            }
        }
        names.sort();
        names
    }

    #[test]
    fn layers_are_merged_as_overlayfs_shows_them() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let (one, two, three, volume) = (at("1"), at("2"), at("3"), at("v"));
        fs::create_dir(&volume).unwrap();
        write(
            &one,
            &[("var/data/a", "1"), ("var/data/b", "1"), ("var/data/sub/c", "1"), ("var/data/gone/d", "1")],
        );
        write(&two, &[("var/data/b", "2"), ("var/data/sub/e", "2"), ("var/other", "2")]);
        opaque(&two.join("var/data/sub"));
        whiteout(&two.join("var/data/gone"));
        write(&three, &[("etc/unrelated", "3"), ("var/data/a/now-a-folder", "3")]);
        fs::set_permissions(two.join("var/data"), fs::Permissions::from_mode(0o1777)).unwrap();
        fs::set_permissions(three.join("var/data"), fs::Permissions::from_mode(0o2750)).unwrap();
        lchown(three.join("var/data"), Some(7), Some(8)).unwrap();
        fill(&[one, two, three], Path::new("var/data"), &volume).unwrap();
        assert_eq!(listing(&volume), ["a/now-a-folder=3", "b=2", "sub/e=2"]);
        let meta = fs::metadata(&volume).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o2750, 7, 8));
    }

    #[test]
    fn a_folder_that_was_replaced_on_the_way_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let (one, two, three, volume) = (at("1"), at("2"), at("3"), at("v"));
        fs::create_dir(&volume).unwrap();
        write(&one, &[("a/b/old", "1")]);
        fs::create_dir(&two).unwrap();
        symlink("/etc", two.join("a")).unwrap();
        write(&three, &[("a/b/new", "3")]);
        fill(&[one.clone(), two.clone(), three], Path::new("a/b"), &volume).unwrap();
        assert_eq!(listing(&volume), ["new=3"]);
        clear(&volume).unwrap();
        fill(&[one, two], Path::new("a/b"), &volume).unwrap();
        assert_eq!(listing(&volume), Vec::<String>::new());
    }

    #[test]
    fn links_pipes_and_modes_stay_what_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let (layer, volume) = (folder.path().join("l"), folder.path().join("v"));
        write(&layer, &[("d/program", "x")]);
        fs::create_dir(&volume).unwrap();
        fs::set_permissions(layer.join("d/program"), fs::Permissions::from_mode(0o4755)).unwrap();
        symlink("../../etc/passwd", layer.join("d/link")).unwrap();
        mknod(&layer.join("d/pipe"), SFlag::S_IFIFO, Mode::from_bits_truncate(0o600), 0).unwrap();
        fill(&[layer], Path::new("d"), &volume).unwrap();
        assert_eq!(fs::read_link(volume.join("link")).unwrap(), Path::new("../../etc/passwd"));
        assert!(fs::symlink_metadata(volume.join("pipe")).unwrap().file_type().is_fifo());
        assert_eq!(fs::metadata(volume.join("program")).unwrap().mode() & 0o7777, 0o4755);
    }
}
