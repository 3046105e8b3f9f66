//! What unpacking one layer takes, as it was downloaded and without the sync: a thousand small files, and one large one.
//! Set TMPDIR to a tmpfs to leave the disk out of it.

use std::io::Write;

use crisp_image::{Digest, fuzzing};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use flate2::{Compression, write::GzEncoder};

/// A layer of so many files of so many bytes, which compress about as well as programs do, and its diff id.
fn layer(files: usize, bytes: usize) -> (Vec<u8>, String) {
    let mut state = 1_u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 28) as u8
    };
    let mut archive = Vec::new();
    for number in 0..files {
        let mut header = [0; 512];
        let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, &format!("usr/share/{}/{number}", number % 20));
        put(100, "0000644\0");
        put(108, "0000000\0");
        put(116, "0000000\0");
        put(124, &format!("{bytes:011o}\0"));
        put(136, "00000000000\0");
        put(148, "        0ustar\x0000");
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend(header);
        archive.extend((0..bytes).map(|_| noise()));
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.extend([0; 1024]);
    let mut compressed = GzEncoder::new(Vec::new(), Compression::default());
    compressed.write_all(&archive).expect("memory");
    (compressed.finish().expect("memory"), Digest::of(&archive).to_string())
}

fn unpack(c: &mut Criterion) {
    let mut group = c.benchmark_group("unpack");
    group.sample_size(10);
    for (name, files, bytes) in [("1000 files of 4 KiB", 1000, 4 << 10), ("a file of 32 MiB", 1, 32 << 20)] {
        let (layer, diff_id) = layer(files, bytes);
        let folder = tempfile::tempdir().expect("a folder for the layers");
        let mut number = 0;
        group.throughput(Throughput::Bytes((files * bytes) as u64));
        group.bench_function(name, |b| {
            let fresh = || {
                number += 1;
                folder.path().join(number.to_string())
            };
            b.iter_batched(fresh, |at| fuzzing::layer(&layer, &diff_id, &at), BatchSize::PerIteration);
        });
    }
    group.finish();
}

criterion_group!(benches, unpack);
criterion_main!(benches);
