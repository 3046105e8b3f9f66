//! The layers of one image: those that are here are leased, the others fetched, each once.

use std::{io::BufRead, sync::Arc};

use futures::future::try_join_all;

use super::{Plan, progress};
use crate::{
    digest::Digest,
    error::ImageError,
    layers::{Layer, LayerRecord},
    manifest::Descriptor,
    registry::{Session, Transfer},
    store::Inner,
    unpack::{ChunkReader, Expected, StreamLimits, unpack_layer},
};

/// Chunks between the network and the decompressor: some MiB at the size in which the HTTP client hands them out.
const CHUNKS: usize = 16;

/// Where blobs come from.
#[derive(Clone)]
pub(crate) enum LayerSource {
    /// Over the network.
    Registry(Arc<Session>),
    /// From an archive or folder on this machine.
    Local(Arc<dyn OpenBlob>),
}

/// Blobs on this machine.
pub(crate) trait OpenBlob: Send + Sync {
    /// Opens a blob for reading.
    fn open(&self, blob: &Digest) -> Result<Box<dyn BufRead + Send>, ImageError>;
    /// Whether the blob has the digest by which it is asked for; otherwise only its content is checked.
    fn is_addressed_by_content(&self) -> bool;
}

/// Leases all layers of an image, fetching what is missing. The largest come first: they take longest.
pub(crate) async fn fetch_all(
    inner: &Arc<Inner>,
    source: &LayerSource,
    plan: &Plan,
    watch: &progress::Pull,
) -> Result<Vec<Arc<Layer>>, ImageError> {
    let mut order: Vec<usize> = (0..plan.manifest.layers.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(plan.manifest.layers[*at].size));
    let fetching = order.iter().map(|at| async move {
        let layer =
            fetch(inner, source, &plan.manifest.layers[*at], &plan.config.diff_ids[*at], watch).await?;
        Ok::<_, ImageError>((*at, layer))
    });
    let mut layers = try_join_all(fetching).await?;
    layers.sort_by_key(|(at, _)| *at);
    Ok(layers.into_iter().map(|(_, layer)| layer).collect())
}

async fn fetch(
    inner: &Arc<Inner>,
    source: &LayerSource,
    blob: &Descriptor,
    diff_id: &Digest,
    watch: &progress::Pull,
) -> Result<Arc<Layer>, ImageError> {
    loop {
        if let Some(layer) = inner.layers.get(diff_id) {
            return Ok(layer);
        }
        let transfer = Transfer::new(blob.digest.clone(), blob.size);
        let (flight, started) = inner.flights.join(diff_id, &transfer, || {
            work(Arc::clone(inner), source.clone(), blob.clone(), diff_id.clone(), Arc::clone(&transfer))
        });
        watch.follow(&flight.transfer);
        match flight.wait().await {
            // Somebody else's failure may be due to their registry or credentials.
            Err(error) if !started => {
                tracing::debug!(%diff_id, %error, "a shared download failed; trying alone")
            }
            result => return result,
        }
    }
}

/// One layer's download. Wrong bytes are fetched once more, from another host if there is one.
async fn work(
    inner: Arc<Inner>,
    source: LayerSource,
    blob: Descriptor,
    diff_id: Digest,
    transfer: Arc<Transfer>,
) -> Result<Arc<Layer>, ImageError> {
    let _permit = inner
        .downloads
        .acquire()
        .await
        .map_err(|_| ImageError::Cancelled { what: format!("the download of {}", blob.digest) })?;
    let expected = Expected { blob: Some((blob.digest.clone(), blob.size)), diff_id };
    let session = match source {
        LayerSource::Registry(session) => session,
        LayerSource::Local(blobs) => {
            let inner = Arc::clone(&inner);
            let checked = expected.blob.clone().filter(|_| blobs.is_addressed_by_content());
            let expected = Expected { blob: checked, ..expected };
            return crate::blocking(move || match unpack(&inner, blobs.open(&blob.digest)?, &expected) {
                Err(Failed { made_room: true, .. }) => {
                    unpack(&inner, blobs.open(&blob.digest)?, &expected).map_err(|failed| failed.error)
                }
                result => result.map_err(|failed| failed.error),
            })
            .await;
        }
    };
    let (mut avoid, mut was_full) = (None, false);
    loop {
        let (sender, chunks) = tokio::sync::mpsc::channel(CHUNKS);
        let (unpacking, expected) = (Arc::clone(&inner), expected.clone());
        let unpacked = crate::blocking(move || Ok(unpack(&unpacking, ChunkReader::new(chunks), &expected)));
        // The download ends the stream by dropping its sender, and the unpacker the download by dropping its receiver.
        let (downloaded, unpacked) =
            futures::join!(transfer.run(&session, sender, avoid.as_deref()), unpacked);
        downloaded?;
        match unpacked? {
            Err(Failed { error: error @ ImageError::Damaged { .. }, .. }) if avoid.is_none() => {
                tracing::warn!(%error, host = %transfer.host(), "fetching the layer once more");
                avoid = Some(transfer.host());
            }
            Err(Failed { error, made_room: true }) if !was_full => {
                tracing::warn!(%error, "fetching the layer once more, now that removed images are deleted");
                was_full = true;
            }
            result => return result.map_err(|failed| failed.error),
        }
    }
}

/// Why a layer was not unpacked.
struct Failed {
    error: ImageError,
    /// The disk was full, and something has been deleted since.
    made_room: bool,
}

/// Unpacks one layer; nothing of it stays on failure. Blocking.
fn unpack<R: BufRead + Send>(inner: &Inner, source: R, expected: &Expected) -> Result<Arc<Layer>, Failed> {
    let failed = |error| Failed { error, made_room: false };
    let staging = inner.layers.stage().map_err(failed)?;
    let limits =
        StreamLimits { bytes: inner.config.max_unpacked_bytes, entries: inner.config.max_layer_entries };
    let unpacked = match unpack_layer(source, &staging.path(), expected, limits) {
        Ok(unpacked) => unpacked,
        Err(error @ ImageError::NoSpace { .. }) => {
            return Err(Failed { error, made_room: staging.make_room() });
        }
        Err(error) => return Err(failed(error)),
    };
    staging
        .finish(LayerRecord::new(expected.diff_id.clone(), expected.blob.clone(), unpacked))
        .map_err(failed)
}
