//! Folders that an archive names only as part of other names.
//!
//! A layer is unpacked without those below it, so such a folder gets a default owner and mode, and in the stack it
//! would hide the real ones of a lower layer (`/tmp` with its sticky bit). Which folders that concerns is found out
//! when an image is recorded; they are made in each container's writable layer with the right attributes, as if they
//! had been copied up.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap, HashSet},
    fs::File,
    os::fd::AsRawFd,
    sync::Arc,
};

use crisp_host::beneath::{Links, open_beneath};
use nix::{
    fcntl::OFlag,
    sys::stat::{FileStat, fstat},
};

use crate::{
    error::ImageError,
    index::Fixup,
    layers::{Layer, Layers},
    unpack::{path::split, tree},
};

/// More than this are not put right: no honest image needs it, and each costs time at every container's start.
const MAX_FIXUPS: usize = 4096;

/// Layers, topmost first.
struct Stack {
    layers: Vec<Seen>,
}

/// One layer and what has been found out about it.
struct Seen {
    root: File,
    implied: HashSet<Vec<u8>>,
    /// Answers, also about parents: most folders of one layer are nowhere in the others, nor is what is above them.
    known: RefCell<HashMap<Vec<u8>, Option<FileStat>>>,
}

/// What must be made in a writable layer above these layers (lowest first). Parents come before their children.
pub(crate) fn fixups(layers: &Layers, stack: &[Arc<Layer>]) -> Result<Vec<Fixup>, ImageError> {
    let mut opened = Vec::new();
    for layer in stack.iter().rev() {
        let path = layers.files(layer);
        let file =
            File::open(&path).map_err(|e| ImageError::host("opening", path.display().to_string(), e))?;
        opened.push(Seen {
            root: file,
            implied: layer.record.implied().collect(),
            known: RefCell::default(),
        });
        if layer.record.opaque_root {
            break;
        }
    }
    let stack = Stack { layers: opened };
    let mut needed: BTreeMap<Vec<u8>, Fixup> = BTreeMap::new();
    let implied = stack.layers.iter().flat_map(|layer| &layer.implied);
    // The root is always made anew, as the writable layer itself.
    for path in implied.chain([&Vec::new()]) {
        if needed.len() >= MAX_FIXUPS {
            tracing::warn!("too many folders without an entry of their own; the rest keep default modes");
            break;
        }
        let wanted = if path.is_empty() { stack.attributes(path) } else { stack.hidden_attributes(path) };
        let Some(fixup) = wanted.filter(|f| (f.mode, f.uid, f.gid) != (0o755, 0, 0)) else { continue };
        // Its parents are made too, and must look like what they hide.
        let mut parent = path.as_slice();
        while let Some((above, _)) = split(parent) {
            if !above.is_empty() && !needed.contains_key(above) {
                needed.insert(above.to_vec(), stack.attributes(above).unwrap_or_else(|| plain(above)));
            }
            parent = above;
        }
        needed.insert(path.clone(), fixup);
    }
    Ok(needed.into_values().collect())
}

fn plain(path: &[u8]) -> Fixup {
    Fixup { path: path.to_vec(), mode: 0o755, uid: 0, gid: 0, mtime: (0, 0) }
}

impl Seen {
    fn look(&self, path: &[u8]) -> Option<FileStat> {
        let mut known = self.known.borrow_mut();
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        // From the top: below what is missing nothing can be.
        for end in ends.chain([path.len()]) {
            let part = &path[..end];
            let found = match known.get(part) {
                Some(found) => *found,
                None => *known.entry(part.to_vec()).or_insert(self.stat(part)),
            };
            if found.is_none() || end == path.len() {
                return found;
            }
        }
        None
    }

    fn stat(&self, path: &[u8]) -> Option<FileStat> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = (OFlag::O_PATH | OFlag::O_NOFOLLOW).bits();
        let fd = open_beneath(&self.root, path, flags, Links::Refuse).ok()?;
        fstat(fd.as_raw_fd()).ok()
    }
}

impl Stack {
    /// Attributes from the topmost layer that has an entry of its own for the folder.
    fn attributes(&self, path: &[u8]) -> Option<Fixup> {
        // Implied ones are folders and have nothing to tell.
        for layer in self.layers.iter().filter(|layer| !layer.implied.contains(path)) {
            match layer.look(path) {
                Some(stat) if !tree::is_folder(&stat) => return None,
                Some(stat) => {
                    let mtime = (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0));
                    let mode = stat.st_mode & 0o7777;
                    return Some(Fixup {
                        path: path.to_vec(),
                        mode,
                        uid: stat.st_uid,
                        gid: stat.st_gid,
                        mtime,
                    });
                }
                None => {}
            }
        }
        None
    }

    /// The same, if what would be seen in the stack is a folder without an entry.
    fn hidden_attributes(&self, path: &[u8]) -> Option<Fixup> {
        let has = |layer: &&Seen| layer.implied.contains(path) || layer.look(path).is_some();
        let topmost = self.layers.iter().find(has)?;
        if topmost.implied.contains(path) { self.attributes(path) } else { None }
    }
}
