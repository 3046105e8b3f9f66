//! Deletes folders off the path of every request.
//!
//! What is taken is renamed into the trash at once, so it is gone for everybody, and one thread deletes it later. A
//! crash leaves it in the trash, which the next start empties. Trees may be deeper than a path can be long, so
//! nothing recurses: each folder is moved up into the trash before it is emptied. Whoever writes a lot may hold a
//! [`Quiet`]; whoever lacks space asks for [`Trash::empty_now`].

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    time::Duration,
};

use super::pace::Pace;

/// The longest wait for space. Deleting a hundred thousand files takes seconds.
const SPACE_PATIENCE: Duration = Duration::from_secs(120);

/// A folder whose content is being deleted.
#[derive(Debug, Clone)]
pub(crate) struct Trash {
    folder: PathBuf,
    serial: Arc<AtomicU64>,
    /// One pending wake-up is enough: the thread empties everything it finds.
    wake: SyncSender<()>,
    pace: Arc<Pace>,
}

/// While it is held, deleting waits, if it can.
#[derive(Debug)]
pub(crate) struct Quiet(Arc<Pace>);

impl Drop for Quiet {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Trash {
    /// Starts emptying it.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let (wake, woken) = sync_channel(1);
        let serial = Arc::new(AtomicU64::new(0));
        let pace = Arc::<Pace>::default();
        let (serial2, pace2) = (Arc::clone(&serial), Arc::clone(&pace));
        let trash = Self { folder: folder.to_owned(), serial: serial2, wake, pace: pace2 };
        let folder = folder.to_owned();
        // Ends when the last handle is dropped.
        std::thread::Builder::new().name("crisp-trash".into()).spawn(move || {
            while woken.recv().is_ok() {
                let until = pace.begin();
                if let Err(error) = empty(&folder, &serial, &|| pace.turn(&folder, until)) {
                    tracing::warn!(folder = %folder.display(), %error, "deleting failed; the next start tries again");
                }
                pace.end();
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

    /// Asks that deleting waits.
    pub(crate) fn quiet(&self) -> Quiet {
        self.pace.enter();
        Quiet(Arc::clone(&self.pace))
    }

    /// For [`Self::has_more_room_than`].
    pub(crate) fn mark(&self) -> u64 {
        self.pace.ended()
    }

    /// Whether something has been deleted since the mark, or waits to be.
    pub(crate) fn has_more_room_than(&self, mark: u64) -> bool {
        self.has_any() || self.pace.ended() != mark
    }

    fn has_any(&self) -> bool {
        std::fs::read_dir(&self.folder).is_ok_and(|mut entries| entries.next().is_some())
    }

    /// Deletes what is there, whoever is disturbed by it, and waits for the end. Blocking.
    pub(crate) fn empty_now(&self) {
        self.pace.hurry(|| _ = self.wake.try_send(()), SPACE_PATIENCE);
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

/// `turn` is called before each step.
fn empty(trash: &Path, serial: &AtomicU64, turn: &dyn Fn()) -> io::Result<()> {
    loop {
        let mut any = false;
        for entry in std::fs::read_dir(trash)? {
            any = true;
            delete(trash, &entry?.path(), serial, turn)?;
        }
        if !any {
            return Ok(());
        }
    }
}

/// Deletes a file, or what a folder holds; sub-folders that are not empty are moved up and come in the next round.
fn delete(trash: &Path, path: &Path, serial: &AtomicU64, turn: &dyn Fn()) -> io::Result<()> {
    turn();
    if !std::fs::symlink_metadata(path)?.is_dir() {
        return std::fs::remove_file(path);
    }
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let inner = entry.path();
        if !entry.file_type()?.is_dir() {
            turn();
            std::fs::remove_file(&inner)?;
        } else if std::fs::remove_dir(&inner).is_err() {
            std::fs::rename(&inner, fresh(trash, serial))?;
        }
    }
    std::fs::remove_dir(path)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

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
        empty(&trash, &AtomicU64::new(0), &|| ()).expect("empty");
        assert_eq!(std::fs::read_dir(&trash).expect("list").count(), 0);
    }

    #[test]
    fn deleting_waits_for_writers_but_not_if_space_is_needed() {
        let root = tempfile::tempdir().expect("folder");
        let trash = Trash::open(&root.path().join("trash")).expect("open");
        let doomed = root.path().join("doomed");
        std::fs::create_dir(&doomed).expect("folder");
        std::fs::write(doomed.join("file"), b"x").expect("file");
        let quiet = trash.quiet();
        trash.take(&doomed);
        assert!(!doomed.exists());
        // One step of it, which gives up waiting soon; a disk that is nearly full is not waited for, as it should be.
        let began = Instant::now();
        trash.pace.turn(&trash.folder, began + Duration::from_millis(50));
        let waited = began.elapsed() >= Duration::from_millis(50);
        assert!(trash.has_any() || !waited, "deleted although somebody writes");
        trash.empty_now();
        assert!(!trash.has_any());
        drop(quiet);
    }
}
