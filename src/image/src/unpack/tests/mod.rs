//! Archives of honest and hostile authors.

mod hostile;
mod roundtrip;

use std::{fs::File, io::BufRead, path::Path};

use super::{Expected, Limits, StreamLimits, Unpacked, recipe::Recipe, unpack, unpack_layer};
use crate::{digest::Digest, error::ImageError};

/// Unpacks an archive into a new folder, with the recipe beside it.
fn unpack_into(input: impl BufRead, folder: &Path) -> Result<Unpacked, super::UnpackError> {
    let fs = folder.join("fs");
    std::fs::create_dir(&fs).expect("folder");
    let recipe = Recipe::new(File::create(folder.join("recipe")).expect("recipe")).expect("recipe");
    unpack(input, File::open(&fs).expect("open").into(), recipe, Limits { entries: 1_000_000 })
        .map(|(done, _)| done)
}

/// Unpacks a compressed archive with all checks.
fn unpack_checked(
    archive: &[u8],
    expected: &Expected,
    limit: u64,
    folder: &Path,
) -> Result<Unpacked, ImageError> {
    unpack_layer(archive, folder, expected, StreamLimits { bytes: limit, entries: 1_000_000 })
}

fn expected(stream: &[u8], archive: &[u8]) -> Expected {
    Expected { blob: Some((Digest::of(stream), stream.len() as u64)), diff_id: Digest::of(archive) }
}

/// A tar member: header, content, padding.
fn member(name: &[u8], kind: u8, link: &[u8], content: &[u8]) -> Vec<u8> {
    let mut block = [0u8; 512];
    block[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
    block[100..107].copy_from_slice(b"0000755");
    block[108..115].copy_from_slice(b"0000000");
    block[116..123].copy_from_slice(b"0000000");
    block[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    block[136..147].copy_from_slice(b"00000000000");
    block[156] = kind;
    block[157..157 + link.len().min(100)].copy_from_slice(&link[..link.len().min(100)]);
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[329..336].copy_from_slice(b"0000001");
    block[337..344].copy_from_slice(b"0000003");
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut bytes = block.to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// With any name, by GNU's long name.
fn long_member(name: &[u8], kind: u8, link: &[u8], content: &[u8]) -> Vec<u8> {
    let mut bytes = member(b"././@LongLink", b'L', b"", &[name, b"\0"].concat());
    bytes.extend(member(b"././@LongLink", b'K', b"", &[link, b"\0"].concat()));
    bytes.extend(member(name, kind, link, content));
    bytes
}

fn archive(members: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = members.concat();
    bytes.extend_from_slice(&[0; 1024]);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("gzip");
    encoder.finish().expect("gzip")
}
