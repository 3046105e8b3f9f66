//! Folders that an archive names only as part of other names.
//!
//! A layer is unpacked without those below it, so such a folder gets a default owner and mode, and in the stack it
//! would hide the real ones of a lower layer (`/tmp` with its sticky bit). Which folders that concerns is found out
//! when an image is recorded; they are made in each container's writable layer with the right attributes, as if they
//! had been copied up.

use std::{
    collections::{BTreeMap, HashSet},
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

struct Stack {
    /// Topmost first.
    layers: Vec<(File, HashSet<Vec<u8>>)>,
}

/// What must be made in a writable layer above these layers (lowest first). Parents come before their children.
pub(crate) fn fixups(layers: &Layers, stack: &[Arc<Layer>]) -> Result<Vec<Fixup>, ImageError> {
    let mut opened = Vec::new();
    for layer in stack.iter().rev() {
        let path = layers.files(layer);
        let file =
            File::open(&path).map_err(|e| ImageError::host("opening", path.display().to_string(), e))?;
        opened.push((file, layer.record.implied().collect::<HashSet<_>>()));
        if layer.record.opaque_root {
            break;
        }
    }
    let stack = Stack { layers: opened };
    let mut needed: BTreeMap<Vec<u8>, Fixup> = BTreeMap::new();
    let implied = stack.layers.iter().flat_map(|(_, implied)| implied);
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

impl Stack {
    fn look(&self, layer: &File, path: &[u8]) -> Option<FileStat> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = (OFlag::O_PATH | OFlag::O_NOFOLLOW).bits();
        let fd = open_beneath(layer, path, flags, Links::Refuse).ok()?;
        fstat(fd.as_raw_fd()).ok()
    }

    /// Attributes from the topmost layer that has an entry of its own for the folder.
    fn attributes(&self, path: &[u8]) -> Option<Fixup> {
        for (layer, implied) in &self.layers {
            match self.look(layer, path) {
                Some(stat) if !tree::is_folder(&stat) => return None,
                Some(stat) if !implied.contains(path) => {
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
                _ => {}
            }
        }
        None
    }

    /// The same, if what would be seen in the stack is a folder without an entry.
    fn hidden_attributes(&self, path: &[u8]) -> Option<Fixup> {
        let topmost = self.layers.iter().find(|(layer, _)| self.look(layer, path).is_some())?;
        if topmost.1.contains(path) { self.attributes(path) } else { None }
    }
}
