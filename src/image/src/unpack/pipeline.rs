//! The two threads of one layer.

use std::{
    fs::File,
    io::{self, BufRead, Read},
    path::Path,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::{Cause, Limits, UnpackError, Unpacked, decompress, recipe::Recipe, unpack};
use crate::{digest::Digest, error::ImageError};

/// Size of the buffers between the threads: large enough that a system call a buffer costs nothing.
const BUFFER: usize = 1 << 20;
/// Buffers in flight per layer: one being filled, one being written, two to even out the pace.
const BUFFERS: usize = 4;

/// What a layer must turn out to be.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    /// Digest and size of the stream; `None` for archives that have none of their own.
    pub(crate) blob: Option<(Digest, u64)>,
    /// Digest of the uncompressed archive.
    pub(crate) diff_id: Digest,
}

/// Bounds of one layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StreamLimits {
    /// Uncompressed bytes.
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
}

/// A stream that arrives in pieces over a bounded channel. It ends when the sender goes.
pub(crate) struct ChunkReader {
    chunks: tokio::sync::mpsc::Receiver<Bytes>,
    current: Bytes,
    started: bool,
}

impl ChunkReader {
    pub(crate) fn new(chunks: tokio::sync::mpsc::Receiver<Bytes>) -> Self {
        Self { chunks, current: Bytes::new(), started: false }
    }
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for ChunkReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        // The first look decides about the compression, so it must see some bytes even of a trickling stream.
        while self.current.is_empty() || (!self.started && self.current.len() < 8) {
            match self.chunks.blocking_recv() {
                Some(next) if self.current.is_empty() => self.current = next,
                Some(next) => self.current = [&self.current[..], &next[..]].concat().into(),
                None => break,
            }
        }
        self.started = true;
        Ok(&self.current)
    }

    fn consume(&mut self, count: usize) {
        let _ = self.current.split_to(count);
    }
}

/// Hashes and counts what is consumed.
struct Hashing<R> {
    inner: R,
    hash: Sha256,
    count: u64,
}

impl<R: BufRead> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        self.count += count as u64;
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Hashing<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        // The inner reader returns the same bytes again until they are consumed.
        if let Ok(available) = self.inner.fill_buf() {
            self.hash.update(&available[..count.min(available.len())]);
        }
        self.count += count as u64;
        self.inner.consume(count);
    }
}

/// Unpacks a layer from `source` into `staging` (`fs` and `recipe`), checking everything about it. Blocking.
pub(crate) fn unpack_layer<R: BufRead + Send>(
    source: R,
    staging: &Path,
    expected: &Expected,
    limits: StreamLimits,
) -> Result<Unpacked, ImageError> {
    let layer = expected.blob.as_ref().map_or(&expected.diff_id, |(digest, _)| digest).to_string();
    let fs = staging.join("fs");
    let host = |operation, path: &Path, e| ImageError::host(operation, path.display().to_string(), e);
    std::fs::create_dir(&fs).map_err(|e| host("making", &fs, e))?;
    let root = File::open(&fs).map_err(|e| host("opening", &fs, e))?;
    let recipe_path = staging.join("recipe");
    let recipe = File::create(&recipe_path).map_err(|e| host("making", &recipe_path, e))?;
    let recipe = Recipe::new(recipe).map_err(|e| host("writing", &recipe_path, e))?;

    let mut source = Hashing { inner: source, hash: Sha256::new(), count: 0 };
    let (full, filled) = sync_channel(BUFFERS);
    let (free, emptied) = sync_channel(BUFFERS);
    for _ in 0..BUFFERS {
        let _ = free.send(Vec::new());
    }
    let give_up = AtomicBool::new(false);
    let (decoded, unpacked) = std::thread::scope(|scope| {
        let decoding = scope.spawn(|| decode(&mut source, full, emptied, limits.bytes, &give_up));
        let mut buffers =
            Buffers { filled, free, current: Vec::new(), at: 0, hash: Sha256::new(), ended: false, total: 0 };
        let unpacked = unpack(&mut buffers, root.into(), recipe, Limits { entries: limits.entries });
        if matches!(&unpacked, Err(UnpackError { cause: Cause::Host(..) | Cause::TooMany(_), .. })) {
            give_up.store(true, Ordering::Relaxed);
        }
        let whole = unpacked.is_ok() && buffers.ended;
        let diff_id = whole.then(|| Digest::from_hash(std::mem::take(&mut buffers.hash)));
        let archive_bytes = buffers.total;
        drop(buffers);
        (decoding.join(), unpacked.map(|(unpacked, _)| (Unpacked { archive_bytes, ..unpacked }, diff_id)))
    });
    let decoded = decoded.map_err(|_| ImageError::damaged(&layer, "the decompressor panicked"))?;
    judge(&layer, expected, limits, source, decoded, unpacked)
}

/// The most basic difference first: bytes that are wrong on the wire also decompress and unpack wrongly.
fn judge<R>(
    layer: &str,
    expected: &Expected,
    limits: StreamLimits,
    source: Hashing<R>,
    decoded: Result<(), DecodeError>,
    unpacked: Result<(Unpacked, Option<Digest>), UnpackError>,
) -> Result<Unpacked, ImageError> {
    let what = format!("layer {layer}");
    if let Err(DecodeError::TooLarge) = decoded {
        return Err(ImageError::TooLarge {
            what: format!("{what}, uncompressed,"),
            limit: limits.bytes,
            unit: "bytes",
        });
    }
    match unpacked {
        Err(UnpackError { cause: Cause::Host(operation, source), entry }) => {
            return Err(ImageError::host(operation, format!("{entry:?} of {what}"), source));
        }
        Err(UnpackError { cause: Cause::TooMany(limit), .. }) => {
            return Err(ImageError::TooLarge { what, limit, unit: "entries" });
        }
        _ => {}
    }
    if let Some((digest, size)) = &expected.blob {
        if source.count != *size {
            return Err(ImageError::damaged(what, format!("{} bytes instead of {size}", source.count)));
        }
        let found = Digest::from_hash(source.hash);
        if found != *digest {
            return Err(ImageError::damaged(what, format!("the content's digest is {found}")));
        }
    }
    let bad =
        |entry: String, why: String| Err(ImageError::BadArchive { layer: layer.to_owned(), entry, why });
    match (decoded, unpacked) {
        (Err(DecodeError::Stream(error)), Err(UnpackError { entry, .. })) => {
            bad(entry, format!("decompressing: {error}"))
        }
        (Err(DecodeError::Stream(error)), Ok(_)) => bad(String::new(), format!("decompressing: {error}")),
        (_, Err(UnpackError { entry, cause })) => bad(entry, cause.to_string()),
        (_, Ok((unpacked, Some(diff_id)))) if diff_id == expected.diff_id => Ok(unpacked),
        (_, Ok((_, found))) => {
            let found = found.map_or_else(|| "unknown".to_owned(), |digest| digest.to_string());
            Err(ImageError::damaged(what, format!("its diff id is {found}, not {}", expected.diff_id)))
        }
    }
}

enum DecodeError {
    Stream(io::Error),
    TooLarge,
}

/// The first thread. Reads the stream to its end whatever happens to its content, because its digest says whether the
/// bytes or their author are to blame.
fn decode<R: BufRead + Send>(
    source: &mut Hashing<R>,
    full: SyncSender<io::Result<Vec<u8>>>,
    empty: Receiver<Vec<u8>>,
    limit: u64,
    give_up: &AtomicBool,
) -> Result<(), DecodeError> {
    let mut decoder = match decompress::decoder(&mut *source) {
        Ok(decoder) => decoder,
        Err(error) => return Err(DecodeError::Stream(error)),
    };
    let mut result = Ok(());
    let mut total = 0;
    while let Ok(mut buffer) = empty.recv() {
        buffer.resize(BUFFER, 0);
        match read_full(&mut decoder, &mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                total += count as u64;
                if total > limit {
                    let _ = full.send(Err(io::ErrorKind::FileTooLarge.into()));
                    return Err(DecodeError::TooLarge);
                }
                buffer.truncate(count);
                if full.send(Ok(buffer)).is_err() {
                    break;
                }
            }
            Err(error) => {
                let _ = full.send(Err(io::Error::new(error.kind(), error.to_string())));
                result = Err(DecodeError::Stream(error));
                break;
            }
        }
    }
    drop(full);
    let input = decoder.input();
    while !give_up.load(Ordering::Relaxed) {
        match input.fill_buf().map(<[u8]>::len) {
            Ok(0) | Err(_) => break,
            Ok(count) => input.consume(count),
        }
    }
    result
}

fn read_full(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The second thread's end of the channel.
struct Buffers {
    filled: Receiver<io::Result<Vec<u8>>>,
    free: SyncSender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
    hash: Sha256,
    ended: bool,
    total: u64,
}

impl Read for Buffers {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Buffers {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.current.len() && !self.ended {
            // The other side may have ended, and then nobody wants buffers any more.
            let _ = self.free.try_send(std::mem::take(&mut self.current));
            self.at = 0;
            match self.filled.recv() {
                Ok(buffer) => {
                    self.current = buffer?;
                    self.hash.update(&self.current);
                    self.total += self.current.len() as u64;
                }
                Err(_) => self.ended = true,
            }
        }
        Ok(&self.current[self.at..])
    }

    fn consume(&mut self, count: usize) {
        self.at += count;
    }
}
