//! The files of the host.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::file::{CheckedSpec, Edits, MAX_FILE, parse};

/// Most files of one folder.
const MAX_FILES: usize = 1024;

/// All devices that the host's files describe.
#[derive(Debug, Default)]
pub struct Registry {
    /// Files that could be read, with the rank of their folder.
    files: Vec<(usize, PathBuf, CheckedSpec)>,
    /// Files that could not, and why.
    broken: BTreeMap<PathBuf, String>,
}

/// A device that was found.
pub(super) struct Found<'a> {
    /// Which file it is in.
    pub file: usize,
    /// What the file asks for with any of its devices.
    pub common: &'a Edits,
    /// What this device asks for.
    pub own: &'a Edits,
}

/// Reads the `*.json`, `*.yaml` and `*.yml` files of `folders`; later folders win over earlier ones. A file that is broken
/// only matters to those who ask for a device that is not found, and is named to them. Blocks.
pub fn load<P: AsRef<Path>>(folders: &[P]) -> Registry {
    let mut registry = Registry::default();
    for (rank, folder) in folders.iter().enumerate() {
        let paths = match list(folder.as_ref()) {
            Ok(paths) => paths,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                registry.broken.insert(folder.as_ref().to_owned(), error.to_string());
                continue;
            }
        };
        for path in paths {
            match read(&path) {
                Ok(spec) => registry.files.push((rank, path, spec)),
                Err(reason) => {
                    registry.broken.insert(path, reason);
                }
            }
        }
    }
    registry
}

fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let kind = path.extension().and_then(|kind| kind.to_str());
        if !hidden && matches!(kind, Some("json" | "yaml" | "yml")) {
            paths.push(path);
        }
        if paths.len() > MAX_FILES {
            return Err(io::Error::other(format!("more than {MAX_FILES} files")));
        }
    }
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> Result<CheckedSpec, String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > MAX_FILE {
        return Err(format!("it is longer than {MAX_FILE} bytes"));
    }
    parse(&text).map_err(|error| error.to_string())
}

impl Registry {
    /// Files that could not be read, and why: for the log.
    pub fn broken(&self) -> &BTreeMap<PathBuf, String> {
        &self.broken
    }

    /// The device of this qualified name, or why there is none.
    pub(super) fn device(&self, name: &str) -> Result<Found<'_>, String> {
        let (kind, device) = name.split_once('=').ok_or("it has no '='")?;
        let all = self.files.iter().enumerate().filter(|(_, (_, _, spec))| spec.0.kind == kind);
        let mut found: Vec<_> = all
            .filter_map(|(i, (rank, path, spec))| {
                let own = spec.0.devices.iter().find(|d| d.name == device)?;
                Some((
                    *rank,
                    path,
                    Found { file: i, common: &spec.0.container_edits, own: &own.container_edits },
                ))
            })
            .collect();
        found.sort_by_key(|(rank, ..)| std::cmp::Reverse(*rank));
        if let [(first, one, _), (second, other, _), ..] = found.as_slice()
            && first == second
        {
            let (one, other) = (one.display(), other.display());
            return Err(format!("{one} and {other} both describe it: remove one of them"));
        }
        found.into_iter().next().map(|(.., found)| found).ok_or_else(|| self.missing())
    }

    fn missing(&self) -> String {
        let broken: Vec<_> =
            self.broken.iter().take(3).map(|(path, why)| format!("{}: {why}", path.display())).collect();
        if broken.is_empty() {
            "no CDI file of this node describes it: is the driver's CDI generator installed and run?".into()
        } else {
            format!("no readable CDI file of this node describes it; unreadable are {}", broken.join("; "))
        }
    }
}
