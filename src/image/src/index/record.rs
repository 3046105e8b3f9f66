//! What is written about an image.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use crisp_model::image::ImageConfig;
use serde::{Deserialize, Serialize};

use crate::{digest::Digest, platform::Platform};

/// Format of the record. An image with a newer one is pulled again.
const VERSION: u32 = 1;

/// A layer of an image: which, and the blob it came as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecordedLayer {
    pub(crate) diff_id: Digest,
    pub(crate) blob: Option<(Digest, u64)>,
}

/// A folder whose owner and mode come from a lower layer than the topmost one that has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fixup {
    /// Bytes of the path relative to the root.
    pub(crate) path: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: (i64, u32),
}

/// What is written about an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    pub(crate) version: u32,
    /// Counts changes of the index; no clock decides an order.
    pub(crate) generation: u64,
    /// Digest of the configuration.
    pub(crate) id: Digest,
    /// Digest of the manifest that was used.
    pub(crate) manifest: Digest,
    pub(crate) repo_tags: BTreeSet<String>,
    pub(crate) repo_digests: BTreeSet<String>,
    /// Lowest first.
    pub(crate) layers: Vec<RecordedLayer>,
    pub(crate) config: ImageConfig,
    pub(crate) platform: Platform,
    pub(crate) created: String,
    pub(crate) annotations: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) fixups: Vec<Fixup>,
}

impl ImageRecord {
    pub(crate) const VERSION: u32 = VERSION;

    pub(crate) fn to_json(&self) -> Vec<u8> {
        // Strings and numbers always serialise.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a record and checks that its configuration is there and right.
    pub(crate) fn read(folder: &Path, hex: &str) -> Result<Self, String> {
        let bytes = std::fs::read(folder.join(format!("{hex}.json"))).map_err(|e| e.to_string())?;
        let record: Self = serde_json::from_slice(&bytes).map_err(|e| e.to_string())?;
        if record.version != VERSION {
            return Err(format!("its record has version {}", record.version));
        }
        if record.id.hex() != hex {
            return Err(format!("its record is of {}", record.id));
        }
        let config =
            std::fs::read(folder.join(format!("{hex}.config"))).map_err(|e| format!("configuration: {e}"))?;
        if Digest::of(&config) != record.id {
            return Err("its configuration is damaged".into());
        }
        Ok(record)
    }
}
