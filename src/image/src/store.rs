//! The image store as the daemon uses it.

use std::{path::PathBuf, sync::Arc};

use crisp_model::{ContainerId, image::Rootfs, time::Timestamp};
use tokio::sync::Semaphore;

use crate::{
    config::{ImageStoreConfig, fits},
    error::ImageError,
    image::Image,
    index::{Index, PinRule},
    layers::Layers,
    pull::{self, Flights, progress},
    reference::Reference,
    registry::{Credentials, Registries, Session, Settings},
    rootfs::{Containers, FsUsage, ImageVolume},
};

/// Everything about images on this machine. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ImageStore {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: ImageStoreConfig,
    pub(crate) index: Index,
    pub(crate) containers: Containers,
    pub(crate) layers: Arc<Layers>,
    pub(crate) registries: Arc<Registries>,
    pub(crate) flights: Flights,
    pub(crate) downloads: Semaphore,
    pub(crate) board: progress::Board,
    /// Held while the store is open: two daemons would destroy each other's layers.
    _lock: nix::fcntl::Flock<std::fs::File>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Before the index and the containers give up their leases.
        self.layers.close();
    }
}

/// What opening a store found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Images that are here.
    pub images: usize,
    /// Containers that have a root file system; those that nobody knows any more should be released.
    pub containers: Vec<ContainerId>,
    /// Layers that were being unpacked, now removed.
    pub unfinished_layers: usize,
    /// Layers, images and containers that were damaged, now removed, each with the reason.
    pub damaged: Vec<String>,
}

impl ImageStore {
    /// Opens the store, removing what was unfinished. Fails if another process has it open.
    pub async fn open(config: ImageStoreConfig) -> Result<(Self, OpenReport), ImageError> {
        crate::blocking(move || Self::open_blocking(config)).await
    }

    fn open_blocking(config: ImageStoreConfig) -> Result<(Self, OpenReport), ImageError> {
        let lock = lock(&config)?;
        let (layers, mut found) = Layers::open(&config.root)?;
        let (containers, half_made) =
            Containers::open(&config.containers_root, Arc::clone(&layers), &found.layers, config.usage_age)?;
        let patterns = config.pinned.clone();
        let pinned: PinRule = Arc::new(move |name| patterns.iter().any(|pattern| fits(pattern, name)));
        let (index, damaged_images) = Index::open(&config.root, pinned, |record| {
            record.layers.iter().map(|layer| layers.get(&layer.diff_id)).collect()
        })?;
        // From here on, layers that neither an image nor a container has leased are gone.
        found.layers.clear();
        let report = OpenReport {
            images: index.list().len(),
            containers: containers.ids(),
            unfinished_layers: found.unfinished,
            damaged: [
                found.damaged.iter().map(|name| format!("layer {name}: no readable record")).collect(),
                damaged_images.iter().map(|why| format!("image {why}")).collect(),
                half_made.iter().map(|name| format!("container {name}: half-made")).collect::<Vec<_>>(),
            ]
            .concat(),
        };
        let registries = Arc::new(Registries::new(Settings {
            certs_dirs: config.certs_dirs.clone(),
            docker_config: config.docker_config.clone(),
            progress_timeout: config.pull_progress_timeout,
            attempts: config.attempts,
            backoff: config.retry_backoff,
        }));
        let downloads = Semaphore::new(config.max_concurrent_downloads.max(1));
        let inner = Inner {
            config,
            index,
            containers,
            layers,
            registries,
            flights: Flights::default(),
            downloads,
            board: progress::Board::default(),
            _lock: lock,
        };
        Ok((Self { inner: Arc::new(inner) }, report))
    }

    /// Pulls an image. Dropping the future cancels the pull; what others also wait for goes on.
    pub async fn pull(
        &self,
        reference: &str,
        credentials: Option<Credentials>,
    ) -> Result<Arc<Image>, ImageError> {
        let reference = Reference::parse(reference)?;
        let watch = self.inner.board.start(reference.to_string());
        let session = Session::open(Arc::clone(&self.inner.registries), reference, credentials).await?;
        let pulling = pull::run(&self.inner, Arc::new(session), &watch);
        let every = self.inner.config.progress_report_after;
        let mut pulling = std::pin::pin!(pulling);
        loop {
            match tokio::time::timeout(every, &mut pulling).await {
                Ok(result) => return result,
                Err(_) => tracing::info!(progress = %watch.snapshot(), "still pulling"),
            }
        }
    }

    /// All images, by id.
    pub fn list(&self) -> Vec<Arc<Image>> {
        self.inner.index.list()
    }

    /// Finds an image by id (with or without `sha256:`, or an unambiguous start), tag, digest, or a short form of
    /// those (`busybox` is `docker.io/library/busybox:latest`).
    pub fn resolve(&self, reference_or_id: &str) -> Option<Arc<Image>> {
        self.inner.index.resolve(reference_or_id)
    }

    /// Removes an image with all its tags in all repositories. Unknown images are no error. When this returns, the
    /// image is gone for everybody; its disk space follows. Layers in use by containers stay until those are released.
    pub async fn remove(&self, reference_or_id: &str) -> Result<(), ImageError> {
        let (inner, text) = (Arc::clone(&self.inner), reference_or_id.to_owned());
        crate::blocking(move || inner.index.remove(&text).map(drop)).await
    }

    /// The configuration of an image, as its publisher wrote it.
    pub async fn raw_config(&self, image: &Image) -> Result<Vec<u8>, ImageError> {
        let (inner, id) = (Arc::clone(&self.inner), image.record.id.clone());
        crate::blocking(move || inner.index.raw(&id, "config")).await
    }

    /// Disk use of images.
    pub fn usage(&self) -> FsUsage {
        let (bytes, inodes) = self.inner.layers.totals();
        FsUsage { mountpoint: self.inner.config.root.clone(), bytes, inodes, timestamp: Timestamp::now() }
    }

    /// Disk use of all writable layers, as last counted.
    pub fn containers_usage(&self) -> FsUsage {
        self.inner.containers.accounts.total()
    }

    /// Disk use of one writable layer; `None` if there is none.
    pub async fn container_usage(&self, container: &ContainerId) -> Option<FsUsage> {
        let (inner, container) = (Arc::clone(&self.inner), container.clone());
        crate::blocking(move || Ok(inner.containers.accounts.of(&container))).await.ok().flatten()
    }

    /// Pulls that are going on.
    pub fn progress(&self) -> Vec<progress::PullProgress> {
        self.inner.board.list()
    }

    /// Makes a container's writable layer and keeps the image's layers until [`Self::release_rootfs`], also over a
    /// restart. Asking again for the same container gives the same.
    pub async fn prepare_rootfs(
        &self,
        image: &str,
        container: &ContainerId,
        mountpoint: PathBuf,
    ) -> Result<Rootfs, ImageError> {
        let (inner, container) = (Arc::clone(&self.inner), container.clone());
        let image = self.known(image)?;
        crate::blocking(move || inner.containers.prepare(&image, &container, mountpoint)).await
    }

    /// Deletes a container's writable layer and gives its layers back, those of image volumes too. Idempotent.
    pub async fn release_rootfs(&self, container: &ContainerId) -> Result<(), ImageError> {
        let (inner, container) = (Arc::clone(&self.inner), container.clone());
        crate::blocking(move || {
            inner.containers.release(&container);
            Ok(())
        })
        .await
    }

    /// Prepares an image as a read-only volume of a container. `sub_path` may be empty; it must exist and stay inside
    /// the image, links included. The layers are kept until [`Self::release_rootfs`] of the container.
    pub async fn prepare_volume(
        &self,
        image: &str,
        container: &ContainerId,
        sub_path: &str,
    ) -> Result<ImageVolume, ImageError> {
        let (inner, container, sub_path) = (Arc::clone(&self.inner), container.clone(), sub_path.to_owned());
        let image = self.known(image)?;
        crate::blocking(move || inner.containers.volume(&image, &container, &sub_path)).await
    }

    /// Makes the folder behind volume `number` of those that a container's image declares, as a copy of what the image has
    /// at the path; empty if it has nothing there. It goes with [`Self::release_rootfs`].
    pub async fn fill_volume(
        &self,
        image: &Arc<Image>,
        container: &ContainerId,
        number: usize,
        path: &str,
    ) -> Result<PathBuf, ImageError> {
        let (inner, image) = (Arc::clone(&self.inner), Arc::clone(image));
        let (container, path) = (container.clone(), path.to_owned());
        crate::blocking(move || inner.containers.fill(&image, &container, number, &path)).await
    }

    /// The first `limit` bytes of a regular file of an image, by its relative path; `None`: it has no such file.
    pub async fn read_file(
        &self,
        image: &Arc<Image>,
        path: &'static str,
        limit: u64,
    ) -> Result<Option<Vec<u8>>, ImageError> {
        let (inner, image) = (Arc::clone(&self.inner), Arc::clone(image));
        crate::blocking(move || inner.containers.read(&image, path, limit)).await
    }

    /// Containers that have a writable layer.
    pub fn held(&self) -> Vec<ContainerId> {
        self.inner.containers.ids()
    }

    pub(crate) fn known(&self, text: &str) -> Result<Arc<Image>, ImageError> {
        self.resolve(text).ok_or_else(|| ImageError::NotFound {
            reference: text.chars().take(300).collect(),
            detail: String::new(),
        })
    }
}

fn lock(config: &ImageStoreConfig) -> Result<nix::fcntl::Flock<std::fs::File>, ImageError> {
    let path = config.root.join("lock");
    let host = |operation, e| ImageError::host(operation, path.display().to_string(), e);
    crisp_host::file::private_folder(&config.root).map_err(|e| host("making the folder of", e))?;
    let file = std::fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|e| host("opening", e))?;
    nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock)
        .map_err(|(_, errno)| host("locking (is another daemon running?)", errno.into()))
}
