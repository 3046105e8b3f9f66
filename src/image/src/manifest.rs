//! Manifests, indexes and configurations: OCI image-spec and Docker schema 2. Pure: bytes in, checked values out.

use std::collections::BTreeMap;

use crisp_model::image::ImageConfig;
use serde::Deserialize;

use crate::{digest::Digest, error::ImageError, platform::Platform};

/// Largest manifest or index that is read; the distribution-spec tells registries to accept at least this much.
pub const MAX_MANIFEST: u64 = 4 << 20;
/// Largest image configuration that is read. Real ones are some KiB; histories can be long.
pub const MAX_CONFIG: u64 = 8 << 20;
/// More layers than overlayfs can stack (500) are of no use.
pub const MAX_LAYERS: usize = 500;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// `Accept` for manifests.
pub const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json, */*;q=0.1";

/// A pointer to content.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Kind of content.
    #[serde(default)]
    pub media_type: String,
    /// Its address.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// For entries of an index.
    pub platform: Option<Platform>,
    /// Free-form.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// What stands behind a tag or digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// One image per platform.
    Index(Index),
    /// One image.
    Manifest(Manifest),
}

/// An image index / manifest list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// Entries in the publisher's order.
    pub manifests: Vec<Descriptor>,
}

/// An image manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The configuration; its digest is the image's id.
    pub config: Descriptor,
    /// Layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// Free-form.
    pub annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: Option<u32>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(rename = "fsLayers")]
    fs_layers: Option<serde_json::Value>,
}

impl Document {
    /// Reads a manifest or an index. `media_type` is the one the content was served or described with; the document's
    /// own wins, and where neither speaks, the fields decide (OCI made `mediaType` optional).
    pub fn parse(what: &str, bytes: &[u8], media_type: &str) -> Result<Self, ImageError> {
        let raw: Raw = serde_json::from_slice(bytes)
            .map_err(|e| ImageError::damaged(what, format!("not a manifest: {e}")))?;
        let unsupported =
            |kind: &str| ImageError::Unsupported { what: what.to_owned(), kind: kind.to_owned() };
        if raw.schema_version == Some(1) || raw.fs_layers.is_some() {
            return Err(unsupported("Docker manifest schema 1"));
        }
        let served = media_type.split(';').next().unwrap_or_default().trim();
        let kind = raw.media_type.as_deref().filter(|kind| !kind.is_empty()).unwrap_or(served);
        let is_index = match kind {
            OCI_INDEX | DOCKER_INDEX => true,
            OCI_MANIFEST | DOCKER_MANIFEST => false,
            // Some registries serve manifests as plain JSON.
            "" | "application/json" | "application/octet-stream" | "text/plain" => raw.manifests.is_some(),
            other => return Err(unsupported(other)),
        };
        match (is_index, raw) {
            // A document that could be read both ways is an attack on signatures (CVE-2021-41190).
            (
                _,
                Raw { config: Some(_), manifests: Some(_), .. }
                | Raw { layers: Some(_), manifests: Some(_), .. },
            ) => Err(ImageError::damaged(what, "has both manifests and layers")),
            (true, Raw { manifests: Some(manifests), .. }) => Ok(Self::Index(Index { manifests })),
            (false, Raw { config: Some(config), layers: Some(layers), annotations, artifact_type, .. }) => {
                let manifest = Manifest { config, layers, annotations: annotations.unwrap_or_default() };
                manifest.check(what, artifact_type.as_deref())?;
                Ok(Self::Manifest(manifest))
            }
            (true, _) => Err(ImageError::damaged(what, "an index without manifests")),
            (false, _) => Err(ImageError::damaged(what, "a manifest without config and layers")),
        }
    }
}

impl Manifest {
    fn check(&self, what: &str, artifact_type: Option<&str>) -> Result<(), ImageError> {
        let unsupported =
            |kind: &str| ImageError::Unsupported { what: what.to_owned(), kind: kind.to_owned() };
        if let Some(kind) = artifact_type.filter(|kind| !kind.is_empty()) {
            return Err(unsupported(&format!("artifact of type {kind}")));
        }
        match self.config.media_type.as_str() {
            "application/vnd.oci.image.config.v1+json"
            | "application/vnd.docker.container.image.v1+json"
            | "" => {}
            // Written by old builders for images all the same.
            "application/octet-stream" => {}
            other => return Err(unsupported(&format!("artifact with a config of type {other}"))),
        }
        if self.config.size > MAX_CONFIG {
            return Err(ImageError::TooLarge {
                what: format!("config of {what}"),
                limit: MAX_CONFIG,
                unit: "bytes",
            });
        }
        if self.layers.len() > MAX_LAYERS {
            return Err(ImageError::TooLarge {
                what: format!("list of layers of {what}"),
                limit: MAX_LAYERS as u64,
                unit: "layers",
            });
        }
        self.layers.iter().try_for_each(|layer| {
            check_layer_type(&layer.media_type).map_err(|kind| ImageError::Unsupported {
                what: format!("layer {} of {what}", layer.digest),
                kind,
            })
        })
    }
}

/// Compression is found out from the bytes; the media type only says whether this is a layer at all.
fn check_layer_type(kind: &str) -> Result<(), String> {
    let known = matches!(
        kind,
        "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd"
    );
    if known { Ok(()) } else { Err(kind.chars().take(200).collect()) }
}

#[derive(Deserialize)]
struct RawConfig {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    variant: Option<String>,
    #[serde(default)]
    created: Option<String>,
    #[serde(default)]
    config: Option<RawProcess>,
    rootfs: RawRootfs,
}

#[derive(Deserialize)]
struct RawRootfs {
    #[serde(default, rename = "type")]
    kind: String,
    diff_ids: Option<Vec<Digest>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct RawProcess {
    user: Option<String>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    working_dir: Option<String>,
    stop_signal: Option<String>,
    volumes: Option<BTreeMap<String, serde_json::Value>>,
    labels: Option<BTreeMap<String, String>>,
}

/// What an image's configuration says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The platform it was built for.
    pub platform: Platform,
    /// RFC 3339, as written.
    pub created: String,
    /// Uncompressed layers, lowest first.
    pub diff_ids: Vec<Digest>,
    /// The container's part.
    pub process: ImageConfig,
}

impl Config {
    /// Reads a configuration.
    pub fn parse(what: &str, bytes: &[u8]) -> Result<Self, ImageError> {
        let raw: RawConfig = serde_json::from_slice(bytes).map_err(|e| {
            ImageError::damaged(format!("config of {what}"), format!("not an image configuration: {e}"))
        })?;
        if !matches!(raw.rootfs.kind.as_str(), "layers" | "") {
            return Err(ImageError::Unsupported { what: format!("rootfs of {what}"), kind: raw.rootfs.kind });
        }
        let process = raw.config.unwrap_or_default();
        Ok(Self {
            platform: Platform::new(&raw.os, &raw.architecture, raw.variant.as_deref().unwrap_or_default()),
            created: raw.created.unwrap_or_default(),
            diff_ids: raw.rootfs.diff_ids.unwrap_or_default(),
            process: ImageConfig {
                user: process.user.unwrap_or_default(),
                env: process.env.unwrap_or_default(),
                entrypoint: process.entrypoint.unwrap_or_default(),
                cmd: process.cmd.unwrap_or_default(),
                working_dir: process.working_dir.unwrap_or_default(),
                stop_signal: process.stop_signal.unwrap_or_default(),
                volumes: process.volumes.unwrap_or_default().into_keys().collect(),
                labels: process.labels.unwrap_or_default(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn descriptor(kind: &str) -> String {
        format!(r#"{{"mediaType":"{kind}","digest":"{D}","size":7}}"#)
    }

    fn manifest(kind: &str, layer: &str) -> String {
        let config = descriptor("application/vnd.oci.image.config.v1+json");
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{kind}","config":{config},"layers":[{}]}}"#,
            descriptor(layer)
        )
    }

    #[test]
    fn both_families_are_read() {
        let layer = "application/vnd.oci.image.layer.v1.tar+zstd";
        for (body, served) in [
            (manifest(OCI_MANIFEST, layer), ""),
            (manifest(DOCKER_MANIFEST, "application/vnd.docker.image.rootfs.diff.tar.gzip"), "text/plain"),
            (manifest("", layer), OCI_MANIFEST),
            (manifest("", layer), "application/vnd.oci.image.manifest.v1+json; charset=utf-8"),
            (manifest("", layer), "application/json"),
        ] {
            let parsed = Document::parse("x", body.as_bytes(), served).expect("manifest");
            assert!(matches!(parsed, Document::Manifest(m) if m.layers.len() == 1));
        }
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, descriptor(OCI_MANIFEST));
        assert!(matches!(Document::parse("x", index.as_bytes(), "").expect("index"), Document::Index(_)));
    }

    #[test]
    fn everything_else_is_refused_by_name() {
        let both = format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[],"layers":[]}}"#);
        let helm = manifest(OCI_MANIFEST, "x").replace("oci.image.config.v1", "cncf.helm.config.v1");
        let foreign = manifest(DOCKER_MANIFEST, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
        for (body, served, needle) in [
            (r#"{"schemaVersion":1,"fsLayers":[]}"#.to_owned(), "", "schema 1"),
            (both, "", "both"),
            (helm, "", "helm"),
            (foreign, "", "foreign"),
            (manifest("application/x-strange", "x"), "", "x-strange"),
            ("{".to_owned(), "", "not a manifest"),
            ("{}".to_owned(), OCI_MANIFEST, "without config"),
            ("{}".to_owned(), OCI_INDEX, "without manifests"),
        ] {
            let error = Document::parse("x", body.as_bytes(), served).expect_err(&body).to_string();
            assert!(error.contains(needle), "{error}");
        }
    }

    #[test]
    fn a_configuration_with_nulls() {
        let body = format!(
            r#"{{"os":"linux","architecture":"amd64","config":{{"User":"1:2","Env":null,"Cmd":["a"],"Volumes":{{"/v":{{}}}},"Labels":null}},"rootfs":{{"type":"layers","diff_ids":["{D}"]}}}}"#
        );
        let config = Config::parse("x", body.as_bytes()).expect("config");
        assert_eq!(config.process.user, "1:2");
        assert_eq!(config.process.volumes, ["/v"]);
        assert_eq!(config.diff_ids.len(), 1);
        assert!(Config::parse("x", b"{}").is_err());
    }
}
