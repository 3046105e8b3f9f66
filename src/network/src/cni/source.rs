//! Which network is configured: the first file of the folder in lexical order.
//!
//! The first file decides even if it is broken: taking the next one instead would put pods into a network that the
//! administrator did not mean, for as long as it takes to write a file.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::config::NetworkList;
use crate::NetworkError;

/// What the folder holds.
#[derive(Debug)]
pub(crate) enum Found {
    /// No configuration: the built-in network's case.
    Nothing,
    /// A network.
    Network(PathBuf, NetworkList),
    /// Something that is not one.
    Broken(PathBuf, NetworkError),
}

/// Reads the folder.
pub(crate) fn load(folder: &Path) -> Found {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Found::Nothing,
        Err(e) => return Found::Broken(folder.to_owned(), NetworkError::host("read", folder.display(), e)),
    };
    let known = |path: &PathBuf| {
        let extension = path.extension().and_then(|e| e.to_str());
        // A hidden file is an editor's or the rest of an atomic write.
        let hidden = path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
        matches!(extension, Some("conf" | "conflist" | "json")) && !hidden && path.is_file()
    };
    match entries.flatten().map(|entry| entry.path()).filter(known).min() {
        None => Found::Nothing,
        Some(path) => match fs::read(&path) {
            Err(e) => {
                let error = NetworkError::host("read", path.display(), e);
                Found::Broken(path, error)
            }
            Ok(bytes) => match NetworkList::parse(&path, &bytes) {
                Ok(list) => Found::Network(path, list),
                Err(error) => Found::Broken(path, error),
            },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_file_decides() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        assert!(matches!(load(&at("absent")), Found::Nothing));
        fs::write(at("00-notes.txt"), "x").unwrap();
        fs::write(at(".05-a.conflist.swp.conf"), "x").unwrap();
        assert!(matches!(load(folder.path()), Found::Nothing));
        fs::write(at("20-b.conf"), r#"{"cniVersion":"1.0.0","name":"b","type":"ptp"}"#).unwrap();
        fs::write(at("10-a.conflist"), r#"{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"ptp"}]}"#)
            .unwrap();
        let Found::Network(path, list) = load(folder.path()) else { panic!("a network is configured") };
        assert_eq!((path, list.name.as_str()), (at("10-a.conflist"), "a"));
        fs::write(at("10-a.conflist"), r#"{"cniVersion":"#).unwrap();
        let Found::Broken(path, _) = load(folder.path()) else { panic!("the first file is broken") };
        assert_eq!(path, at("10-a.conflist"));
    }
}
