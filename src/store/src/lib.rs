//! Records on disk: one small versioned JSON file an object.
//!
//! Owns a folder of files named `<key>.json` and nothing else; may call `host` only. Whoever owns the object decides
//! what a record says; this crate promises that a record is the old one or the new one, never half of one:
//!
//! ```text
//!   write temporary file -> (sync) -> rename -> (sync folder)
//!          |                   |          |
//!   crash: ignored, removed    old one    new one
//!          at the next open
//! ```
//!
//! A file that cannot be read as a record (a foreign version, damage) is moved to `<folder>/damaged/` and reported,
//! so that one bad file never keeps a node from starting.

use std::{
    io,
    marker::PhantomData,
    path::{Path, PathBuf},
    sync::Arc,
};

use crisp_host::file;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// How far a write has to have got when it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It survives a power loss: for what must be undone after a reboot (addresses, layers, names).
    Power,
    /// It survives the daemon's death: for facts about processes, which a power loss ends anyway.
    Process,
}

/// A kind of record. `VERSION` is raised when old readers must not read new records.
pub trait Record: Serialize + DeserializeOwned {
    /// Format version, written beside the record.
    const VERSION: u32;
}

/// What went wrong with which record.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{operation} record {}: {cause}", path.display())]
pub struct StoreError {
    /// `read`, `write`, `remove`.
    pub operation: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// Why.
    pub cause: Arc<io::Error>,
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    move |cause| StoreError { operation, path: path.to_owned(), cause: Arc::new(cause) }
}

#[derive(Serialize)]
struct WriteEnvelope<'a, R> {
    version: u32,
    record: &'a R,
}

#[derive(Deserialize)]
struct Header {
    version: u32,
}

#[derive(Deserialize)]
struct ReadEnvelope<R> {
    record: R,
}

/// A folder of records of one kind.
#[derive(Debug)]
pub struct Store<R> {
    folder: PathBuf,
    kind: PhantomData<fn() -> R>,
}

impl<R> Clone for Store<R> {
    fn clone(&self) -> Self {
        Self { folder: self.folder.clone(), kind: PhantomData }
    }
}

/// What [`Store::open`] found.
#[derive(Debug)]
pub struct Opened<R> {
    /// The store.
    pub store: Store<R>,
    /// Key and record of each readable file, by key.
    pub records: Vec<(String, R)>,
    /// Files that were moved aside, with the reason.
    pub damaged: Vec<(PathBuf, String)>,
}

impl<R: Record> Store<R> {
    /// Opens (makes, mode 0700) the folder, reads all records and removes what a crash left half-written.
    pub fn open(folder: &Path) -> Result<Opened<R>, StoreError> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed("make", folder))?;
        let store = Self { folder: folder.to_owned(), kind: PhantomData };
        let (mut records, mut damaged) = (Vec::new(), Vec::new());
        for entry in std::fs::read_dir(folder).map_err(failed("read", folder))? {
            let path = entry.map_err(failed("read", folder))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with(file::TEMPORARY_PREFIX) {
                std::fs::remove_file(&path).map_err(failed("remove", &path))?;
            } else if let Some(key) = name.strip_suffix(".json") {
                match store.read(&path) {
                    Ok(record) => records.push((key.to_owned(), record)),
                    Err(why) => damaged.push((store.set_aside(&path)?, why)),
                }
            }
        }
        records.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(Opened { store, records, damaged })
    }

    fn read(&self, path: &Path) -> Result<R, String> {
        let bytes = std::fs::read(path).map_err(|e| e.to_string())?;
        // The record of another version is passed over, whatever is in it.
        let header: Header = serde_json::from_slice(&bytes).map_err(|e| e.to_string())?;
        if header.version != R::VERSION {
            return Err(format!("version {} where {} is understood", header.version, R::VERSION));
        }
        let read: ReadEnvelope<R> = serde_json::from_slice(&bytes).map_err(|e| e.to_string())?;
        Ok(read.record)
    }

    fn set_aside(&self, path: &Path) -> Result<PathBuf, StoreError> {
        let folder = self.folder.join("damaged");
        std::fs::create_dir_all(&folder).map_err(failed("make", &folder))?;
        let aside = folder.join(path.file_name().unwrap_or_default());
        std::fs::rename(path, &aside).map_err(failed("move", path))?;
        Ok(aside)
    }

    /// Writes a record in place of an older one. `key` must be a plain file name (an id).
    pub fn put(&self, key: &str, record: &R, durability: Durability) -> Result<(), StoreError> {
        let path = self.path(key);
        let bytes = serde_json::to_vec(&WriteEnvelope { version: R::VERSION, record })
            .map_err(|e| failed("write", &path)(io::Error::other(e)))?;
        match durability {
            Durability::Power => file::replace_atomically(&path, &bytes),
            Durability::Process => self.replace_unsynced(&path, &bytes),
        }
        .map_err(failed("write", &path))
    }

    fn replace_unsynced(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        use std::{io::Write, os::unix::fs::OpenOptionsExt};
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = self.folder.join(format!("{}{name}", file::TEMPORARY_PREFIX));
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(bytes)?;
        std::fs::rename(&temporary, path)
    }

    /// Removes a record; none there is fine.
    pub fn remove(&self, key: &str) -> Result<(), StoreError> {
        let path = self.path(key);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("remove", &path)(e)),
            _ => Ok(()),
        }
    }

    fn path(&self, key: &str) -> PathBuf {
        debug_assert!(!key.contains('/') && !key.starts_with('.'), "{key:?} is no plain name");
        self.folder.join(format!("{key}.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Note {
        text: String,
    }

    impl Record for Note {
        const VERSION: u32 = 3;
    }

    fn note(text: &str) -> Note {
        Note { text: text.into() }
    }

    #[test]
    fn records_survive_reopening() {
        let folder = tempfile::tempdir().expect("folder");
        let store = Store::<Note>::open(folder.path()).expect("open").store;
        store.put("b", &note("two"), Durability::Power).expect("put");
        store.put("a", &note("one"), Durability::Process).expect("put");
        store.put("a", &note("1"), Durability::Power).expect("put");
        store.put("gone", &note("x"), Durability::Process).expect("put");
        store.remove("gone").expect("remove");
        store.remove("gone").expect("removing twice is fine");
        let again = Store::<Note>::open(folder.path()).expect("open");
        assert_eq!(again.records, [("a".to_owned(), note("1")), ("b".to_owned(), note("two"))]);
        assert!(again.damaged.is_empty());
    }

    #[test]
    fn damage_is_set_aside_and_leftovers_go() {
        let folder = tempfile::tempdir().expect("folder");
        let store = Store::<Note>::open(folder.path()).expect("open").store;
        store.put("good", &note("x"), Durability::Power).expect("put");
        std::fs::write(folder.path().join("empty.json"), b"").expect("write");
        std::fs::write(folder.path().join("old.json"), br#"{"version":1,"record":{"text":""}}"#)
            .expect("write");
        std::fs::write(folder.path().join(".tmp-half"), b"{").expect("write");
        let opened = Store::<Note>::open(folder.path()).expect("open");
        assert_eq!(opened.records.len(), 1);
        assert_eq!(opened.damaged.len(), 2);
        assert!(!folder.path().join(".tmp-half").exists());
        assert!(folder.path().join("damaged/old.json").exists());
        assert!(Store::<Note>::open(folder.path()).expect("open").damaged.is_empty());
    }

    proptest::proptest! {
        #[test]
        fn any_file_content_is_survived(bytes: Vec<u8>) {
            let folder = tempfile::tempdir().expect("folder");
            std::fs::write(folder.path().join("x.json"), &bytes).expect("write");
            let opened = Store::<Note>::open(folder.path()).expect("open");
            proptest::prop_assert_eq!(opened.records.len() + opened.damaged.len(), 1);
        }
    }
}
