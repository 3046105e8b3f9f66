//! Deletes folders off the path of every request.
//!
//! What is taken is renamed into the trash at once, so it is gone for everybody, and one thread deletes it later. A
//! crash leaves it in the trash, which the next start empties. Trees may be deeper than a path can be long, so
//! nothing recurses: each folder is moved up into the trash before it is emptied.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
};

/// A folder whose content is being deleted.
#[derive(Debug, Clone)]
pub(crate) struct Trash {
    folder: PathBuf,
    serial: Arc<AtomicU64>,
    /// One pending wake-up is enough: the thread empties everything it finds.
    wake: SyncSender<()>,
}

impl Trash {
    /// Starts emptying it.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let (wake, woken) = sync_channel(1);
        let serial = Arc::new(AtomicU64::new(0));
        let trash = Self { folder: folder.to_owned(), serial: Arc::clone(&serial), wake };
        let folder = folder.to_owned();
        // Ends when the last handle is dropped.
        std::thread::Builder::new().name("crisp-trash".into()).spawn(move || {
            while woken.recv().is_ok() {
                if let Err(error) = empty(&folder, &serial) {
                    tracing::warn!(folder = %folder.display(), %error, "deleting failed; the next start tries again");
                }
            }
        })?;
        let _ = trash.wake.try_send(());
        Ok(trash)
    }

    /// Takes a folder or file away. Nothing there: nothing happens.
    pub(crate) fn take(&self, path: &Path) {
        match std::fs::rename(path, fresh(&self.folder, &self.serial)) {
            Ok(()) => drop(self.wake.try_send(())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(path = %path.display(), %error, "moving to the trash failed"),
        }
    }
}

fn fresh(folder: &Path, serial: &AtomicU64) -> PathBuf {
    // Names of earlier processes may still be there.
    loop {
        let name = format!("{}-{}", std::process::id(), serial.fetch_add(1, Ordering::Relaxed));
        let path = folder.join(name);
        if !path.exists() {
            return path;
        }
    }
}

fn empty(trash: &Path, serial: &AtomicU64) -> io::Result<()> {
    loop {
        let mut any = false;
        for entry in std::fs::read_dir(trash)? {
            any = true;
            delete(trash, &entry?.path(), serial)?;
        }
        if !any {
            return Ok(());
        }
    }
}

/// Deletes a file, or what a folder holds; sub-folders that are not empty are moved up and come in the next round.
fn delete(trash: &Path, path: &Path, serial: &AtomicU64) -> io::Result<()> {
    if !std::fs::symlink_metadata(path)?.is_dir() {
        return std::fs::remove_file(path);
    }
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let inner = entry.path();
        if !entry.file_type()?.is_dir() {
            std::fs::remove_file(&inner)?;
        } else if std::fs::remove_dir(&inner).is_err() {
            std::fs::rename(&inner, fresh(trash, serial))?;
        }
    }
    std::fs::remove_dir(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_of_any_depth_are_deleted() {
        let root = tempfile::tempdir().expect("folder");
        let trash = root.path().join("trash");
        std::fs::create_dir(&trash).expect("trash");
        // Built from the bottom up, far deeper than PATH_MAX.
        let mut deep = root.path().join("deep-0");
        std::fs::create_dir(&deep).expect("folder");
        for level in 1..3000 {
            std::fs::write(deep.join("file"), b"x").expect("file");
            let above = root.path().join(format!("deep-{level}"));
            std::fs::create_dir(&above).expect("folder");
            std::fs::rename(&deep, above.join("d")).expect("rename");
            deep = above;
        }
        std::fs::rename(&deep, trash.join("deep")).expect("rename");
        empty(&trash, &AtomicU64::new(0)).expect("empty");
        assert_eq!(std::fs::read_dir(&trash).expect("list").count(), 0);
    }
}
