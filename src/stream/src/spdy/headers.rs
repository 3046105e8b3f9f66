//! Header blocks: name/value pairs, compressed with one zlib stream a direction for the life of the connection.
//!
//! Both directions are bounded: a block that unpacks to more than [`MAX_BLOCK`] bytes ends the session, since the
//! shared zlib state is lost with it.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use super::dictionary::dictionary;

/// Bytes of one unpacked block. Clients send three short headers a stream.
pub const MAX_BLOCK: usize = 16 * 1024;

/// Why a header block is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The compressed data are damaged or made with another dictionary.
    #[error("the compressed header block is damaged")]
    Compression,
    /// The block unpacks to more than [`MAX_BLOCK`] bytes.
    #[error("the header block is larger than {MAX_BLOCK} bytes")]
    TooLarge,
    /// The unpacked block does not hold what its counts promise.
    #[error("the header block is cut short")]
    Truncated,
}

/// The headers of one stream, in the order of the wire. Names are kept in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// Headers from pairs.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect())
    }

    /// The value of a header, whatever the case of its name. Of several values (NUL between them) the first.
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name))?;
        value.split('\0').next()
    }

    /// The block before compression.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&(self.0.len() as u32).to_be_bytes());
        for (name, value) in &self.0 {
            for text in [name, value] {
                out.extend_from_slice(&(text.len() as u32).to_be_bytes());
                out.extend_from_slice(text.as_bytes());
            }
        }
        out
    }

    /// Parses an unpacked block. Bytes behind the last pair are ignored, and so is text that is not UTF-8.
    pub fn parse(mut block: &[u8]) -> Result<Self, HeaderError> {
        let count = take_u32(&mut block)?;
        let mut pairs = Vec::new();
        for _ in 0..count {
            let name = take_text(&mut block)?;
            let value = take_text(&mut block)?;
            pairs.push((name.to_ascii_lowercase(), value));
        }
        Ok(Self(pairs))
    }
}

fn take_u32(block: &mut &[u8]) -> Result<u32, HeaderError> {
    let (head, rest) = block.split_first_chunk::<4>().ok_or(HeaderError::Truncated)?;
    *block = rest;
    Ok(u32::from_be_bytes(*head))
}

fn take_text(block: &mut &[u8]) -> Result<String, HeaderError> {
    let length = take_u32(block)? as usize;
    if block.len() < length {
        return Err(HeaderError::Truncated);
    }
    let (text, rest) = block.split_at(length);
    *block = rest;
    Ok(String::from_utf8_lossy(text).into_owned())
}

/// Unpacks the peer's header blocks.
#[derive(Debug)]
pub struct Inflater(Decompress);

impl Default for Inflater {
    fn default() -> Self {
        Self(Decompress::new(true))
    }
}

impl Inflater {
    /// Unpacks the next block of the connection.
    pub fn unpack(&mut self, mut packed: &[u8]) -> Result<Vec<u8>, HeaderError> {
        let mut out = Vec::with_capacity(1024);
        loop {
            let (read, written) = (self.0.total_in(), self.0.total_out());
            let result = self.0.decompress_vec(packed, &mut out, FlushDecompress::Sync);
            packed = &packed
                [usize::try_from(self.0.total_in() - read).unwrap_or(packed.len()).min(packed.len())..];
            match result {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(dictionary()).map_err(|_| HeaderError::Compression)?;
                    continue;
                }
                Err(_) => return Err(HeaderError::Compression),
                Ok(flate2::Status::StreamEnd) => return Err(HeaderError::Compression),
                Ok(_) => {}
            }
            if out.len() > MAX_BLOCK {
                return Err(HeaderError::TooLarge);
            }
            // Output room left means that all input was used: what was flushed is here in full.
            if out.len() < out.capacity() && packed.is_empty() {
                return Ok(out);
            }
            if out.len() < out.capacity() && self.0.total_in() == read && self.0.total_out() == written {
                return Err(HeaderError::Compression);
            }
            out.reserve(1024);
        }
    }
}

/// Packs our own header blocks.
#[derive(Debug)]
pub struct Deflater(Compress);

impl Deflater {
    /// A compressor for one connection.
    pub fn new() -> Result<Self, HeaderError> {
        let mut compress = Compress::new(Compression::fast(), true);
        compress.set_dictionary(dictionary()).map_err(|_| HeaderError::Compression)?;
        Ok(Self(compress))
    }

    /// Packs the next block of the connection. Blocks must be sent in the order in which they were packed.
    pub fn pack(&mut self, headers: &Headers) -> Result<Vec<u8>, HeaderError> {
        let block = headers.encode();
        let mut out = Vec::with_capacity(block.len() + 64);
        let mut rest = block.as_slice();
        loop {
            let read = self.0.total_in();
            self.0.compress_vec(rest, &mut out, FlushCompress::Sync).map_err(|_| HeaderError::Compression)?;
            rest = &rest[usize::try_from(self.0.total_in() - read).unwrap_or(rest.len()).min(rest.len())..];
            if rest.is_empty() && out.len() < out.capacity() {
                return Ok(out);
            }
            out.reserve(64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn several_blocks_share_one_zlib_stream() {
        let mut deflater = Deflater::new().unwrap();
        let mut inflater = Inflater::default();
        for kind in ["error", "stdin", "stdout", "stderr", "resize"] {
            let headers = Headers::new([pair("Streamtype", kind), pair("port", "80")]);
            let packed = deflater.pack(&headers).unwrap();
            let parsed = Headers::parse(&inflater.unpack(&packed).unwrap()).unwrap();
            assert_eq!(parsed.get("streamType"), Some(kind));
            assert_eq!(parsed.get("PORT"), Some("80"));
            assert_eq!(parsed.get("absent"), None);
        }
    }

    #[test]
    fn the_first_bytes_are_those_of_every_spdy3_client() {
        let packed = Deflater::new().unwrap().pack(&Headers::default()).unwrap();
        assert_eq!(&packed[2..6], &crate::spdy::dictionary::CHECKSUM.to_be_bytes());
    }

    #[test]
    fn a_bomb_is_refused() {
        let headers = Headers::new([("x".to_owned(), "0".repeat(1 << 20))]);
        let packed = Deflater::new().unwrap().pack(&headers).unwrap();
        assert!(packed.len() < crate::spdy::frame::MAX_CONTROL, "{}", packed.len());
        assert_eq!(Inflater::default().unpack(&packed), Err(HeaderError::TooLarge));
    }

    #[test]
    fn damage_is_an_error() {
        for (bytes, error) in [
            (&[][..], HeaderError::Truncated),
            (&[0, 0, 0, 1], HeaderError::Truncated),
            (&[0xff, 0xff, 0xff, 0xff], HeaderError::Truncated),
            (&[0, 0, 0, 1, 0, 0, 0, 9, b'a'], HeaderError::Truncated),
        ] {
            assert_eq!(Headers::parse(bytes), Err(error), "{bytes:?}");
        }
        assert_eq!(Inflater::default().unpack(b"not zlib at all"), Err(HeaderError::Compression));
    }

    proptest! {
        #[test]
        fn round_trip(pairs in proptest::collection::vec(("[a-z-]{1,20}", "[ -~]{0,200}"), 0..20)) {
            let headers = Headers::new(pairs);
            let packed = Deflater::new().unwrap().pack(&headers).unwrap();
            let back = Headers::parse(&Inflater::default().unpack(&packed).unwrap()).unwrap();
            prop_assert_eq!(back, headers);
        }

        #[test]
        fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Headers::parse(&bytes);
            let _ = Inflater::default().unpack(&bytes);
        }
    }
}
