//! Takes down everything of an archive that is not the content of a file, so that the archive can be put together
//! again from the unpacked layer, bit for bit: to check a layer against its digest, and to export it.
//!
//! Format: zstd over records. `0`, length (u32), bytes: part of the archive. `1`, path length (u32), path, number of
//! runs (u32), runs of (offset u64, length u64): content of that file. Integers are little-endian.

use std::io::{self, Read, Write};

use super::{
    archive::{ArchiveError, MetaSink},
    sparse::Segment,
};

/// Longest path and largest number of runs that are read back; a recipe is trusted, but may be damaged.
const MAX_PATH: u32 = 1 << 13;
const MAX_RUNS: u32 = 1 << 19;

/// Writes a recipe.
pub struct Recipe<W: Write> {
    encoder: Option<zstd::Encoder<'static, W>>,
    /// Headers that follow each other are one record.
    pending: Vec<u8>,
}

impl<W: Write> std::fmt::Debug for Recipe<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recipe").field("pending", &self.pending.len()).finish_non_exhaustive()
    }
}

impl<W: Write> Recipe<W> {
    /// Starts a recipe.
    pub fn new(writer: W) -> io::Result<Self> {
        Ok(Self { encoder: Some(zstd::Encoder::new(writer, 1)?), pending: Vec::new() })
    }

    /// In the place of one that was finished.
    pub(crate) fn spent() -> Self {
        Self { encoder: None, pending: Vec::new() }
    }

    /// Notes that the content of a file follows: all of it, or its runs.
    pub(crate) fn file(&mut self, path: &[u8], runs: Option<&[Segment]>, length: u64) -> io::Result<()> {
        if length == 0 {
            return Ok(());
        }
        self.flush()?;
        let whole = [Segment { offset: 0, length }];
        let runs = runs.unwrap_or(&whole);
        let mut record = Vec::with_capacity(path.len() + 32);
        record.push(1);
        record.extend_from_slice(&(path.len() as u32).to_le_bytes());
        record.extend_from_slice(path);
        record.extend_from_slice(&(runs.len() as u32).to_le_bytes());
        for run in runs {
            record.extend_from_slice(&run.offset.to_le_bytes());
            record.extend_from_slice(&run.length.to_le_bytes());
        }
        self.write(&record)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.encoder.as_mut().map_or(Ok(()), |encoder| encoder.write_all(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        let pending = std::mem::take(&mut self.pending);
        if !pending.is_empty() {
            self.write(&[0])?;
            self.write(&(pending.len() as u32).to_le_bytes())?;
            self.write(&pending)?;
        }
        self.pending = pending;
        self.pending.clear();
        Ok(())
    }

    pub(crate) fn finish(mut self) -> (io::Result<W>, bool) {
        let flushed = self.flush();
        match (flushed, self.encoder.take()) {
            (Ok(()), Some(encoder)) => (encoder.finish(), true),
            (Err(error), _) => (Err(error), false),
            (Ok(()), None) => (Err(io::ErrorKind::InvalidInput.into()), false),
        }
    }
}

impl<W: Write> MetaSink for Recipe<W> {
    fn meta(&mut self, bytes: &[u8]) -> io::Result<()> {
        // Bounds the memory that a long trailer takes.
        if self.pending.len() + bytes.len() > 256 << 10 {
            self.flush()?;
            for part in bytes.chunks(256 << 10) {
                self.pending.extend_from_slice(part);
                self.flush()?;
            }
            return Ok(());
        }
        self.pending.extend_from_slice(bytes);
        Ok(())
    }
}

/// One step of a recipe.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Bytes of the archive.
    Bytes(Vec<u8>),
    /// Content of a file of the layer.
    Content {
        /// Relative to the layer's root.
        path: Vec<u8>,
        /// Runs of data.
        runs: Vec<Segment>,
    },
}

/// Reads a recipe.
pub struct Steps<R: Read>(zstd::Decoder<'static, io::BufReader<R>>);

impl<R: Read> std::fmt::Debug for Steps<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Steps")
    }
}

impl<R: Read> Steps<R> {
    /// Starts at the first step.
    pub fn new(reader: R) -> io::Result<Self> {
        Ok(Self(zstd::Decoder::new(reader)?))
    }

    fn number<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn bytes(&mut self, length: u32, limit: u32) -> io::Result<Vec<u8>> {
        if length > limit {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a damaged recipe"));
        }
        let mut bytes = vec![0; length as usize];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn step(&mut self) -> io::Result<Option<Step>> {
        let mut tag = [0];
        if self.0.read(&mut tag)? == 0 {
            return Ok(None);
        }
        let length = u32::from_le_bytes(self.number()?);
        if tag[0] == 0 {
            return Ok(Some(Step::Bytes(self.bytes(length, 1 << 20)?)));
        }
        let path = self.bytes(length, MAX_PATH)?;
        let count = u32::from_le_bytes(self.number()?).min(MAX_RUNS);
        let mut runs = Vec::new();
        for _ in 0..count {
            runs.push(Segment {
                offset: u64::from_le_bytes(self.number()?),
                length: u64::from_le_bytes(self.number()?),
            });
        }
        Ok(Some(Step::Content { path, runs }))
    }
}

impl<R: Read> Iterator for Steps<R> {
    type Item = Result<Step, ArchiveError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().map_err(ArchiveError::Read).transpose()
    }
}
