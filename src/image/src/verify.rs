//! Checks what is stored against its digests, and repairs it.
//!
//! A layer's recipe and its files give the archive it came from; the archive must have the layer's diff id, and each
//! file the owner, mode, time, target and attributes that the archive says. Checking changes nothing. Repairing pulls
//! images with damaged layers anew; one that cannot be pulled is forgotten, so that whoever needs it pulls it with
//! the right credentials.

use std::{path::Path, sync::Arc};

use crate::{
    digest::Digest,
    error::ImageError,
    image::Image,
    layers::Layer,
    store::{ImageStore, Inner},
    unpack::check_layer,
};

/// What checking found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Layers that are right.
    pub good_layers: usize,
    /// Layers of which only the record could be checked, because their archive names a file twice.
    pub unchecked_layers: usize,
    /// What is damaged.
    pub damaged: Vec<Damage>,
    /// Images that were pulled again.
    pub repaired: Vec<String>,
    /// Images that were forgotten, and why they could not be pulled.
    pub forgotten: Vec<(String, String)>,
}

/// Something damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Diff id of the layer, or id of the image whose configuration it is.
    pub what: String,
    /// How it differs.
    pub why: String,
    /// Ids of the images it belongs to.
    pub images: Vec<String>,
}

impl ImageStore {
    /// Checks all images; reads every byte of them. With `repair`, damaged images are pulled again.
    pub async fn verify(&self, repair: bool) -> Result<VerifyReport, ImageError> {
        let inner = Arc::clone(&self.inner);
        let (mut report, damaged) = crate::blocking(move || Ok(check_all(&inner))).await?;
        if !repair {
            return Ok(report);
        }
        for layer in &damaged {
            self.inner.layers.distrust(layer);
        }
        let mut images: Vec<String> =
            report.damaged.iter().flat_map(|damage| damage.images.clone()).collect();
        images.sort();
        images.dedup();
        for id in images {
            match self.repair(&id).await {
                Ok(()) => report.repaired.push(id),
                Err(error) => {
                    self.remove(&id).await?;
                    report.forgotten.push((id, error.to_string()));
                }
            }
        }
        Ok(report)
    }

    /// Pulls an image again by a name that leads to the very same image.
    async fn repair(&self, id: &str) -> Result<(), ImageError> {
        let image = self.known(id)?;
        let mut failure =
            ImageError::NotFound { reference: id.to_owned(), detail: "it has no name to pull it by".into() };
        for name in image.repo_digests.iter().chain(&image.repo_tags) {
            match self.pull(name, None).await {
                Ok(pulled) if pulled.id == id => return Ok(()),
                Ok(_) => failure = ImageError::damaged(name.clone(), "it is another image now"),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

fn check_all(inner: &Inner) -> (VerifyReport, Vec<Arc<Layer>>) {
    let images = inner.index.list();
    let mut report = VerifyReport::default();
    let mut seen: Vec<u64> = Vec::new();
    let mut damaged = Vec::new();
    for image in &images {
        if let Err(why) = check_config(inner, image) {
            report.damaged.push(Damage { what: image.id.clone(), why, images: vec![image.id.clone()] });
        }
        for layer in &image.layers {
            if seen.contains(&layer.number) {
                continue;
            }
            seen.push(layer.number);
            match check(&inner.layers.path(layer.number), layer) {
                Ok(true) => report.good_layers += 1,
                Ok(false) => report.unchecked_layers += 1,
                Err(why) => {
                    let users =
                        images.iter().filter(|image| image.layers.iter().any(|l| l.number == layer.number));
                    let images = users.map(|image| image.id.clone()).collect();
                    report.damaged.push(Damage { what: layer.record.diff_id.to_string(), why, images });
                    damaged.push(Arc::clone(layer));
                }
            }
        }
    }
    (report, damaged)
}

fn check_config(inner: &Inner, image: &Image) -> Result<(), String> {
    let bytes = inner.index.raw(&image.record.id, "config").map_err(|e| e.to_string())?;
    let found = Digest::of(&bytes);
    if found == image.record.id { Ok(()) } else { Err(format!("the configuration's digest is {found}")) }
}

/// Whether a layer is right; `false` if that cannot be known.
fn check(folder: &Path, layer: &Layer) -> Result<bool, String> {
    let record = crate::layers::LayerRecord::read(folder).ok_or("its record is missing or damaged")?;
    if record != layer.record {
        return Err("its record has changed".into());
    }
    if !record.recipe_is_whole {
        return Ok(false);
    }
    check_layer(&folder.join("fs"), &folder.join("recipe"), &record.diff_id).map(|()| true)
}
