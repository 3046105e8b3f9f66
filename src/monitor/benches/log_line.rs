//! What it takes to make log lines of what a container writes: 64 KiB at a time, as they come out of a pipe.

use crisp_monitor::log_line::{Splitter, Stream, stamp};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const CHUNK: usize = 64 << 10;

fn log_line(c: &mut Criterion) {
    let mut group = c.benchmark_group("log line");
    group.throughput(Throughput::Bytes(CHUNK as u64));
    for (name, length) in [("80 bytes", 80), ("1000 bytes", 1000), ("without end", usize::MAX)] {
        let chunk: Vec<u8> = (1..=CHUNK).map(|i| if i % length == 0 { b'\n' } else { b'x' }).collect();
        let (time, mut out) = (stamp(1), Vec::with_capacity(4 * CHUNK));
        group.bench_function(name, |b| {
            b.iter(|| {
                let (mut splitter, mut rest) = (Splitter::new(Stream::Stdout), chunk.as_slice());
                out.clear();
                while !rest.is_empty() {
                    rest = &rest[splitter.push(rest, &time, &mut out, usize::MAX)..];
                }
                out.len()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, log_line);
criterion_main!(benches);
