//! Containers' root file systems and image volumes: stacks of shared layers, and one writable layer a container.
//!
//! ```text
//!   <containers>/<id>/{upper,work,volumes,rootfs.json}
//! ```
//!
//! `rootfs.json` says which layers a container uses; while it is there they are leased, also after a restart. It is
//! replaced by rename but not synced: containers do not survive a power loss, so neither need their leases. What a
//! crash leaves half-made has no readable record, and goes to the trash at the next start.

mod fixup;
mod merged;
mod usage;
mod volume;

use std::{
    collections::{HashMap, HashSet},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crisp_host::file;
use crisp_model::{ContainerId, image::Rootfs};
use serde::{Deserialize, Serialize};

pub(crate) use fixup::fixups;
pub(crate) use usage::Accounts;
pub use usage::FsUsage;

use crate::{
    digest::Digest,
    error::ImageError,
    image::Image,
    index::Fixup,
    layers::{Layer, Layers, Trash},
};

const VERSION: u32 = 1;

/// Which layers a container uses.
#[derive(Debug, Default, Serialize, Deserialize)]
struct HoldRecord {
    version: u32,
    layers: Vec<HeldLayer>,
}

#[derive(Debug, Serialize, Deserialize)]
struct HeldLayer {
    number: u64,
    diff_id: Digest,
}

/// An image volume, ready to be mounted read-only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageVolume {
    /// The image.
    pub image_id: String,
    /// Read-only layers, topmost first; at least two, as overlayfs wants without an upper one.
    pub lower: Vec<PathBuf>,
    /// Folder or file within, free of links, relative; empty for the whole image.
    pub sub_path: PathBuf,
}

/// All containers' file systems.
#[derive(Debug)]
pub(crate) struct Containers {
    root: PathBuf,
    layers: Arc<Layers>,
    trash: Trash,
    holds: Mutex<HashMap<ContainerId, Vec<Arc<Layer>>>>,
    pub(crate) accounts: Accounts,
}

impl Containers {
    /// Reads all records, taking leases from `present`. Returns what was half-made.
    pub(crate) fn open(
        root: &Path,
        layers: Arc<Layers>,
        present: &[Arc<Layer>],
        usage_age: Duration,
    ) -> Result<(Self, Vec<String>), ImageError> {
        let host =
            |operation, path: &Path, e: io::Error| ImageError::host(operation, path.display().to_string(), e);
        file::private_folder(root).map_err(|e| host("making", root, e))?;
        let trash_path = root.join(".trash");
        let trash = Trash::open(&trash_path).map_err(|e| host("opening", &trash_path, e))?;
        let by_number: HashMap<u64, &Arc<Layer>> =
            present.iter().map(|layer| (layer.number, layer)).collect();
        let (mut holds, mut broken) = (HashMap::new(), Vec::new());
        for entry in std::fs::read_dir(root).map_err(|e| host("listing", root, e))? {
            let entry = entry.map_err(|e| host("listing", root, e))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // Other things in the folder are none of our business.
            let Ok(id) = name.parse::<ContainerId>() else { continue };
            match read_record(&entry.path()) {
                Some(record) => {
                    let leases = record.layers.iter().filter_map(|held| by_number.get(&held.number));
                    holds.insert(id, leases.map(|layer| Arc::clone(layer)).collect());
                }
                None => {
                    trash.take(&entry.path());
                    broken.push(name);
                }
            }
        }
        let accounts = Accounts::new(root.to_owned(), usage_age);
        Ok((Self { root: root.to_owned(), layers, trash, holds: Mutex::new(holds), accounts }, broken))
    }

    fn holds(&self) -> MutexGuard<'_, HashMap<ContainerId, Vec<Arc<Layer>>>> {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn ids(&self) -> Vec<ContainerId> {
        self.holds().keys().cloned().collect()
    }

    fn folder(&self, container: &ContainerId) -> PathBuf {
        self.root.join(container.as_str())
    }

    /// Makes the writable layer and leases the image's. Doing it again gives the same. Blocking.
    pub(crate) fn prepare(
        &self,
        image: &Image,
        container: &ContainerId,
        mountpoint: PathBuf,
    ) -> Result<Rootfs, ImageError> {
        let folder = self.folder(container);
        let (upper, work) = (folder.join("upper"), folder.join("work"));
        self.hold(container, &image.layers)?;
        let made = make_folder(&work, 0o700)
            .and_then(|()| make_folder(&upper, 0o755))
            .and_then(|()| image.record.fixups.iter().try_for_each(|fixup| apply(&upper, fixup)));
        made.map_err(|e| ImageError::host("making the writable layer in", folder.display().to_string(), e))?;
        Ok(Rootfs { lower: self.stack(image, false), upper, work, mountpoint })
    }

    /// Leases an image's layers for a container, and finds a path in it. Blocking.
    pub(crate) fn volume(
        &self,
        image: &Image,
        container: &ContainerId,
        sub_path: &str,
    ) -> Result<ImageVolume, ImageError> {
        let sub_path = merged::resolve(&self.layers, &image.layers, sub_path)?;
        self.hold(container, &image.layers)?;
        Ok(ImageVolume { image_id: image.id.clone(), lower: self.stack(image, true), sub_path })
    }

    /// Makes the folder behind a volume that the image declares, with what the image has at the path. Blocking.
    pub(crate) fn fill(
        &self,
        image: &Image,
        container: &ContainerId,
        number: usize,
        path: &str,
    ) -> Result<PathBuf, ImageError> {
        let folders = self.folder(container).join("volumes");
        let volume = folders.join(number.to_string());
        let filled = make_folder(&folders, 0o711).and_then(|()| make_folder(&volume, 0o755));
        let host = |e| ImageError::host("filling the volume", volume.display().to_string(), e);
        filled.map_err(host)?;
        let within = match merged::resolve(&self.layers, &image.layers, path.trim_start_matches('/')) {
            Ok(path) => path,
            // The image need not have it.
            Err(ImageError::NotFound { .. }) => return Ok(volume),
            Err(error) => return Err(error),
        };
        // Layers below one that hides everything are not seen.
        let bottom = image.layers.iter().rposition(|layer| layer.record.opaque_root).unwrap_or(0);
        let layers: Vec<PathBuf> =
            image.layers[bottom..].iter().map(|layer| self.layers.files(layer)).collect();
        volume::fill(&layers, &within, &volume).map_err(host)?;
        Ok(volume)
    }

    /// The first `limit` bytes of a file of an image. Blocking.
    pub(crate) fn read(&self, image: &Image, path: &str, limit: u64) -> Result<Option<Vec<u8>>, ImageError> {
        merged::read(&self.layers, &image.layers, path, limit)
    }

    /// Folders of an image's layers, topmost first, each once. A layer may be there several times (empty ones often are),
    /// which overlayfs refuses; the topmost hides or shows again all that those below it would.
    fn stack(&self, image: &Image, without_upper: bool) -> Vec<PathBuf> {
        // What lies below a layer that hides everything is of no use.
        let bottom = image.layers.iter().rposition(|layer| layer.record.opaque_root).unwrap_or(0);
        let mut taken = HashSet::new();
        let once = image.layers[bottom..].iter().rev().filter(|layer| taken.insert(layer.number));
        let mut stack: Vec<PathBuf> = once.map(|layer| self.layers.files(layer)).collect();
        // overlayfs wants one layer, and two where none is writable.
        let spare = [self.layers.empty(), self.layers.empty_twin()];
        let wanted = if without_upper { 2usize } else { 1 };
        stack.extend(spare.into_iter().take(wanted.saturating_sub(stack.len())));
        stack
    }

    /// Adds layers to what a container uses: leases first, then the record that keeps them over a restart.
    fn hold(&self, container: &ContainerId, layers: &[Arc<Layer>]) -> Result<(), ImageError> {
        let record = {
            let mut holds = self.holds();
            let held = holds.entry(container.clone()).or_default();
            for layer in layers {
                if !held.iter().any(|present| present.number == layer.number) {
                    held.push(Arc::clone(layer));
                }
            }
            let held = held
                .iter()
                .map(|layer| HeldLayer { number: layer.number, diff_id: layer.record.diff_id.clone() });
            HoldRecord { version: VERSION, layers: held.collect() }
        };
        let folder = self.folder(container);
        write_record(&folder, &record)
            .map_err(|e| ImageError::host("writing the record of", folder.display().to_string(), e))
    }

    /// Gives everything back. Unknown: nothing happens. Blocking, but not for long: deleting happens later.
    pub(crate) fn release(&self, container: &ContainerId) {
        self.trash.take(&self.folder(container));
        self.accounts.forget(container);
        let leases = self.holds().remove(container);
        // Outside the lock: the last lease moves a layer to the trash.
        drop(leases);
    }
}

fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    match std::fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        // The umask may have taken something away.
        Ok(()) => std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)),
    }
}

/// Makes a folder in the writable layer as overlayfs would have copied it up.
fn apply(upper: &Path, fixup: &Fixup) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let path = upper.join(std::ffi::OsStr::from_bytes(&fixup.path));
    make_folder(&path, fixup.mode)?;
    chown(&path, Some(fixup.uid), Some(fixup.gid))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(fixup.mode))
}

fn write_record(folder: &Path, record: &HoldRecord) -> io::Result<()> {
    make_folder(folder, 0o711)?;
    let temporary = folder.join(format!("{}rootfs", file::TEMPORARY_PREFIX));
    std::fs::write(&temporary, serde_json::to_vec(record)?)?;
    std::fs::rename(temporary, folder.join("rootfs.json"))
}

fn read_record(folder: &Path) -> Option<HoldRecord> {
    let bytes = std::fs::read(folder.join("rootfs.json")).ok()?;
    let record: HoldRecord = serde_json::from_slice(&bytes).ok()?;
    (record.version == VERSION).then_some(record)
}
