//! Reads tar: ustar, old GNU, star and PAX, with long names, sparse files and extended attributes (POSIX.1-2017 pax;
//! GNU tar manual, "Basic Tar Format", "Storing Sparse Files"). Pure: it reads a stream and judges nothing about paths.
//!
//! Every byte that is not file content is also handed to a [`MetaSink`], from which the very same archive can be put
//! together again later.

use std::io::{self, BufRead};

use super::{
    header::{self, Block, Kind},
    pax::Pax,
    sparse::{self, Segment},
};

/// Longest PAX header, long name or long link that is read into memory.
pub(crate) const MAX_EXTENSION: u64 = 1 << 20;

/// Why an archive cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The stream ended within the archive.
    #[error("the archive is truncated")]
    Truncated,
    /// The archive breaks its format.
    #[error("{0}")]
    Malformed(String),
    /// The stream failed.
    #[error("reading: {0}")]
    Read(#[from] io::Error),
}

impl ArchiveError {
    pub(crate) fn malformed(why: impl Into<String>) -> Self {
        Self::Malformed(why.into())
    }
}

/// Takes the bytes between file contents, in order.
pub trait MetaSink {
    /// Some headers, padding or trailer.
    fn meta(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// Forgets them.
impl MetaSink for () {
    fn meta(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

/// One member of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Name as written, without NUL.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Target of a link, as written.
    pub link: Vec<u8>,
    /// Permissions with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of content: seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    /// Last access, if recorded.
    pub atime: Option<(i64, u32)>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Length of the file when unpacked.
    pub size: u64,
    /// Where the content goes, if the file has holes.
    pub sparse: Option<Vec<Segment>>,
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// An archive that is being read.
#[derive(Debug)]
pub struct Archive<R, M> {
    input: R,
    sink: M,
    global: Pax,
    /// Content of the current entry that is still to come.
    remaining: u64,
    /// Zeroes after it, up to the next block.
    padding: u64,
}

impl<R: BufRead, M: MetaSink> Archive<R, M> {
    /// Starts at the first block.
    pub fn new(input: R, sink: M) -> Self {
        Self { input, sink, global: Pax::default(), remaining: 0, padding: 0 }
    }

    /// The sink, for remarks between the bytes.
    pub fn sink(&mut self) -> &mut M {
        &mut self.sink
    }

    /// The next member, or `None` at the end. Content that was not read is skipped.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, ArchiveError> {
        self.finish_content()?;
        let mut pax = Pax::default();
        let (mut long_name, mut long_link) = (None, None);
        loop {
            let Some(block) = self.block()? else {
                let dangling = !pax.is_empty() || long_name.is_some() || long_link.is_some();
                return if dangling { Err(ArchiveError::Truncated) } else { Ok(None) };
            };
            if block.iter().all(|b| *b == 0) {
                return self.end_marker().map(|()| None);
            }
            header::check_sum(&block)?;
            let size = header::number(&block[124..136], "size")?;
            match block[156] {
                b'x' | b'X' => pax.read(&self.extension(size)?)?,
                b'g' => {
                    let bytes = self.extension(size)?;
                    self.global.read(&bytes)?;
                }
                b'L' => long_name = Some(header::until_nul(&self.extension(size)?).to_vec()),
                b'K' => long_link = Some(header::until_nul(&self.extension(size)?).to_vec()),
                b'V' => {
                    // A volume label names the archive, not a file.
                    self.extension(size)?;
                }
                _ => return self.entry(&block, pax, long_name, long_link).map(Some),
            }
        }
    }

    fn entry(
        &mut self,
        block: &Block,
        pax: Pax,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry, ArchiveError> {
        let pax = pax.over(&self.global);
        let path = pax.path().map(<[u8]>::to_vec).or(long_name).unwrap_or_else(|| header::path(block));
        let mut kind = header::kind(block[156], &path)?;
        let link = pax
            .link()
            .map(<[u8]>::to_vec)
            .or(long_link)
            .unwrap_or_else(|| header::until_nul(&block[157..257]).to_vec());
        let size = match pax.number("size")? {
            Some(size) => size,
            None => header::number(&block[124..136], "size")?,
        };
        let has_content = matches!(kind, Kind::File | Kind::OldSparse);
        self.remaining = if has_content { size } else { 0 };
        self.padding = self.remaining.wrapping_neg() % 512;

        let (mut path, mut size, mut segments) = (path, self.remaining, None);
        if kind == Kind::OldSparse {
            kind = Kind::File;
            let (real, map) = self.old_sparse_map(block)?;
            sparse::check(&map, real, self.remaining)?;
            (size, segments) = (real, Some(map));
        } else if kind == Kind::File
            && let Some(format) = pax.sparse()?
        {
            if let Some(name) = format.name {
                path = name;
            }
            let map = match format.map {
                Some(map) => map,
                None => self.leading_sparse_map()?,
            };
            sparse::check(&map, format.real_size, self.remaining)?;
            (size, segments) = (format.real_size, Some(map));
        }
        if path.contains(&0) || link.contains(&0) {
            return Err(ArchiveError::malformed("a name contains a NUL byte"));
        }
        Ok(Entry {
            path,
            kind,
            link,
            mode: header::number(&block[100..108], "mode")? as u32 & 0o7777,
            uid: id(pax.number("uid")?, &block[108..116], "uid")?,
            gid: id(pax.number("gid")?, &block[116..124], "gid")?,
            mtime: match pax.time("mtime")? {
                Some(time) => time,
                None => (header::signed_number(&block[136..148], "mtime")?, 0),
            },
            atime: pax.time("atime")?,
            device: match kind {
                Kind::CharDevice | Kind::BlockDevice => (
                    device(&pax, "SCHILY.devmajor", &block[329..337])?,
                    device(&pax, "SCHILY.devminor", &block[337..345])?,
                ),
                _ => (0, 0),
            },
            size,
            sparse: segments,
            xattrs: pax.into_xattrs(),
        })
    }

    /// Some content of the current entry; empty when all has been consumed.
    pub fn content(&mut self) -> Result<&[u8], ArchiveError> {
        if self.remaining == 0 {
            return Ok(&[]);
        }
        let available = self.input.fill_buf()?;
        if available.is_empty() {
            return Err(ArchiveError::Truncated);
        }
        let usable = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(available.len());
        Ok(&available[..usable])
    }

    /// Marks bytes that [`Self::content`] returned as read.
    pub fn consume(&mut self, count: usize) {
        self.remaining -= count as u64;
        self.input.consume(count);
    }

    /// Content of the current entry not yet read.
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    fn finish_content(&mut self) -> Result<(), ArchiveError> {
        // Content that nobody wanted belongs to no file: for the sink it is like a header.
        self.pass(self.remaining)?;
        self.remaining = 0;
        let padding = std::mem::take(&mut self.padding);
        match self.pass(padding) {
            // Writers that are not closed (umoci's) leave out the last padding and the end: nothing of a file is
            // missing, and whether the archive is the right one its digest says.
            Err(ArchiveError::Truncated) => Ok(()),
            result => result,
        }
    }

    /// After the first zero block: the second, and whatever trails.
    fn end_marker(&mut self) -> Result<(), ArchiveError> {
        if let Some(block) = self.block()?
            && block.iter().any(|b| *b != 0)
        {
            return Err(ArchiveError::malformed("a lone zero block within the archive"));
        }
        loop {
            let available = self.input.fill_buf()?;
            if available.is_empty() {
                return Ok(());
            }
            self.sink.meta(available)?;
            let count = available.len();
            self.input.consume(count);
        }
    }

    fn pass(&mut self, mut count: u64) -> Result<(), ArchiveError> {
        while count > 0 {
            let available = self.input.fill_buf()?;
            if available.is_empty() {
                return Err(ArchiveError::Truncated);
            }
            let usable = usize::try_from(count).unwrap_or(usize::MAX).min(available.len());
            self.sink.meta(&available[..usable])?;
            self.input.consume(usable);
            count -= usable as u64;
        }
        Ok(())
    }

    /// The next 512 bytes; `None` if the stream ends exactly here.
    fn block(&mut self) -> Result<Option<Block>, ArchiveError> {
        let mut block = [0; 512];
        let mut filled = 0;
        while filled < block.len() {
            let available = self.input.fill_buf()?;
            if available.is_empty() {
                return if filled == 0 { Ok(None) } else { Err(ArchiveError::Truncated) };
            }
            let usable = available.len().min(block.len() - filled);
            block[filled..filled + usable].copy_from_slice(&available[..usable]);
            self.input.consume(usable);
            filled += usable;
        }
        self.sink.meta(&block)?;
        Ok(Some(block))
    }

    /// The content of a member that describes the next one.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>, ArchiveError> {
        if size > MAX_EXTENSION {
            return Err(ArchiveError::malformed(format!("an extended header of {size} bytes")));
        }
        let blocks = size.div_ceil(512);
        let mut bytes = Vec::new();
        for _ in 0..blocks {
            bytes.extend_from_slice(&self.block()?.ok_or(ArchiveError::Truncated)?);
        }
        bytes.truncate(size as usize);
        Ok(bytes)
    }

    /// The map in and after the header of an old GNU sparse file.
    fn old_sparse_map(&mut self, block: &Block) -> Result<(u64, Vec<Segment>), ArchiveError> {
        let real = header::number(&block[483..495], "real size")?;
        let mut map = Vec::new();
        sparse::old_segments(&block[386..482], &mut map)?;
        let mut more = block[482] != 0;
        while more {
            let next = self.block()?.ok_or(ArchiveError::Truncated)?;
            sparse::old_segments(&next[..504], &mut map)?;
            more = next[504] != 0;
        }
        Ok((real, map))
    }

    /// The map of a PAX 1.0 sparse file: decimal lines at the start of the content, padded to a block.
    fn leading_sparse_map(&mut self) -> Result<Vec<Segment>, ArchiveError> {
        let mut parser = sparse::MapParser::default();
        while !parser.done() {
            if self.remaining < 512 {
                return Err(ArchiveError::malformed("a sparse map that is longer than its file"));
            }
            let block = self.block()?.ok_or(ArchiveError::Truncated)?;
            self.remaining -= 512;
            parser.feed(&block)?;
        }
        Ok(parser.into_map())
    }
}

fn id(pax: Option<u64>, field: &[u8], what: &str) -> Result<u32, ArchiveError> {
    let value = match pax {
        Some(value) => value,
        None => header::number(field, what)?,
    };
    // The last value means "unchanged" to chown(2).
    u32::try_from(value)
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| ArchiveError::malformed(format!("{what} {value} is out of range")))
}

fn device(pax: &Pax, key: &str, field: &[u8]) -> Result<u32, ArchiveError> {
    let value = match pax.number(key)? {
        Some(value) => value,
        None => header::number(field, "device number")?,
    };
    u32::try_from(value)
        .map_err(|_| ArchiveError::malformed(format!("device number {value} is out of range")))
}
