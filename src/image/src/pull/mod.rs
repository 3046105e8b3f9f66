//! From a reference to an image that is whole.
//!
//! ```text
//!   manifest -> (index: the platform's manifest) -> config -> layers, all at once -> commit -> record
//! ```
//!
//! A pull is a future: dropping it stops it, and a layer's download with it if no other pull waits for that layer.
//! Nothing is recorded before everything is synced, so a crash at any point leaves only files that the next start
//! removes.

mod flight;
mod layer;
pub(crate) mod progress;

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;

pub(crate) use flight::Flights;
pub(crate) use layer::{LayerSource, OpenBlob, fetch_all};

use crate::{
    digest::Digest,
    error::ImageError,
    image::Image,
    index::{ImageRecord, RecordedLayer},
    layers::Layer,
    manifest::{Config, Descriptor, Document, Manifest},
    registry::{Fetched, Session},
    store::Inner,
};

/// As many as overlayfs stacks (`OVL_MAX_STACK` of fs/overlayfs).
const MAX_LAYERS: usize = 500;

/// Documents of one image, all checked.
#[derive(Debug)]
pub(crate) struct Plan {
    /// What the reference stands for: the index if there is one.
    pub(crate) target: Digest,
    pub(crate) manifest_digest: Digest,
    pub(crate) manifest: Manifest,
    pub(crate) manifest_bytes: Bytes,
    pub(crate) config: Config,
    pub(crate) config_bytes: Bytes,
}

/// Names an image gets.
#[derive(Debug, Default, Clone)]
pub(crate) struct Names {
    pub(crate) tags: BTreeSet<String>,
    pub(crate) digests: BTreeSet<String>,
}

/// Pulls the image of a session.
pub(crate) async fn run(
    inner: &Arc<Inner>,
    session: Arc<Session>,
    watch: &progress::Pull,
) -> Result<Arc<Image>, ImageError> {
    let reference = session.reference.clone();
    let plan = plan(inner, &session).await?;
    let names = Names {
        tags: reference.repo_tag().into_iter().collect(),
        digests: [reference.repo_digest(&plan.target)].into(),
    };
    let layers = fetch_all(inner, &LayerSource::Registry(session), &plan, watch).await?;
    watch.storing();
    let inner = Arc::clone(inner);
    finish(inner, plan, layers, names).await
}

/// Fetches and checks the documents.
async fn plan(inner: &Inner, session: &Session) -> Result<Plan, ImageError> {
    let what = session.reference.to_string();
    let top = session.manifest(session.reference.manifest()).await?;
    let target = top.digest.clone();
    let (fetched, manifest) = match Document::parse(&what, &top.bytes, &top.media_type)? {
        Document::Manifest(manifest) => (top, manifest),
        Document::Index(index) => {
            let platform = &inner.config.platform;
            let entry = platform
                .choose(&index.manifests)
                .ok_or_else(|| no_platform(&what, &index.manifests, platform))?;
            platform_manifest(session, &what, entry).await?
        }
    };
    let config_bytes = session.blob(&manifest.config).await?;
    check_plan(inner, &what, target, (fetched.digest, manifest, fetched.bytes), config_bytes)
}

async fn platform_manifest(
    session: &Session,
    what: &str,
    entry: &Descriptor,
) -> Result<(Fetched, Manifest), ImageError> {
    let fetched = session.manifest(entry.digest.as_str()).await?;
    if fetched.bytes.len() as u64 != entry.size {
        let why = format!("{} bytes instead of {}", fetched.bytes.len(), entry.size);
        return Err(ImageError::damaged(format!("manifest {} of {what}", entry.digest), why));
    }
    let media_type = if entry.media_type.is_empty() { &fetched.media_type } else { &entry.media_type };
    match Document::parse(what, &fetched.bytes, media_type)? {
        Document::Manifest(manifest) => Ok((fetched, manifest)),
        Document::Index(_) => {
            Err(ImageError::Unsupported { what: what.to_owned(), kind: "index within an index".into() })
        }
    }
}

pub(crate) fn no_platform(
    what: &str,
    entries: &[Descriptor],
    wanted: &crate::platform::Platform,
) -> ImageError {
    let offered: Vec<String> =
        entries.iter().filter_map(|e| e.platform.as_ref()).take(20).map(ToString::to_string).collect();
    ImageError::Unsupported {
        what: format!("{what} for {wanted}"),
        kind: format!("only {}", offered.join(", ")),
    }
}

/// Puts the documents of an image together and checks that they fit.
pub(crate) fn check_plan(
    inner: &Inner,
    what: &str,
    target: Digest,
    (manifest_digest, manifest, manifest_bytes): (Digest, Manifest, Bytes),
    config_bytes: Bytes,
) -> Result<Plan, ImageError> {
    let config = Config::parse(what, &config_bytes)?;
    if !inner.config.platform.runs(&config.platform) {
        return Err(ImageError::Unsupported {
            what: format!("{what} for {}", inner.config.platform),
            kind: format!("only {}", config.platform),
        });
    }
    if config.diff_ids.len() != manifest.layers.len() {
        let why = format!("{} layers, but {} diff ids", manifest.layers.len(), config.diff_ids.len());
        return Err(ImageError::damaged(what, why));
    }
    if manifest.layers.len() > MAX_LAYERS {
        return Err(ImageError::TooLarge { what: what.to_owned(), limit: MAX_LAYERS as u64, unit: "layers" });
    }
    if let Some(layer) = manifest.layers.iter().find(|layer| layer.size > inner.config.max_layer_bytes) {
        let what = format!("layer {} of {what}", layer.digest);
        return Err(ImageError::TooLarge { what, limit: inner.config.max_layer_bytes, unit: "bytes" });
    }
    Ok(Plan { target, manifest_digest, manifest, manifest_bytes, config, config_bytes })
}

/// Makes everything durable and gives the image its names.
pub(crate) async fn finish(
    inner: Arc<Inner>,
    plan: Plan,
    layers: Vec<Arc<Layer>>,
    names: Names,
) -> Result<Arc<Image>, ImageError> {
    crate::blocking(move || {
        let id = plan.manifest.config.digest.clone();
        inner.layers.commit(&layers)?;
        let fixups = crate::rootfs::fixups(&inner.layers, &layers)?;
        let recorded = |(layer, blob): (&Arc<Layer>, &Descriptor)| RecordedLayer {
            diff_id: layer.record.diff_id.clone(),
            blob: Some((blob.digest.clone(), blob.size)),
        };
        let record = ImageRecord {
            version: ImageRecord::VERSION,
            generation: 0,
            id,
            manifest: plan.manifest_digest,
            repo_tags: names.tags,
            repo_digests: names.digests,
            layers: layers.iter().zip(&plan.manifest.layers).map(recorded).collect(),
            config: plan.config.process,
            platform: plan.config.platform,
            created: plan.config.created,
            annotations: plan.manifest.annotations,
            fixups,
        };
        inner.index.record(record, (&plan.config_bytes, &plan.manifest_bytes), layers)
    })
    .await
}
