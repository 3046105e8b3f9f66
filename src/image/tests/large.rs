//! Layers of very many entries. `CRISP_MILLION=1` makes it a million instead of two hundred thousand.

mod support;

use std::{io::Write, path::Path, process::Command};

use support::{example, fake::Fake};

/// A ustar header of an empty file or, if the name ends in a slash, a folder.
fn header(name: &str) -> [u8; 512] {
    let mut block = [0; 512];
    let kind = if name.ends_with('/') { b'5' } else { b'0' };
    let fields: [(usize, &[u8]); 8] = [
        (0, name.as_bytes()),
        (100, b"0000644"),
        (108, b"0000000"),
        (116, b"0000000"),
        (124, b"00000000000"),
        (136, b"00000000000"),
        (156, &[kind]),
        (257, b"ustar\x0000"),
    ];
    for (at, bytes) in fields {
        block[at..at + bytes.len()].copy_from_slice(bytes);
    }
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block
}

fn layer(files: usize) -> (Vec<u8>, Vec<u8>) {
    let mut archive = Vec::with_capacity((files + 2000) * 512);
    for file in 0..files {
        if file % 1000 == 0 {
            archive.extend_from_slice(&header(&format!("{}/", file / 1000)));
        }
        archive.extend_from_slice(&header(&format!("{}/{file}", file / 1000)));
    }
    archive.extend_from_slice(&[0; 1024]);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&archive).expect("gzip");
    (archive, packed.finish().expect("gzip"))
}

/// KiB of memory that a pull takes at most, and inodes that it makes.
fn pull(folder: &Path, name: &str) -> (u64, usize) {
    let output = Command::new(example()).arg(folder).arg(name).output().expect("the example runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let peak = text.lines().find_map(|line| line.strip_prefix("peak memory: ")?.strip_suffix(" kB"));
    let layer = std::fs::read_dir(folder.join("images/layers")).expect("layers").next();
    let files = layer.expect("a layer").expect("entry").path().join("fs");
    let made = std::fs::read_dir(files)
        .expect("folders")
        .map(|folder| std::fs::read_dir(folder.expect("entry").path()).expect("files").count());
    (peak.and_then(|peak| peak.trim().parse().ok()).expect("a number"), made.sum())
}

#[test]
fn memory_does_not_grow_with_entries() {
    let many = if std::env::var_os("CRISP_MILLION").is_some() { 1_000_000 } else { 200_000 };
    let registry = Fake::start();
    let root = tempfile::tempdir().expect("folder");
    let mut peaks = Vec::new();
    for (name, files) in [("few", 2000), ("many", many)] {
        registry.add(name, &[layer(files)]);
        let folder = root.path().join(name);
        let (peak, made) = pull(&folder, &format!("{}/{name}", registry.address()));
        assert_eq!(made, files);
        peaks.push(peak);
    }
    // Two hundred bytes for each of the folders, one for each file would be seen.
    assert!(peaks[1] < peaks[0] + 24 * 1024, "KiB for 2000 and for {many} entries: {peaks:?}");
}
