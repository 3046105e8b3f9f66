//! Writes images as one tar: an OCI layout that `docker load` and `skopeo` understand too.
//!
//! Layers are rebuilt from their recipes, bit for bit, but uncompressed: so the configuration, and with it the id of
//! the image, stays, and the manifest is a new one.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
    sync::Arc,
};

use serde_json::json;

use super::tar;
use crate::{
    digest::Digest,
    error::ImageError,
    image::Image,
    layers::Layer,
    store::{ImageStore, Inner},
    unpack::Rebuilt,
};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

impl ImageStore {
    /// Writes images, and returns the writer. Each name a reference gives is kept; an id exports all names.
    pub async fn export<W: Write + Send + 'static>(
        &self,
        references: &[String],
        out: W,
    ) -> Result<W, ImageError> {
        let images = references.iter().map(|text| self.known(text)).collect::<Result<Vec<_>, _>>()?;
        let inner = Arc::clone(&self.inner);
        crate::blocking(move || {
            let mut out = io::BufWriter::with_capacity(1 << 20, out);
            write(&inner, &images, &mut out)?;
            out.into_inner().map_err(|e| ImageError::host("writing", "the exported images", e.into_error()))
        })
        .await
    }
}

fn write(inner: &Inner, images: &[Arc<Image>], out: &mut impl Write) -> Result<(), ImageError> {
    let failed = |e| ImageError::host("writing", "the exported images", e);
    let mut layers: BTreeMap<String, &Arc<Layer>> = BTreeMap::new();
    let mut documents: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let (mut index, mut docker) = (Vec::new(), Vec::new());
    let mut seen = BTreeSet::new();
    for image in images.iter().filter(|image| seen.insert(&image.id)) {
        if let Some(layer) = image.layers.iter().find(|layer| !layer.record.recipe_is_whole) {
            let what = format!("exporting layer {}", layer.record.diff_id);
            return Err(ImageError::Unsupported { what, kind: "an archive that names a file twice".into() });
        }
        let config = inner.index.raw(&image.record.id, "config")?;
        let manifest = manifest(image, config.len());
        let digest = Digest::of(&manifest);
        for name in image.repo_tags.iter().map(Some).chain(image.repo_tags.is_empty().then_some(None)) {
            let annotations = name.map(|name| {
                let tag = name.rsplit(':').next().unwrap_or(name);
                json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag})
            });
            let mut entry = json!({"mediaType": MANIFEST, "digest": digest, "size": manifest.len()});
            if let (Some(entry), Some(annotations)) = (entry.as_object_mut(), annotations) {
                entry.insert("annotations".into(), annotations);
            }
            index.push(entry);
        }
        docker.push(json!({
            "Config": format!("blobs/sha256/{}", image.record.id.hex()),
            "RepoTags": image.repo_tags,
            "Layers": image.layers.iter().map(|l| format!("blobs/sha256/{}", l.record.diff_id.hex())).collect::<Vec<_>>(),
        }));
        documents.insert(image.record.id.hex().to_owned(), config);
        documents.insert(digest.hex().to_owned(), manifest);
        layers.extend(image.layers.iter().map(|layer| (layer.record.diff_id.hex().to_owned(), layer)));
    }
    let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": index});
    tar::folder(out, "blobs/").map_err(failed)?;
    tar::folder(out, "blobs/sha256/").map_err(failed)?;
    for (hex, bytes) in &documents {
        tar::file(out, &format!("blobs/sha256/{hex}"), bytes.len() as u64, &mut bytes.as_slice())
            .map_err(failed)?;
    }
    for (hex, layer) in &layers {
        let folder = inner.layers.path(layer.number);
        let mut archive = Rebuilt::open(&folder.join("fs"), &folder.join("recipe")).map_err(failed)?;
        tar::file(out, &format!("blobs/sha256/{hex}"), layer.record.archive_bytes, &mut archive)
            .map_err(failed)?;
    }
    for (name, bytes) in [
        ("index.json", index.to_string()),
        ("manifest.json", json!(docker).to_string()),
        ("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#.to_owned()),
    ] {
        tar::file(out, name, bytes.len() as u64, &mut bytes.as_bytes()).map_err(failed)?;
    }
    tar::end(out).map_err(failed)
}

fn manifest(image: &Image, config_size: usize) -> Vec<u8> {
    let layer = |layer: &Arc<Layer>| {
        json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": layer.record.diff_id,
            "size": layer.record.archive_bytes,
        })
    };
    json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": image.record.id, "size": config_size},
        "layers": image.layers.iter().map(layer).collect::<Vec<_>>(),
        "annotations": image.annotations,
    })
    .to_string()
    .into_bytes()
}
