//! Joining the entries gives what was written, whatever the pieces it came in.
#![no_main]

use crisp_monitor::log_line::{PART, STAMP, Splitter, Stream, stamp};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<Vec<u8>>, u16)| {
    let (pieces, full) = input;
    let (mut splitter, mut log, time) = (Splitter::new(Stream::Stdout), Vec::new(), stamp(1));
    for piece in &pieces {
        let mut rest = piece.as_slice();
        while !rest.is_empty() {
            let mut out = Vec::new();
            let taken = splitter.push(rest, &time, &mut out, usize::from(full) + 1);
            assert!(taken > 0 || !out.is_empty());
            rest = &rest[taken..];
            log.extend(out);
        }
    }
    splitter.finish(&time, &mut log);
    let mut joined = Vec::new();
    for line in log.split_inclusive(|b| *b == b'\n') {
        let content = &line[STAMP + 10..line.len() - 1];
        assert!(content.len() <= PART);
        joined.extend_from_slice(content);
        if line[STAMP + 8] == b'F' {
            joined.push(b'\n');
        }
    }
    assert_eq!(joined, pieces.concat());
});
