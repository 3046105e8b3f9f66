//! Small records on disk: replaced atomically, read back all at once.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use serde::{Serialize, de::DeserializeOwned};

use crate::NetworkError;

/// A record longer than this is not one of ours.
const MAX_RECORD: u64 = 8 << 20;

/// Writes `value` so that a reader (also one after a crash) sees the old record or the new one. `durable` also makes
/// it survive a power cut, which costs two syncs.
pub(crate) fn write(path: &Path, value: &impl Serialize, durable: bool) -> Result<(), NetworkError> {
    let fail = |cause| NetworkError::host("write", path.display(), cause);
    let bytes = serde_json::to_vec(value).map_err(|e| fail(e.into()))?;
    let temporary = path.with_extension("new");
    let put = || -> io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(&bytes)?;
        if durable {
            file.sync_data()?;
        }
        fs::rename(&temporary, path)?;
        if durable && let Some(folder) = path.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    };
    put().map_err(|cause| {
        let _ = fs::remove_file(&temporary);
        fail(cause)
    })
}

/// Reads a record; `None` if there is none.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, NetworkError> {
    let fail = |cause| NetworkError::host("read", path.display(), cause);
    match fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(fail(e)),
        Ok(meta) if meta.len() > MAX_RECORD => return Err(fail(io::ErrorKind::FileTooLarge.into())),
        Ok(_) => {}
    }
    let bytes = fs::read(path).map_err(fail)?;
    serde_json::from_slice(&bytes).map(Some).map_err(|e| fail(e.into()))
}

/// Removes a record; one that is not there is fine.
pub(crate) fn remove(path: &Path) -> Result<(), NetworkError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(NetworkError::host("remove", path.display(), e)),
        _ => Ok(()),
    }
}

/// All records of a folder. What cannot be read is left where it is and reported to the log.
pub(crate) fn read_all<T: DeserializeOwned>(folder: &Path) -> Result<Vec<T>, NetworkError> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|e| NetworkError::host("read", folder.display(), e))?,
    };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|e| e != "json") {
            continue;
        }
        match read(&path) {
            Ok(Some(record)) => found.push(record),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "a network record cannot be read"),
        }
    }
    Ok(found)
}

/// Makes a folder that only root can look into.
pub(crate) fn make_folder(path: &Path) -> Result<(), NetworkError> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| NetworkError::host("make folder", path.display(), e))
}

/// The kernel's name of this boot.
pub(crate) fn boot_id() -> Result<String, NetworkError> {
    let path = "/proc/sys/kernel/random/boot_id";
    fs::read_to_string(path).map(|t| t.trim().to_owned()).map_err(|e| NetworkError::host("read", path, e))
}
