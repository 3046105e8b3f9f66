//! Writes the few kinds of tar members that an exported image needs.

use std::io::{self, Read, Write};

/// Writes a regular file of known length.
pub(super) fn file(out: &mut impl Write, name: &str, size: u64, content: &mut impl Read) -> io::Result<()> {
    header(out, name, size, b'0', 0o644)?;
    let copied = io::copy(&mut content.take(size), out)?;
    if copied != size {
        return Err(io::Error::other(format!("{name} is {copied} bytes long instead of {size}")));
    }
    out.write_all(&vec![0; (size.wrapping_neg() % 512) as usize])
}

/// Writes a folder.
pub(super) fn folder(out: &mut impl Write, name: &str) -> io::Result<()> {
    header(out, name, 0, b'5', 0o755)
}

/// Ends the archive.
pub(super) fn end(out: &mut impl Write) -> io::Result<()> {
    out.write_all(&[0; 1024])?;
    out.flush()
}

fn header(out: &mut impl Write, name: &str, size: u64, kind: u8, mode: u32) -> io::Result<()> {
    let mut block = [0u8; 512];
    if name.len() > 100 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..107].copy_from_slice(format!("{mode:07o}").as_bytes());
    block[108..115].copy_from_slice(b"0000000");
    block[116..123].copy_from_slice(b"0000000");
    if size < 1 << 33 {
        block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    } else {
        // GNU's base 256, which every reader knows.
        block[124] = 0x80;
        block[128..136].copy_from_slice(&size.to_be_bytes());
    }
    block[136..147].copy_from_slice(b"00000000000");
    block[156] = kind;
    block[257..263].copy_from_slice(b"ustar\0");
    block[263..265].copy_from_slice(b"00");
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    out.write_all(&block)
}
