//! Which images are here and what they are called.
//!
//! One record an image, `index/<id>.json`, with its configuration and manifest as served beside it. Records are
//! replaced atomically and only written after everything they speak of is durable. Readers look at the maps in
//! memory; writers, one at a time, change the disk first. If a crash leaves two images with one tag, the one with the
//! higher generation has it.

mod record;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crisp_host::file;

pub(crate) use record::{Fixup, ImageRecord, RecordedLayer};

use crate::{digest::Digest, error::ImageError, image::Image, layers::Layer, reference::Reference};

/// Decides by name whether an image is pinned.
pub(crate) type PinRule = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// The index.
pub(crate) struct Index {
    folder: PathBuf,
    state: Mutex<State>,
    /// Held while the disk and then `state` are changed. Only ever locked in blocking code.
    writing: Mutex<()>,
    pinned: PinRule,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index").field("folder", &self.folder).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct State {
    images: BTreeMap<Digest, Arc<Image>>,
    /// Tags and repo digests.
    names: HashMap<String, Digest>,
    generation: u64,
}

impl State {
    fn insert(&mut self, image: Arc<Image>) {
        let id = image.record.id.clone();
        self.remove(&id);
        for name in image.repo_tags.iter().chain(&image.repo_digests) {
            self.names.insert(name.clone(), id.clone());
        }
        self.images.insert(id, image);
    }

    fn remove(&mut self, id: &Digest) -> Option<Arc<Image>> {
        let image = self.images.remove(id)?;
        for name in image.repo_tags.iter().chain(&image.repo_digests) {
            if self.names.get(name) == Some(id) {
                self.names.remove(name);
            }
        }
        Some(image)
    }
}

impl Index {
    /// Reads all records. `leases` finds the layers of a record.
    pub(crate) fn open(
        root: &Path,
        pinned: PinRule,
        leases: impl Fn(&ImageRecord) -> Option<Vec<Arc<Layer>>>,
    ) -> Result<(Self, Vec<String>), ImageError> {
        let folder = root.join("index");
        let host = |operation, path: &Path, e| ImageError::host(operation, path.display().to_string(), e);
        std::fs::create_dir_all(&folder).map_err(|e| host("making", &folder, e))?;
        let index =
            Self { folder: folder.clone(), state: Mutex::default(), writing: Mutex::default(), pinned };
        let (mut records, mut damaged) = (Vec::new(), Vec::new());
        for entry in std::fs::read_dir(&folder).map_err(|e| host("listing", &folder, e))? {
            let path = entry.map_err(|e| host("listing", &folder, e))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with(file::TEMPORARY_PREFIX) {
                let _ = std::fs::remove_file(&path);
                continue;
            }
            let Some(hex) = name.strip_suffix(".json") else { continue };
            let loaded = ImageRecord::read(&folder, hex);
            match loaded.and_then(|record| {
                leases(&record).map(|layers| (record, layers)).ok_or_else(|| "layers are missing".into())
            }) {
                Ok(loaded) => records.push(loaded),
                Err(why) => {
                    damaged.push(format!("{hex}: {why}"));
                    index.erase(hex)?;
                }
            }
        }
        // The later one has a contested name.
        records.sort_by_key(|(record, _)| record.generation);
        let mut state = index.state();
        let mut names = HashMap::new();
        for (record, _) in &records {
            for name in record.repo_tags.iter().chain(&record.repo_digests) {
                names.insert(name.clone(), record.id.clone());
            }
        }
        for (mut record, layers) in records {
            state.generation = record.generation;
            record.repo_tags.retain(|name| names.get(name) == Some(&record.id));
            record.repo_digests.retain(|name| names.get(name) == Some(&record.id));
            state.insert(index.image(record, layers));
        }
        drop(state);
        Ok((index, damaged))
    }

    fn image(&self, record: ImageRecord, layers: Vec<Arc<Layer>>) -> Arc<Image> {
        Arc::new(Image::new(Arc::new(record), layers, |name| (self.pinned)(name)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn list(&self) -> Vec<Arc<Image>> {
        self.state().images.values().cloned().collect()
    }

    /// By id (with or without algorithm, or the start of one), repo digest, tag or short name.
    pub(crate) fn resolve(&self, text: &str) -> Option<Arc<Image>> {
        let state = self.state();
        if let Ok(id) = text.parse::<Digest>() {
            return state.images.get(&id).cloned();
        }
        if let Some(image) = by_name(&state, text) {
            return Some(image);
        }
        by_id_prefix(&state, text.strip_prefix("sha256:").unwrap_or(text))
    }

    /// Whether the files beside a record are there.
    pub(crate) fn raw(&self, id: &Digest, what: &str) -> Result<Vec<u8>, ImageError> {
        let path = self.folder.join(format!("{}.{what}", id.hex()));
        std::fs::read(&path).map_err(|e| ImageError::host("reading", path.display().to_string(), e))
    }

    /// Writes an image's configuration and manifest, durably.
    fn write_raw(&self, id: &Digest, config: &[u8], manifest: &[u8]) -> Result<(), ImageError> {
        for (what, bytes) in [("config", config), ("manifest", manifest)] {
            let path = self.folder.join(format!("{}.{what}", id.hex()));
            // The same id has the same configuration, so only a missing or damaged one is replaced.
            if std::fs::read(&path).is_ok_and(|present| present == bytes) {
                continue;
            }
            file::replace_atomically(&path, bytes)
                .map_err(|e| ImageError::host("writing", path.display().to_string(), e))?;
        }
        Ok(())
    }

    /// Records an image with its configuration and manifest and gives it its new names, which other images lose. Blocking.
    pub(crate) fn record(
        &self,
        mut record: ImageRecord,
        (config, manifest): (&[u8], &[u8]),
        layers: Vec<Arc<Layer>>,
    ) -> Result<Arc<Image>, ImageError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock: a removal of the same image may just have taken them away.
        self.write_raw(&record.id, config, manifest)?;
        let (losers, unchanged) = {
            let mut state = self.state();
            let present = state.images.get(&record.id).cloned();
            if let Some(present) = &present {
                record.repo_tags.extend(present.record.repo_tags.iter().cloned());
                record.repo_digests.extend(present.record.repo_digests.iter().cloned());
            }
            let names: BTreeSet<_> = record.repo_tags.iter().chain(&record.repo_digests).cloned().collect();
            let losers: BTreeSet<_> = names
                .iter()
                .filter_map(|name| state.names.get(name))
                .filter(|id| **id != record.id)
                .cloned()
                .collect();
            let losers: Vec<_> = losers
                .iter()
                .filter_map(|id| state.images.get(id).cloned())
                .map(|image| (image, names.clone()))
                .collect();
            record.generation = state.generation + 1;
            state.generation += 1;
            let unchanged = present.filter(|present| {
                present.record.repo_tags == record.repo_tags
                    && present.record.repo_digests == record.repo_digests
                    && present.record.layers == record.layers
                    && present.layers.iter().zip(&layers).all(|(a, b)| a.number == b.number)
            });
            (losers, unchanged)
        };
        if let Some(image) = unchanged.filter(|_| losers.is_empty()) {
            return Ok(image);
        }
        self.save(&record)?;
        let image = self.image(record, layers);
        // Replaced images are dropped after the lock: their layers may go to the trash.
        let mut replaced = Vec::new();
        for (loser, names) in losers {
            let mut reduced = (*loser.record).clone();
            reduced.repo_tags.retain(|name| !names.contains(name));
            reduced.repo_digests.retain(|name| !names.contains(name));
            self.save(&reduced)?;
            let reduced = self.image(reduced, loser.layers.clone());
            let mut state = self.state();
            replaced.extend(state.remove(&reduced.record.id));
            state.insert(reduced);
        }
        let mut state = self.state();
        replaced.extend(state.remove(&image.record.id));
        state.insert(Arc::clone(&image));
        drop(state);
        Ok(image)
    }

    fn save(&self, record: &ImageRecord) -> Result<(), ImageError> {
        let path = self.folder.join(format!("{}.json", record.id.hex()));
        file::replace_atomically(&path, &record.to_json())
            .map_err(|e| ImageError::host("writing", path.display().to_string(), e))
    }

    /// Forgets an image with all its names. Unknown: nothing happens. Blocking.
    pub(crate) fn remove(&self, text: &str) -> Result<Option<Arc<Image>>, ImageError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(image) = self.resolve(text) else { return Ok(None) };
        self.erase(image.record.id.hex())?;
        let removed = self.state().remove(&image.record.id);
        Ok(removed)
    }

    fn erase(&self, hex: &str) -> Result<(), ImageError> {
        // The record first: without it the others mean nothing.
        for what in ["json", "config", "manifest"] {
            let path = self.folder.join(format!("{hex}.{what}"));
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(ImageError::host("removing", path.display().to_string(), e));
                }
                _ => {}
            }
        }
        file::sync_folder(&self.folder)
            .map_err(|e| ImageError::host("syncing", self.folder.display().to_string(), e))
    }
}

fn by_name(state: &State, text: &str) -> Option<Arc<Image>> {
    let reference = Reference::parse(text).ok()?;
    let name = match reference.digest() {
        Some(digest) => reference.repo_digest(digest),
        None => reference.repo_tag()?,
    };
    state.names.get(&name).and_then(|id| state.images.get(id)).cloned()
}

/// A start of an id that only one image has.
fn by_id_prefix(state: &State, prefix: &str) -> Option<Arc<Image>> {
    if prefix.is_empty()
        || prefix.len() > 64
        || !prefix.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    {
        return None;
    }
    let mut fitting = state.images.values().filter(|image| image.record.id.hex().starts_with(prefix));
    let first = fitting.next()?;
    fitting.next().is_none().then(|| Arc::clone(first))
}
