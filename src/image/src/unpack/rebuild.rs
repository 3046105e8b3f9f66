//! The way back: from an unpacked layer and its recipe to the archive, and the check of one against the other.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufReader, Read},
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::FileExt,
    },
    path::Path,
};

use crisp_host::{
    beneath::{Links, open_beneath},
    xattr,
};
use nix::{
    fcntl::{OFlag, readlinkat},
    sys::stat::{FileStat, SFlag, makedev},
};
use sha2::{Digest as _, Sha256};

use super::{
    archive::{Archive, Entry},
    attributes,
    header::Kind,
    path::LayerPath,
    recipe::{Step, Steps},
    tree,
};
use crate::{digest::Digest, error::printable};

/// The archive of a layer, put together while it is read.
pub(crate) struct Rebuilt {
    root: File,
    steps: Steps<File>,
    bytes: Vec<u8>,
    at: usize,
    /// The file that is being read, its runs, and how far the first of them is.
    content: Option<(File, Vec<super::Segment>, Vec<u8>)>,
}

impl Rebuilt {
    /// Opens a layer's files and recipe.
    pub(crate) fn open(files: &Path, recipe: &Path) -> io::Result<Self> {
        let steps = Steps::new(File::open(recipe)?)?;
        Ok(Self { root: File::open(files)?, steps, bytes: Vec::new(), at: 0, content: None })
    }

    fn next_step(&mut self) -> io::Result<bool> {
        match self.steps.next() {
            None => Ok(false),
            Some(Err(error)) => Err(io::Error::other(error.to_string())),
            Some(Ok(Step::Bytes(bytes))) => {
                (self.bytes, self.at) = (bytes, 0);
                Ok(true)
            }
            Some(Ok(Step::Content { path, mut runs })) => {
                let flags = (OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
                let file = open_beneath(&self.root, &path, flags, Links::InRoot)
                    .map_err(|e| io::Error::new(e.kind(), format!("{:?}: {e}", printable(&path))))?;
                runs.reverse();
                self.content = Some((file.into(), runs, path));
                Ok(true)
            }
        }
    }
}

impl Read for Rebuilt {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.at < self.bytes.len() {
                let count = buffer.len().min(self.bytes.len() - self.at);
                buffer[..count].copy_from_slice(&self.bytes[self.at..self.at + count]);
                self.at += count;
                return Ok(count);
            }
            if let Some((file, runs, path)) = &mut self.content {
                match runs.last_mut() {
                    None => self.content = None,
                    Some(run) if run.length == 0 => drop(runs.pop()),
                    Some(run) => {
                        let wanted = buffer.len().min(usize::try_from(run.length).unwrap_or(usize::MAX));
                        let count = file.read_at(&mut buffer[..wanted], run.offset)?;
                        if count == 0 {
                            return Err(io::Error::other(format!("{:?} is too short", printable(path))));
                        }
                        run.offset += count as u64;
                        run.length -= count as u64;
                        return Ok(count);
                    }
                }
                continue;
            }
            if !self.next_step()? {
                return Ok(0);
            }
        }
    }
}

/// Hashes what passes.
struct Tee<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

/// Checks an unpacked layer: content against the digest, attributes against the archive. The error says what differs
/// first. Reads everything.
pub(crate) fn check_layer(files: &Path, recipe: &Path, diff_id: &Digest) -> Result<(), String> {
    let rebuilt = Rebuilt::open(files, recipe).map_err(|e| format!("its files or recipe: {e}"))?;
    let root = File::open(files).map_err(|e| e.to_string())?;
    let mut tee = Tee { inner: rebuilt, hash: Sha256::new() };
    let mut wrong = None;
    {
        let mut archive = Archive::new(BufReader::with_capacity(1 << 20, &mut tee), ());
        // A folder may come twice; the last entry counts.
        let mut folders: HashMap<LayerPath, Entry> = HashMap::new();
        while let Some(entry) = archive.next_entry().map_err(|e| e.to_string())? {
            let Ok(path) = LayerPath::parse(&entry.path) else { continue };
            if path.parts().any(|part| part.starts_with(b".wh.")) {
                continue;
            }
            if entry.kind == Kind::Folder {
                folders.insert(path, entry);
            } else if wrong.is_none() {
                wrong = differs(&root, &path, &entry);
            }
        }
        for (path, entry) in &folders {
            wrong = wrong.or_else(|| differs(&root, path, entry));
        }
    }
    // The archive ends before the stream does if its end is missing or followed by something.
    io::copy(&mut tee, &mut io::sink()).map_err(|e| e.to_string())?;
    let found = Digest::from_hash(tee.hash);
    if found != *diff_id {
        return Err(format!("its content has the digest {found}"));
    }
    wrong.map_or(Ok(()), Err)
}

/// How a file differs from its entry.
fn differs(root: &File, path: &LayerPath, entry: &Entry) -> Option<String> {
    let name = printable(path.as_bytes());
    let says = |what: &str| Some(format!("{name:?}: {what}"));
    let flags = (OFlag::O_PATH | OFlag::O_DIRECTORY).bits();
    let (folder, last) = path.split().unwrap_or((b"", b"."));
    let folder = if folder.is_empty() { b"." } else { folder };
    let Ok(folder) = open_beneath(root, folder, flags, Links::InRoot) else {
        return says("its folder is missing");
    };
    let Ok(Some(stat)) = tree::look(folder.as_fd(), last) else { return says("it is missing") };
    let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
    let expected = match entry.kind {
        // A hard link is whatever its target is, and has its attributes from there.
        Kind::HardLink => return None,
        Kind::File | Kind::OldSparse => SFlag::S_IFREG,
        Kind::Folder => SFlag::S_IFDIR,
        Kind::SymLink => SFlag::S_IFLNK,
        Kind::CharDevice => SFlag::S_IFCHR,
        Kind::BlockDevice => SFlag::S_IFBLK,
        Kind::Fifo => SFlag::S_IFIFO,
    };
    if kind != expected {
        return says("it is of another kind");
    }
    if (stat.st_uid, stat.st_gid) != (entry.uid, entry.gid) {
        return says("its owner has changed");
    }
    if kind != SFlag::S_IFLNK && stat.st_mode & 0o7777 != entry.mode {
        return says("its mode has changed");
    }
    if stat.st_mtime != entry.mtime.0 {
        return says("its time has changed");
    }
    details(&folder, last, &stat, entry).and_then(says)
}

fn details(folder: &impl AsFd, name: &[u8], stat: &FileStat, entry: &Entry) -> Option<&'static str> {
    let folder = folder.as_fd();
    match entry.kind {
        Kind::File if u64::try_from(stat.st_size) != Ok(entry.size) => return Some("its size has changed"),
        Kind::SymLink => {
            let target = readlinkat(Some(folder.as_raw_fd()), name).ok();
            if target
                .is_none_or(|target| std::os::unix::ffi::OsStrExt::as_bytes(target.as_os_str()) != entry.link)
            {
                return Some("its target has changed");
            }
        }
        Kind::CharDevice | Kind::BlockDevice
            if stat.st_rdev != makedev(entry.device.0.into(), entry.device.1.into()) =>
        {
            return Some("its device number has changed");
        }
        _ => {}
    }
    let mut wanted = entry.xattrs.iter().filter(|(name, _)| attributes::is_wanted(name));
    wanted
        .any(|(key, value)| {
            let Ok(key) = std::ffi::CString::new(key.clone()) else { return false };
            !matches!(xattr::get_at(folder, name, &key), Ok(Some(found)) if found == *value)
        })
        .then_some("an extended attribute has changed")
}
