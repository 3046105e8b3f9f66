//! Reads images from OCI layouts and `docker save`.
//!
//! A tar is unpacked beside the layers first, with the same care as a layer; a crash leaves that to the next start.

use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use crisp_host::beneath::{Links, open_beneath};
use nix::fcntl::OFlag;
use serde::Deserialize;

use crate::{
    digest::Digest,
    error::ImageError,
    image::Image,
    layers::Staging,
    manifest::{self, Descriptor, Document, Index, Manifest},
    pull::{self, LayerSource, Names, OpenBlob, Plan},
    reference::Reference,
    store::{ImageStore, Inner},
    unpack::{Limits, decoder, recipe::Recipe, unpack},
};

/// One image of a `docker save`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// An image to import: its documents, names, and where its layers are.
type Found = (Plan, Names, Arc<Folder>);

impl ImageStore {
    /// Imports all images of a folder or tar file. `base` names images whose layout gives only a tag.
    pub async fn import(&self, path: &Path, base: Option<&str>) -> Result<Vec<Arc<Image>>, ImageError> {
        let failed = |e| ImageError::host("opening", path.display().to_string(), e);
        if std::fs::metadata(path).map_err(failed)?.is_dir() {
            return self.import_folder(path.to_owned(), None, base).await;
        }
        self.import_archive(File::open(path).map_err(failed)?, base).await
    }

    /// Imports all images of a tar stream.
    pub async fn import_archive<R: Read + Send + 'static>(
        &self,
        reader: R,
        base: Option<&str>,
    ) -> Result<Vec<Arc<Image>>, ImageError> {
        let inner = Arc::clone(&self.inner);
        let staging = crate::blocking(move || spool(&inner, reader)).await?;
        let path = staging.path().join("fs");
        self.import_folder(path, Some(staging), base).await
    }

    /// Imports every archive and layout in a folder, in the order of their names; one that fails does not stop the
    /// others. A folder that is not there has none.
    pub async fn import_all(&self, folder: &Path) -> Vec<(PathBuf, Result<Vec<Arc<Image>>, ImageError>)> {
        let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
        let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.retain(|path| !path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")));
        paths.sort();
        let mut results = Vec::new();
        for path in paths {
            let result = self.import(&path, None).await;
            results.push((path, result));
        }
        results
    }

    async fn import_folder(
        &self,
        path: PathBuf,
        staging: Option<Staging>,
        base: Option<&str>,
    ) -> Result<Vec<Arc<Image>>, ImageError> {
        let base = base.map(Reference::parse).transpose()?;
        let inner = Arc::clone(&self.inner);
        let found = crate::blocking(move || find(&inner, &path, base.as_ref())).await?;
        let watch = self.inner.board.start("an import".into());
        let mut images = Vec::new();
        for (plan, names, folder) in found {
            let source = LayerSource::Local(folder);
            let layers = pull::fetch_all(&self.inner, &source, &plan, &watch).await?;
            images.push(pull::finish(Arc::clone(&self.inner), plan, layers, names).await?);
        }
        drop(staging);
        Ok(images)
    }
}

/// Unpacks a tar stream into a folder of its own.
fn spool(inner: &Inner, reader: impl Read + Send) -> Result<Staging, ImageError> {
    let staging = inner.layers.stage()?;
    let fs = staging.path().join("fs");
    let host = |e| ImageError::host("making", fs.display().to_string(), e);
    std::fs::create_dir(&fs).map_err(host)?;
    let root = File::open(&fs).map_err(host)?;
    let reading = |e| ImageError::host("reading", "the archive", e);
    let input = decoder(BufReader::with_capacity(1 << 20, reader)).map_err(reading)?;
    // The bound of one layer holds for all of them together, times the number an image can have.
    let limit = inner.config.max_unpacked_bytes.saturating_mul(4);
    let input = BufReader::with_capacity(1 << 20, input.take(limit));
    let recipe = Recipe::new(io::sink()).map_err(reading)?;
    let limits = Limits { entries: inner.config.max_layer_entries };
    unpack(input, root.into(), recipe, limits).map_err(|error| ImageError::BadArchive {
        layer: "of images".into(),
        why: error.to_string(),
        entry: error.entry,
    })?;
    Ok(staging)
}

/// A folder with blobs. Names in it are foreign: nothing outside is ever opened.
struct Folder {
    root: File,
    path: PathBuf,
    /// Layers of a `docker save`, by diff id; others are found by digest.
    files: HashMap<Digest, String>,
}

impl Folder {
    fn open_file(&self, name: &str) -> Result<File, ImageError> {
        let flags = (OFlag::O_RDONLY | OFlag::O_NONBLOCK).bits();
        open_beneath(&self.root, name.as_bytes(), flags, Links::InRoot)
            .map(File::from)
            .map_err(|e| ImageError::host("opening", self.path.join(name).display().to_string(), e))
    }

    /// A small file, if it is there.
    fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, ImageError> {
        let file = match self.open_file(name) {
            Ok(file) => file,
            Err(ImageError::Host { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| ImageError::host("reading", self.path.join(name).display().to_string(), e))?;
        if bytes.len() as u64 > limit {
            return Err(ImageError::TooLarge { what: name.to_owned(), limit, unit: "bytes" });
        }
        Ok(Some(bytes))
    }

    fn needed(&self, name: &str, limit: u64) -> Result<Vec<u8>, ImageError> {
        let missing = || ImageError::damaged(self.path.display().to_string(), format!("{name} is missing"));
        self.read(name, limit)?.ok_or_else(missing)
    }

    /// A document by digest, checked.
    fn document(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, ImageError> {
        let bytes = self.needed(&blob_name(digest), limit)?;
        let found = Digest::of(&bytes);
        if found == *digest {
            Ok(bytes)
        } else {
            Err(ImageError::damaged(blob_name(digest), format!("its digest is {found}")))
        }
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

impl OpenBlob for Folder {
    fn open(&self, blob: &Digest) -> Result<Box<dyn BufRead + Send>, ImageError> {
        let name = self.files.get(blob).cloned().unwrap_or_else(|| blob_name(blob));
        Ok(Box::new(BufReader::with_capacity(1 << 20, self.open_file(&name)?)))
    }

    fn is_addressed_by_content(&self) -> bool {
        self.files.is_empty()
    }
}

/// All images of a folder.
fn find(inner: &Inner, path: &Path, base: Option<&Reference>) -> Result<Vec<Found>, ImageError> {
    let root = File::open(path).map_err(|e| ImageError::host("opening", path.display().to_string(), e))?;
    let folder = Folder { root, path: path.to_owned(), files: HashMap::new() };
    let saved: Vec<Saved> = match folder.read("manifest.json", manifest::MAX_MANIFEST)? {
        Some(bytes) => {
            serde_json::from_slice(&bytes).map_err(|e| ImageError::damaged("manifest.json", e.to_string()))?
        }
        None => Vec::new(),
    };
    if let Some(bytes) = folder.read("index.json", manifest::MAX_MANIFEST)? {
        return layout(inner, Arc::new(folder), &bytes, &saved, base);
    }
    if saved.is_empty() {
        return Err(ImageError::Unsupported {
            what: path.display().to_string(),
            kind: "neither index.json nor manifest.json in it".into(),
        });
    }
    saved.iter().map(|image| docker_save(inner, path, image)).collect()
}

/// An OCI layout (OCI image-spec, image-layout.md).
fn layout(
    inner: &Inner,
    folder: Arc<Folder>,
    index: &[u8],
    saved: &[Saved],
    base: Option<&Reference>,
) -> Result<Vec<Found>, ImageError> {
    let what = folder.path.display().to_string();
    let Document::Index(index) = Document::parse(&what, index, "application/vnd.oci.image.index.v1+json")?
    else {
        return Err(ImageError::damaged(what, "index.json is no index"));
    };
    let mut found: Vec<Found> = Vec::new();
    for entry in &index.manifests {
        // Entries for other platforms, side by side with ours, are none of ours.
        let other = entry.platform.as_ref().is_some_and(|platform| !inner.config.platform.runs(platform));
        if other && index.manifests.len() > 1 {
            continue;
        }
        let Some((digest, bytes, manifest)) = manifest_of(inner, &folder, entry)? else { continue };
        let config = folder.document(&manifest.config.digest, manifest::MAX_CONFIG)?;
        let plan = pull::check_plan(
            inner,
            &what,
            entry.digest.clone(),
            (digest, manifest, bytes.into()),
            config.into(),
        )?;
        let names = names(entry, &plan, saved, base);
        match found.iter_mut().find(|(present, ..)| present.manifest_digest == plan.manifest_digest) {
            // One image under several names is one entry each.
            Some((_, present, _)) => {
                present.tags.extend(names.tags);
                present.digests.extend(names.digests);
            }
            None => found.push((plan, names, Arc::clone(&folder))),
        }
    }
    if found.is_empty() {
        return Err(pull::no_platform(&what, &index.manifests, &inner.config.platform));
    }
    Ok(found)
}

/// The manifest an entry leads to, over one index in between; `None` if that has nothing for this machine.
fn manifest_of(
    inner: &Inner,
    folder: &Folder,
    entry: &Descriptor,
) -> Result<Option<(Digest, Vec<u8>, Manifest)>, ImageError> {
    let bytes = folder.document(&entry.digest, manifest::MAX_MANIFEST)?;
    let what = blob_name(&entry.digest);
    let Index { manifests } = match Document::parse(&what, &bytes, &entry.media_type)? {
        Document::Manifest(manifest) => return Ok(Some((entry.digest.clone(), bytes, manifest))),
        Document::Index(index) => index,
    };
    let Some(inside) = inner.config.platform.choose(&manifests) else { return Ok(None) };
    let bytes = folder.document(&inside.digest, manifest::MAX_MANIFEST)?;
    match Document::parse(&blob_name(&inside.digest), &bytes, &inside.media_type)? {
        Document::Manifest(manifest) => Ok(Some((inside.digest.clone(), bytes, manifest))),
        Document::Index(_) => Err(ImageError::Unsupported { what, kind: "index within an index".into() }),
    }
}

/// Names from the entry's annotations, from Docker's list, or from the tag and a base.
fn names(entry: &Descriptor, plan: &Plan, saved: &[Saved], base: Option<&Reference>) -> Names {
    let mut names = Names::default();
    let annotation = |key: &str| entry.annotations.get(key).map(String::as_str);
    let full = annotation("io.containerd.image.name");
    let reference = annotation("org.opencontainers.image.ref.name");
    // A bare tag is a valid name too, but not what is meant.
    let full = full.or(reference.filter(|name| name.contains(['/', ':'])));
    let with_base = || Some(format!("{}:{}", base?.name(), reference.unwrap_or("latest")));
    if let Some(reference) =
        full.map(str::to_owned).or_else(with_base).and_then(|name| Reference::parse(&name).ok())
    {
        names.tags.extend(reference.repo_tag());
        names.digests.insert(reference.repo_digest(&plan.target));
    }
    let config = plan.manifest.config.digest.hex();
    for image in saved.iter().filter(|image| image.config.contains(config)) {
        names.tags.extend(saved_tags(image));
    }
    names
}

fn saved_tags(image: &Saved) -> BTreeSet<String> {
    let tags = image.repo_tags.iter().flatten();
    tags.filter_map(|tag| Reference::parse(tag).ok()?.repo_tag()).collect()
}

/// One image of a `docker save` without an OCI layout: layers are plain files, known by their diff ids.
fn docker_save(inner: &Inner, path: &Path, image: &Saved) -> Result<Found, ImageError> {
    let root = File::open(path).map_err(|e| ImageError::host("opening", path.display().to_string(), e))?;
    let mut folder = Folder { root, path: path.to_owned(), files: HashMap::new() };
    let config_bytes = folder.needed(&image.config, manifest::MAX_CONFIG)?;
    let config = manifest::Config::parse(&image.config, &config_bytes)?;
    let mut layers = Vec::new();
    for (name, diff_id) in image.layers.iter().zip(&config.diff_ids) {
        let size = folder
            .open_file(name)?
            .metadata()
            .map_err(|e| ImageError::host("looking at", name.clone(), e))?
            .len();
        folder.files.insert(diff_id.clone(), name.clone());
        layers.push(serde_json::json!({
            "mediaType": "application/vnd.docker.image.rootfs.diff.tar", "digest": diff_id, "size": size,
        }));
    }
    let id = Digest::of(&config_bytes);
    let document = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json", "digest": id, "size": config_bytes.len(),
        },
        "layers": layers,
    })
    .to_string();
    let Document::Manifest(manifest) = Document::parse(&image.config, document.as_bytes(), "")? else {
        return Err(ImageError::damaged("manifest.json", "no image in it"));
    };
    let digest = Digest::of(document.as_bytes());
    let documents = (digest.clone(), manifest, document.into_bytes().into());
    let plan = pull::check_plan(inner, &image.config, digest, documents, config_bytes.into())?;
    Ok((plan, Names { tags: saved_tags(image), digests: BTreeSet::new() }, Arc::new(folder)))
}
