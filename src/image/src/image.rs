//! An image that is here, whole.

use std::{collections::BTreeMap, sync::Arc};

use crisp_model::image::ImageConfig;

use crate::{digest::Digest, index::ImageRecord, layers::Layer};

/// An image in the store. Holding one keeps its layers.
#[derive(Debug, Clone)]
pub struct Image {
    /// `sha256:` and the digest of its configuration: its one name in every RPC.
    pub id: String,
    /// `host/path:tag`, sorted.
    pub repo_tags: Vec<String>,
    /// `host/path@digest` of the manifests or indexes it was pulled by, sorted.
    pub repo_digests: Vec<String>,
    /// Bytes of its layers on disk, also those it shares.
    pub size: u64,
    /// What a container takes from it.
    pub config: ImageConfig,
    /// The user, if the configuration gives a number (CRI `Image.uid`).
    pub uid: Option<i64>,
    /// The user, if the configuration gives a name (CRI `Image.username`).
    pub username: String,
    /// Never removed by the kubelet's garbage collection (CRI `Image.pinned`).
    pub pinned: bool,
    /// The manifest's annotations.
    pub annotations: BTreeMap<String, String>,
    /// When it was built: RFC 3339 as the configuration has it, possibly empty.
    pub created: String,
    /// `os/architecture[/variant]`.
    pub platform: String,
    /// Identity of the stack of layers (OCI image-spec, config.md, "Layer ChainID"); empty without layers.
    pub chain_id: String,
    /// Lowest first.
    pub(crate) layers: Vec<Arc<Layer>>,
    pub(crate) record: Arc<ImageRecord>,
}

impl Image {
    pub(crate) fn new(
        record: Arc<ImageRecord>,
        layers: Vec<Arc<Layer>>,
        pinned: impl Fn(&str) -> bool,
    ) -> Self {
        let (uid, username) = user(&record.config.user);
        let mut image = Self {
            id: record.id.to_string(),
            repo_tags: record.repo_tags.iter().cloned().collect(),
            repo_digests: record.repo_digests.iter().cloned().collect(),
            size: layers.iter().map(|layer| layer.record.bytes).sum(),
            config: record.config.clone(),
            uid,
            username,
            pinned: false,
            annotations: record.annotations.clone(),
            created: record.created.clone(),
            platform: record.platform.to_string(),
            chain_id: chain_id(layers.iter().map(|layer| &layer.record.diff_id)),
            layers,
            record,
        };
        image.pinned =
            image.repo_tags.iter().chain(&image.repo_digests).chain([&image.id]).any(|name| pinned(name));
        image
    }

    /// Diff ids of its layers, lowest first.
    pub fn diff_ids(&self) -> impl Iterator<Item = &Digest> {
        self.layers.iter().map(|layer| &layer.record.diff_id)
    }
}

/// `uid[:group]` or `name[:group]`.
fn user(user: &str) -> (Option<i64>, String) {
    let name = user.split(':').next().unwrap_or_default();
    match name.parse::<u32>() {
        Ok(uid) => (Some(uid.into()), String::new()),
        Err(_) => (None, name.to_owned()),
    }
}

fn chain_id<'a>(diff_ids: impl Iterator<Item = &'a Digest>) -> String {
    diff_ids
        .fold(None, |chain: Option<Digest>, diff_id| {
            Some(match chain {
                None => diff_id.clone(),
                Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
            })
        })
        .map(|digest| digest.to_string())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users() {
        for (text, expected) in [
            ("", (None, "")),
            ("1002", (Some(1002), "")),
            ("1003:1004", (Some(1003), "")),
            ("www-data", (None, "www-data")),
            ("www-data:1004", (None, "www-data")),
            ("0", (Some(0), "")),
        ] {
            assert_eq!(user(text), (expected.0, expected.1.to_owned()), "{text}");
        }
    }
}
