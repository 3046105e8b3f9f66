//! Looks paths up in a stack of layers without mounting it (overlayfs' rules: kernel, filesystems/overlayfs.rst).

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs::File,
    io::Read,
    os::{fd::AsFd, fd::AsRawFd, unix::ffi::OsStringExt},
    path::PathBuf,
    sync::Arc,
};

use crisp_host::{
    beneath::{Links, open_beneath},
    xattr,
};
use nix::{
    fcntl::OFlag,
    sys::stat::{SFlag, fstat},
};

use crate::{
    error::{ImageError, printable},
    layers::{Layer, Layers},
    unpack::tree,
};

/// As many links as the kernel follows.
const MAX_LINKS: usize = 40;

enum Found {
    Folder,
    Other,
    Link(Vec<u8>),
}

/// The real path of `sub_path` within the image, relative and without links. Leaving the image is an error, as is a
/// path that does not exist.
pub(super) fn resolve(layers: &Layers, stack: &[Arc<Layer>], sub_path: &str) -> Result<PathBuf, ImageError> {
    let refuse = |why| ImageError::InvalidReference { reference: format!("sub path {sub_path:?}"), why };
    if sub_path.starts_with('/') {
        return Err(refuse("it must be relative"));
    }
    let opened = open(layers, stack)?;
    let mut todo: VecDeque<Vec<u8>> = sub_path.split('/').map(|part| part.as_bytes().to_vec()).collect();
    let (mut at, mut links): (Vec<Vec<u8>>, usize) = (Vec::new(), 0);
    while let Some(part) = todo.pop_front() {
        match part.as_slice() {
            b"" | b"." => continue,
            b".." => {
                at.pop().ok_or_else(|| refuse("it leaves the image"))?;
                continue;
            }
            _ => at.push(part),
        }
        match look(&opened, &at)? {
            None => {
                let reference = format!("sub path {sub_path:?}");
                return Err(ImageError::NotFound { reference, detail: printable(&at.join(&b'/')) });
            }
            Some(Found::Link(target)) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(refuse("too many links"));
                }
                at.pop();
                if target.starts_with(b"/") {
                    at.clear();
                }
                for part in target.split(|b| *b == b'/').rev() {
                    todo.push_front(part.to_vec());
                }
            }
            Some(Found::Other) if todo.iter().any(|part| !part.is_empty()) => {
                return Err(refuse("a part of it is no folder"));
            }
            Some(Found::Folder | Found::Other) => {}
        }
    }
    Ok(OsString::from_vec(at.join(&b'/')).into())
}

/// The layers that can be seen, topmost first.
fn open(layers: &Layers, stack: &[Arc<Layer>]) -> Result<Vec<File>, ImageError> {
    let mut opened = Vec::new();
    for layer in stack.iter().rev() {
        let path = layers.files(layer);
        let file = File::open(&path);
        opened.push(file.map_err(|e| ImageError::host("opening", path.display().to_string(), e))?);
        if layer.record.opaque_root {
            break;
        }
    }
    Ok(opened)
}

/// The first `limit` bytes of a regular file of the image (relative path, links followed inside the image); `None`: there is
/// no such file.
pub(super) fn read(
    layers: &Layers,
    stack: &[Arc<Layer>],
    path: &str,
    limit: u64,
) -> Result<Option<Vec<u8>>, ImageError> {
    let real = match resolve(layers, stack, path) {
        Err(ImageError::NotFound { .. } | ImageError::InvalidReference { .. }) => return Ok(None),
        other => other?,
    };
    let flags = (OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let name = real.as_os_str().as_encoded_bytes();
    // It is seen, so the topmost layer that has it is the one that is seen.
    let found =
        open(layers, stack)?.into_iter().find_map(|l| open_beneath(&l, name, flags, Links::Refuse).ok());
    let Some(file) = found.map(File::from) else { return Ok(None) };
    let host = |e| ImageError::host("reading", printable(name), e);
    if !file.metadata().map_err(host)?.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).map_err(host)?;
    Ok(Some(bytes))
}

/// What is at a path all of whose parents are folders.
fn look(layers: &[File], path: &[Vec<u8>]) -> Result<Option<Found>, ImageError> {
    for layer in layers {
        let mut hides_below = false;
        for depth in 1..=path.len() {
            let name = path[..depth].join(&b'/');
            let flags = (OFlag::O_PATH | OFlag::O_NOFOLLOW).bits();
            let Ok(fd) = open_beneath(layer, &name, flags, Links::Refuse) else { break };
            let stat = fstat(fd.as_raw_fd())
                .map_err(|e| ImageError::host("looking at", printable(&name), e.into()))?;
            if tree::is_whiteout(&stat) {
                return Ok(None);
            }
            if depth == path.len() {
                return kind(layer, &name, stat.st_mode).map(Some);
            }
            if !tree::is_folder(&stat) {
                return Ok(None);
            }
            let opaque = xattr::get_at(layer.as_fd(), &name, tree::OPAQUE)
                .map_err(|e| ImageError::host("looking at", printable(&name), e))?;
            hides_below |= opaque.as_deref() == Some(b"y");
        }
        if hides_below {
            return Ok(None);
        }
    }
    Ok(None)
}

fn kind(layer: &File, name: &[u8], mode: u32) -> Result<Found, ImageError> {
    match SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFDIR => Ok(Found::Folder),
        SFlag::S_IFLNK => nix::fcntl::readlinkat(Some(layer.as_raw_fd()), name)
            .map(|target| Found::Link(target.into_vec()))
            .map_err(|e| ImageError::host("reading the link", printable(name), e.into())),
        _ => Ok(Found::Other),
    }
}
