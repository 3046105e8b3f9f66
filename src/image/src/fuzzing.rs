//! Entries for the fuzz targets in `fuzz/` and the benchmarks in `benches/`; there only for them.

use std::{fs::File, io::Cursor, path::Path};

use crate::{
    manifest::{Config, Document},
    reference::Reference,
    registry,
    unpack::{Expected, Limits, StreamLimits, recipe::Recipe, unpack, unpack_layer},
};

/// Unpacks an archive, and looks for anything made beside its folder.
pub fn archive(data: &[u8]) {
    let root = std::env::temp_dir().join(format!("crisp-fuzz-{}", std::process::id()));
    let fs = root.join("layer/fs");
    let _ = std::fs::remove_dir_all(&root);
    std::fs::create_dir_all(&fs).expect("a folder to unpack into");
    let folder = File::open(&fs).expect("the folder just made");
    let recipe = Recipe::new(std::io::sink()).expect("a recipe that goes nowhere");
    let _ = unpack(data, folder.into(), recipe, Limits { entries: 10_000 });
    for (folder, only) in [(root.clone(), "layer"), (root.join("layer"), "fs")] {
        for entry in std::fs::read_dir(folder).expect("the folder just made") {
            assert_eq!(entry.expect("an entry").file_name(), only, "something was made outside");
        }
    }
    let _ = std::fs::remove_dir_all(&root);
}

/// Reads documents of registries.
pub fn manifest(data: &[u8]) {
    let _ = Document::parse("fuzz", data, "");
    let _ = Config::parse("fuzz", data);
}

/// Parses a reference, and its own text again.
pub fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(reference) = Reference::parse(text) {
        assert_eq!(Reference::parse(&reference.to_string()).expect("its own text"), reference);
    }
}

/// Reads a hosts.toml.
pub fn hosts(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = registry::hosts::parse(text, Path::new("/etc/certs.d/fuzz"), "registry.example:5000");
}

/// Parses challenges.
pub fn challenge(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = registry::challenge::parse(text);
    }
}

/// Unpacks a layer into `folder`, which it makes, as a pull does; `diff_id` is the digest of the uncompressed archive.
pub fn layer(data: &[u8], diff_id: &str, folder: &Path) {
    std::fs::create_dir(folder).expect("a folder that is not there yet");
    let diff_id = diff_id.parse().expect("a digest");
    let limits = StreamLimits { bytes: u64::MAX, entries: u64::MAX };
    unpack_layer(Cursor::new(data), folder, &Expected { blob: None, diff_id }, limits).expect("a good layer");
}
