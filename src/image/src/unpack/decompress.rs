//! gzip, zstd and plain streams, told apart by their first bytes as every client does: media types are often wrong.

use std::io::{self, BufRead, Read};

/// zstd windows larger than this are refused, so that a hostile frame cannot take more memory (128 MiB, `zstd
/// --long=27`, the most that decoders accept by default).
const ZSTD_WINDOW_LOG: u32 = 27;

/// A decompressing reader.
pub(crate) fn decoder<'a, R: BufRead + Send + 'a>(mut input: R) -> io::Result<Decoder<'a, R>> {
    let start = input.fill_buf()?;
    Ok(match start {
        [0x1f, 0x8b, ..] => Decoder::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(input))),
        // A zstd frame, or a skippable one before it.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            let mut decoder = zstd::Decoder::with_buffer(input)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Decoder::Zstd(Box::new(decoder))
        }
        _ => Decoder::Plain(input),
    })
}

pub(crate) enum Decoder<'a, R: BufRead> {
    Plain(R),
    Gzip(Box<flate2::bufread::MultiGzDecoder<R>>),
    Zstd(Box<zstd::Decoder<'a, R>>),
}

impl<R: BufRead> Decoder<'_, R> {
    /// The input, for what is behind the compressed stream.
    pub(crate) fn input(&mut self) -> &mut R {
        match self {
            Self::Plain(input) => input,
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Zstd(decoder) => decoder.get_mut(),
        }
    }
}

impl<R: BufRead> Read for Decoder<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(input) => input.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
        }
    }
}
