//! `layer.json`, what a layer's folder says about itself.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{digest::Digest, unpack::Unpacked};

/// Format of the record. A layer with another one is unpacked anew.
const VERSION: u32 = 1;

/// Facts about an unpacked layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    version: u32,
    /// Digest of the uncompressed archive.
    pub(crate) diff_id: Digest,
    /// Digest and size of the blob it came as, if it came as one.
    pub(crate) blob: Option<(Digest, u64)>,
    /// Length of the uncompressed archive.
    #[serde(default)]
    pub(crate) archive_bytes: u64,
    /// Bytes on disk.
    pub(crate) bytes: u64,
    /// Files, folders, links and devices.
    pub(crate) inodes: u64,
    /// Folders that take their owner and mode from lower layers; percent-encoded where they are not plain text.
    implied: Vec<String>,
    /// Whether it hides everything below.
    pub(crate) opaque_root: bool,
    /// Whether the recipe rebuilds the archive.
    pub(crate) recipe_is_whole: bool,
}

impl LayerRecord {
    pub(crate) fn new(diff_id: Digest, blob: Option<(Digest, u64)>, unpacked: Unpacked) -> Self {
        Self {
            version: VERSION,
            diff_id,
            blob,
            archive_bytes: unpacked.archive_bytes,
            bytes: unpacked.bytes,
            inodes: unpacked.inodes,
            implied: unpacked.implied.iter().map(|path| encode(path)).collect(),
            opaque_root: unpacked.opaque_root,
            recipe_is_whole: unpacked.recipe_is_whole,
        }
    }

    pub(crate) fn implied(&self) -> impl Iterator<Item = Vec<u8>> {
        self.implied.iter().map(|path| decode(path))
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        // Strings and numbers always serialise.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The record in a layer's folder, if the folder looks whole.
    pub(crate) fn read(folder: &Path) -> Option<Self> {
        let bytes = std::fs::read(folder.join("layer.json")).ok()?;
        let record: Self = serde_json::from_slice(&bytes).ok()?;
        (record.version == VERSION && folder.join("fs").is_dir()).then_some(record)
    }
}

fn encode(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for byte in path {
        match byte {
            b'%' | 0..=0x1f | 0x7f.. => text.push_str(&format!("%{byte:02x}")),
            plain => text.push(char::from(*plain)),
        }
    }
    text
}

fn decode(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = (*first == b'%').then(|| tail.get(..2)).flatten();
        match escaped.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_path_survives() {
        for path in [&b"usr/lib"[..], b"", b"100%", b"a\xff\x00\n", "h\u{e4}".as_bytes(), b"%41"] {
            assert_eq!(decode(&encode(path)), path);
        }
    }
}
