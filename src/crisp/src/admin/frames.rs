//! Data of unknown length on a stream that goes on after it: frames of a length (little-endian `u32`) and bytes, and
//! an empty one at the end. A stream that breaks off is an error, not an end.

use std::io::{self, Read, Write};

/// Longest frame.
const FRAME_MAX: usize = 1 << 20;

/// Reads the data of frames up to the empty one.
#[derive(Debug)]
pub struct FrameReader<R> {
    inner: R,
    left: usize,
    ended: bool,
}

impl<R: Read> FrameReader<R> {
    /// Data from here on.
    pub fn new(inner: R) -> Self {
        Self { inner, left: 0, ended: false }
    }

    /// What follows the data, if all of it was read.
    pub fn into_inner(self) -> R {
        self.inner
    }
}

impl<R: Read> Read for FrameReader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.ended || into.is_empty() {
            return Ok(0);
        }
        if self.left == 0 {
            let mut length = [0; 4];
            self.inner.read_exact(&mut length)?;
            self.left = u32::from_le_bytes(length) as usize;
            if self.left > FRAME_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame is too long"));
            }
            self.ended = self.left == 0;
            if self.ended {
                return Ok(0);
            }
        }
        let room = into.len().min(self.left);
        let read = self.inner.read(&mut into[..room])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read;
        Ok(read)
    }
}

/// Writes data as frames. The empty one at the end is [`end`]'s.
#[derive(Debug)]
pub struct FrameWriter<W>(W);

impl<W: Write> FrameWriter<W> {
    /// Data from here on.
    pub fn new(inner: W) -> Self {
        Self(inner)
    }
}

impl<W: Write> Write for FrameWriter<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let data = &data[..data.len().min(FRAME_MAX)];
        if data.is_empty() {
            return Ok(0);
        }
        let length = u32::try_from(data.len()).map_err(io::Error::other)?;
        self.0.write_all(&length.to_le_bytes())?;
        self.0.write_all(data)?;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Ends the data.
pub fn end(to: &mut impl Write) -> io::Result<()> {
    to.write_all(&[0; 4])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn data_comes_back_and_what_follows_stays(parts: Vec<Vec<u8>>, rest: Vec<u8>) {
            let mut wire = Vec::new();
            for part in &parts {
                FrameWriter::new(&mut wire).write_all(part).expect("memory");
            }
            end(&mut wire).expect("memory");
            wire.extend(&rest);
            let mut reader = FrameReader::new(wire.as_slice());
            let mut data = Vec::new();
            reader.read_to_end(&mut data).expect("whole");
            prop_assert_eq!(data, parts.concat());
            prop_assert_eq!(reader.into_inner(), rest.as_slice());
        }

        #[test]
        fn any_bytes_are_data_or_an_error(wire: Vec<u8>) {
            let mut data = Vec::new();
            let _ = FrameReader::new(wire.as_slice()).read_to_end(&mut data);
            prop_assert!(data.len() <= wire.len());
        }
    }

    #[test]
    fn breaking_off_is_no_end() {
        let mut wire = Vec::new();
        FrameWriter::new(&mut wire).write_all(b"abc").expect("memory");
        for cut in 0..=wire.len() {
            assert!(FrameReader::new(&wire[..cut]).read_to_end(&mut Vec::new()).is_err(), "{cut}");
        }
    }
}
