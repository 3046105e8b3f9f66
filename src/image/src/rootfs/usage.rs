//! How much disk images and containers take.
//!
//! Images: counted when they are unpacked. Writable layers: by walking them, in the background, and not again before
//! a while has passed; nobody who asks waits, and if nobody asks nothing is walked.

use std::{
    collections::HashMap,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crisp_model::{ContainerId, time::Timestamp};

/// Use of a file system, for the CRI's `FilesystemUsage`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FsUsage {
    /// Where it is.
    pub mountpoint: PathBuf,
    /// Bytes on disk.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
    /// When this was counted.
    pub timestamp: Timestamp,
}

/// Sizes of writable layers.
#[derive(Debug, Clone)]
pub(crate) struct Accounts {
    root: PathBuf,
    age: Duration,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    sizes: HashMap<String, (u64, u64)>,
    counted: Option<(Instant, Timestamp)>,
    counting: bool,
}

impl Accounts {
    pub(crate) fn new(root: PathBuf, age: Duration) -> Self {
        Self { root, age, state: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn forget(&self, container: &ContainerId) {
        self.state().sizes.remove(container.as_str());
    }

    /// All containers together, as last counted. Counts anew in the background if that is old.
    pub(crate) fn total(&self) -> FsUsage {
        self.refresh();
        let state = self.state();
        let (bytes, inodes) =
            state.sizes.values().fold((0, 0), |(b, i), (bytes, inodes)| (b + bytes, i + inodes));
        let timestamp = state.counted.map_or_else(Timestamp::now, |(_, at)| at);
        FsUsage { mountpoint: self.root.clone(), bytes, inodes, timestamp }
    }

    /// One container, as last counted; counted now if it never was. Blocking then.
    pub(crate) fn of(&self, container: &ContainerId) -> Option<FsUsage> {
        self.refresh();
        let upper = self.root.join(container.as_str()).join("upper");
        let known = {
            let state = self.state();
            state.sizes.get(container.as_str()).copied().zip(state.counted.map(|(_, at)| at))
        };
        let ((bytes, inodes), timestamp) = match known {
            Some(known) => known,
            None if upper.is_dir() => {
                let size = walk(&upper);
                self.state().sizes.insert(container.as_str().to_owned(), size);
                (size, Timestamp::now())
            }
            None => return None,
        };
        Some(FsUsage { mountpoint: self.root.clone(), bytes, inodes, timestamp })
    }

    fn refresh(&self) {
        let mut state = self.state();
        if state.counting || state.counted.is_some_and(|(at, _)| at.elapsed() < self.age) {
            return;
        }
        state.counting = true;
        drop(state);
        let accounts = self.clone();
        let count = move || {
            let sizes = accounts.count();
            let mut state = accounts.state();
            state.sizes = sizes;
            state.counted = Some((Instant::now(), Timestamp::now()));
            state.counting = false;
        };
        // A thread of its own: this may be asked for outside a runtime, and walks wait for disks.
        if std::thread::Builder::new().name("crisp-usage".into()).spawn(count).is_err() {
            self.state().counting = false;
        }
    }

    fn count(&self) -> HashMap<String, (u64, u64)> {
        let Ok(entries) = std::fs::read_dir(&self.root) else { return HashMap::new() };
        entries
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let name = entry.file_name().into_string().ok()?;
                name.parse::<ContainerId>().ok()?;
                Some((name, walk(&entry.path().join("upper"))))
            })
            .collect()
    }
}

/// Bytes and inodes below a folder, each inode once. What vanishes meanwhile does not count.
fn walk(folder: &Path) -> (u64, u64) {
    let mut todo = vec![folder.to_owned()];
    let (mut bytes, mut inodes) = (0, 0);
    let mut linked = std::collections::HashSet::new();
    while let Some(folder) = todo.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let Ok(stat) = entry.metadata() else { continue };
            if stat.is_dir() {
                todo.push(entry.path());
            } else if stat.nlink() > 1 && !linked.insert((stat.dev(), stat.ino())) {
                continue;
            }
            bytes += stat.blocks() * 512;
            inodes += 1;
        }
    }
    (bytes, inodes)
}
