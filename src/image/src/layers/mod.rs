//! Layers on disk, each unpacked once and shared by everything that uses it.
//!
//! ```text
//!   tmp/<n>/     being unpacked             --commit: syncfs, rename-->   layers/<n>/{fs,recipe,layer.json}
//!   layers/<n>/  whole, checked, synced     --last lease dropped------>   trash/<n>   (deleted off every request)
//! ```
//!
//! An [`Arc<Layer>`] is a lease: images, containers' root file systems and running pulls hold them, and a layer whose
//! last lease is dropped goes to the trash. So no count can be wrong and no collector can race with a pull. A layer
//! gets a fresh number each time it is unpacked; numbers, in base 36, keep overlayfs' options short.
//! When the store itself goes, leases die without effect. After a crash `tmp` and `trash` mean nothing, and
//! what `layers` holds is whole, because it was synced before it was renamed there.

mod pace;
mod record;
mod trash;

use std::{
    collections::HashMap,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use crisp_host::file;

pub(crate) use record::LayerRecord;
use trash::Quiet;
pub(crate) use trash::Trash;

use crate::{digest::Digest, error::ImageError};

/// All layers of a store.
#[derive(Debug)]
pub(crate) struct Layers {
    root: PathBuf,
    /// By diff id; the newest if there are several.
    known: Mutex<HashMap<Digest, Weak<Layer>>>,
    next: AtomicU64,
    /// Renames of one commit are not interleaved with another's.
    committing: Mutex<()>,
    trash: Trash,
    bytes: AtomicU64,
    inodes: AtomicU64,
    /// The store is going: leases that end now mean nothing.
    closed: AtomicBool,
}

/// A lease of one layer.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) number: u64,
    pub(crate) record: LayerRecord,
    committed: AtomicBool,
    layers: Weak<Layers>,
}

impl Drop for Layer {
    fn drop(&mut self) {
        if let Some(layers) = self.layers.upgrade() {
            layers.forget(self);
        }
    }
}

/// A layer that is being unpacked. Dropped: thrown away.
#[derive(Debug)]
pub(crate) struct Staging {
    layers: Arc<Layers>,
    number: u64,
    armed: bool,
    trash: u64,
    _quiet: Quiet,
}

impl Staging {
    pub(crate) fn path(&self) -> PathBuf {
        self.layers.staging_path(self.number)
    }

    /// The disk is full: throws this layer away, and deletes what was removed before, too, which does not happen at once.
    /// Tells whether there is more room now than when this layer was begun. Blocking.
    pub(crate) fn make_room(self) -> bool {
        let layers = Arc::clone(&self.layers);
        // Asked before the remains of this layer are in the trash.
        let more = layers.trash.has_more_room_than(self.trash);
        drop(self);
        if more {
            layers.trash.empty_now();
        }
        more
    }

    /// What was unpacked is whole; writes its record. Not durable before [`Layers::commit`].
    pub(crate) fn finish(mut self, record: LayerRecord) -> Result<Arc<Layer>, ImageError> {
        let path = self.path().join("layer.json");
        std::fs::write(&path, record.to_json())
            .map_err(|e| ImageError::host("writing", path.display().to_string(), e))?;
        self.armed = false;
        Ok(self.layers.adopt(self.number, record, false))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.armed {
            self.layers.trash.take(&self.path());
        }
    }
}

/// What opening found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Leases of all whole layers; those that nobody else takes are freed when this is dropped.
    pub(crate) layers: Vec<Arc<Layer>>,
    /// Unfinished layers that were thrown away.
    pub(crate) unfinished: usize,
    /// Layers without a readable record.
    pub(crate) damaged: Vec<String>,
}

impl Layers {
    pub(crate) fn open(root: &Path) -> Result<(Arc<Self>, Found), ImageError> {
        let host =
            |operation, path: &Path, e: io::Error| ImageError::host(operation, path.display().to_string(), e);
        for name in ["tmp", "layers", "trash", "empty", "empty-twin"] {
            let path = root.join(name);
            std::fs::create_dir_all(&path).map_err(|e| host("making", &path, e))?;
        }
        // Layers are unpacked side by side, often right after others were deleted.
        if let Err(error) = File::open(root.join("tmp")).and_then(crisp_host::placement::spread_subfolders) {
            tracing::debug!(%error, "the file system places folders by itself");
        }
        let trash = Trash::open(&root.join("trash")).map_err(|e| host("opening", &root.join("trash"), e))?;
        let mut found = Found::default();
        for (path, _) in entries(&root.join("tmp"))? {
            trash.take(&path);
            found.unfinished += 1;
        }
        let layers = Arc::new(Self {
            root: root.to_owned(),
            known: Mutex::default(),
            next: AtomicU64::new(1),
            committing: Mutex::default(),
            trash,
            bytes: AtomicU64::new(0),
            inodes: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        });
        let mut numbered = Vec::new();
        for (path, name) in entries(&root.join("layers"))? {
            match parse_number(&name).and_then(|number| Some((number, LayerRecord::read(&path)?))) {
                Some(layer) => numbered.push(layer),
                None => {
                    layers.trash.take(&path);
                    found.damaged.push(name);
                }
            }
        }
        // In order, so that the newest of two layers with one diff id is the known one.
        numbered.sort_by_key(|(number, _)| *number);
        layers.next.store(numbered.last().map_or(1, |(number, _)| number + 1), Ordering::Relaxed);
        found.layers =
            numbered.into_iter().map(|(number, record)| layers.adopt(number, record, true)).collect();
        Ok((layers, found))
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Digest, Weak<Layer>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn adopt(self: &Arc<Self>, number: u64, record: LayerRecord, committed: bool) -> Arc<Layer> {
        self.bytes.fetch_add(record.bytes, Ordering::Relaxed);
        self.inodes.fetch_add(record.inodes, Ordering::Relaxed);
        let diff_id = record.diff_id.clone();
        let layer = Arc::new(Layer {
            number,
            record,
            committed: AtomicBool::new(committed),
            layers: Arc::downgrade(self),
        });
        self.known().insert(diff_id, Arc::downgrade(&layer));
        layer
    }

    /// A lease of a layer that is here.
    pub(crate) fn get(&self, diff_id: &Digest) -> Option<Arc<Layer>> {
        self.known().get(diff_id).and_then(Weak::upgrade)
    }

    /// Makes room for a layer to be unpacked.
    pub(crate) fn stage(self: &Arc<Self>) -> Result<Staging, ImageError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.staging_path(number);
        std::fs::create_dir(&path).map_err(|e| ImageError::host("making", path.display().to_string(), e))?;
        Ok(Staging {
            layers: Arc::clone(self),
            number,
            armed: true,
            trash: self.trash.mark(),
            _quiet: self.trash.quiet(),
        })
    }

    /// Makes layers durable: one syncfs for all of them, then the renames that make them part of the store. Blocking.
    pub(crate) fn commit(&self, layers: &[Arc<Layer>]) -> Result<(), ImageError> {
        let host = |operation, path: &Path, e| ImageError::host(operation, path.display().to_string(), e);
        let folder = self.root.join("layers");
        let _quiet = self.trash.quiet();
        // Everything that was written before, also the image's configuration beside the layers.
        File::open(&self.root).and_then(file::sync_filesystem).map_err(|e| host("syncing", &self.root, e))?;
        let _committing = self.committing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut renamed = false;
        for layer in layers {
            if !layer.committed.load(Ordering::Acquire) {
                let (from, to) = (self.staging_path(layer.number), self.path(layer.number));
                std::fs::rename(&from, &to).map_err(|e| host("renaming", &from, e))?;
                layer.committed.store(true, Ordering::Release);
                renamed = true;
            }
        }
        if renamed {
            file::sync_folder(&folder).map_err(|e| host("syncing", &folder, e))?;
        }
        Ok(())
    }

    /// A layer found to be wrong is not handed out any more; those who use it keep it.
    pub(crate) fn distrust(&self, layer: &Layer) {
        let mut known = self.known();
        if known.get(&layer.record.diff_id).is_some_and(|weak| std::ptr::eq(weak.as_ptr(), layer)) {
            known.remove(&layer.record.diff_id);
        }
    }

    /// From now on nothing is freed. The daemon ends with all its leases, which must not free what they lease.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    fn forget(&self, layer: &Layer) {
        if self.closed.load(Ordering::Acquire) {
            return;
        }
        self.bytes.fetch_sub(layer.record.bytes, Ordering::Relaxed);
        self.inodes.fetch_sub(layer.record.inodes, Ordering::Relaxed);
        self.distrust(layer);
        let committed = layer.committed.load(Ordering::Acquire);
        self.trash.take(&if committed { self.path(layer.number) } else { self.staging_path(layer.number) });
    }

    /// Bytes and inodes of all layers.
    pub(crate) fn totals(&self) -> (u64, u64) {
        (self.bytes.load(Ordering::Relaxed), self.inodes.load(Ordering::Relaxed))
    }

    fn staging_path(&self, number: u64) -> PathBuf {
        self.root.join("tmp").join(format_number(number))
    }

    /// A layer's folder.
    pub(crate) fn path(&self, number: u64) -> PathBuf {
        self.root.join("layers").join(format_number(number))
    }

    /// A layer's files.
    pub(crate) fn files(&self, layer: &Layer) -> PathBuf {
        self.path(layer.number).join("fs")
    }

    /// Another one, where two different folders are needed.
    pub(crate) fn empty_twin(&self) -> PathBuf {
        self.root.join("empty-twin")
    }

    /// A folder that is always empty: overlayfs wants two lower layers where there is no upper one.
    pub(crate) fn empty(&self) -> PathBuf {
        self.root.join("empty")
    }
}

/// Paths and names in a folder.
fn entries(folder: &Path) -> Result<Vec<(PathBuf, String)>, ImageError> {
    let host = |e| ImageError::host("listing", folder.display().to_string(), e);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(host)? {
        let entry = entry.map_err(host)?;
        found.push((entry.path(), entry.file_name().to_string_lossy().into_owned()));
    }
    Ok(found)
}

fn format_number(mut number: u64) -> String {
    let mut digits = Vec::new();
    loop {
        digits.push(b"0123456789abcdefghijklmnopqrstuvwxyz"[(number % 36) as usize]);
        number /= 36;
        if number == 0 {
            break;
        }
    }
    digits.iter().rev().map(|b| char::from(*b)).collect()
}

fn parse_number(name: &str) -> Option<u64> {
    u64::from_str_radix(name, 36).ok().filter(|number| format_number(*number) == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_unambiguous() {
        for number in [0, 1, 35, 36, 1295, 1296, u64::MAX] {
            assert_eq!(parse_number(&format_number(number)), Some(number));
        }
        for bad in ["", "01", "A", "+1", "a/b"] {
            assert_eq!(parse_number(bad), None, "{bad}");
        }
    }
}
