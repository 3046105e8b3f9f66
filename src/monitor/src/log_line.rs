//! The CRI log format: `<time> <stream> <F|P> <content>` lines.
//!
//! Pure. A line of a container is one entry tagged `F`; a longer one than [`PART`] is entries of that length tagged `P` and a
//! last one tagged `F`. What a container has written without a newline waits in the [`Splitter`] until the rest comes, and is
//! an entry tagged `P` if none comes: a reader that joins parts gets the bytes that were written, whatever pieces they came in.

/// Longest content of an entry, bytes, as the kubelet's reader expects it.
pub const PART: usize = 16 << 10;

/// Bytes of a [`stamp`].
pub const STAMP: usize = 30;

/// Which stream of the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, or a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    fn name(self) -> &'static [u8] {
        match self {
            Self::Stdout => b" stdout ",
            Self::Stderr => b" stderr ",
        }
    }
}

/// RFC 3339 with nine digits, in UTC, of nanoseconds since 1970 (0 for times before).
pub fn stamp(nanos: i64) -> [u8; STAMP] {
    let nanos = u64::try_from(nanos).unwrap_or(0);
    let (seconds, nanos) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    let (days, seconds) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let mut text = *b"0000-00-00T00:00:00.000000000Z";
    let fields = [
        (0, 4, year),
        (5, 2, month),
        (8, 2, day),
        (11, 2, seconds / 3600),
        (14, 2, seconds / 60 % 60),
        (17, 2, seconds % 60),
        (20, 9, nanos),
    ];
    for (at, digits, mut value) in fields {
        for digit in text[at..at + digits].iter_mut().rev() {
            *digit = b'0' + (value % 10) as u8;
            value /= 10;
        }
    }
    text
}

/// Year, month and day of a day counted from 1970-01-01 (the Gregorian calendar repeats every 146097 days; years are
/// counted from March so that the leap day is the last).
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // from 0000-03-01
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153; // 0 is March
    let date = day - (153 * month + 2) / 5 + 1;
    let (year, month) = (era * 400 + year, if month < 10 { month + 3 } else { month - 9 });
    (if month <= 2 { year + 1 } else { year }, month, date)
}

/// Cuts what a stream writes into entries.
#[derive(Debug)]
pub struct Splitter {
    stream: Stream,
    /// The begun line, at most [`PART`] bytes; it holds memory only while there is one.
    begun: Vec<u8>,
}

impl Splitter {
    /// For a new stream.
    pub fn new(stream: Stream) -> Self {
        Self { stream, begun: Vec::new() }
    }

    /// Appends the entries of `chunk` to `out` until `out` is `full` bytes or longer; returns how much of `chunk` it took. `out`
    /// grows past `full` by at most one entry. (It may take nothing and append what was begun earlier.)
    pub fn push(&mut self, chunk: &[u8], time: &[u8; STAMP], out: &mut Vec<u8>, full: usize) -> usize {
        let (whole, part) = (self.prefix(time, b'F'), self.prefix(time, b'P'));
        let mut rest = chunk;
        while !rest.is_empty() && out.len() < full {
            let room = PART - self.begun.len();
            // A newline right after a full part still ends that part's line.
            let window = &rest[..rest.len().min(room + 1)];
            if let Some(end) = memchr::memchr(b'\n', window) {
                out.extend_from_slice(&whole);
                self.take_begun(out);
                out.extend_from_slice(&rest[..=end]);
                rest = &rest[end + 1..];
            } else if window.len() > room {
                out.extend_from_slice(&part);
                self.take_begun(out);
                out.extend_from_slice(&rest[..room]);
                out.push(b'\n');
                rest = &rest[room..];
            } else {
                self.begun.extend_from_slice(rest);
                rest = &[];
            }
        }
        chunk.len() - rest.len()
    }

    /// The stream has ended: appends the entry of a line that was begun and not ended.
    pub fn finish(&mut self, time: &[u8; STAMP], out: &mut Vec<u8>) {
        if !self.begun.is_empty() {
            out.extend_from_slice(&self.prefix(time, b'P'));
            self.take_begun(out);
            out.push(b'\n');
        }
    }

    fn take_begun(&mut self, out: &mut Vec<u8>) {
        if !self.begun.is_empty() {
            out.extend_from_slice(&self.begun);
            self.begun = Vec::new();
        }
    }

    fn prefix(&self, time: &[u8; STAMP], tag: u8) -> [u8; STAMP + 10] {
        let mut prefix = [b' '; STAMP + 10];
        prefix[..STAMP].copy_from_slice(time);
        prefix[STAMP..STAMP + 8].copy_from_slice(self.stream.name());
        prefix[STAMP + 8] = tag;
        prefix
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const T: &[u8; STAMP] = b"2026-01-02T03:04:05.000000006Z";

    fn entries(chunks: &[&[u8]], full: usize) -> Vec<(u8, Vec<u8>)> {
        let (mut splitter, mut log) = (Splitter::new(Stream::Stderr), Vec::new());
        for chunk in chunks {
            let mut rest = *chunk;
            while !rest.is_empty() {
                let mut out = Vec::new();
                let taken = splitter.push(rest, T, &mut out, full);
                assert!(
                    (taken > 0 || !out.is_empty()) && out.len() < full + STAMP + 11 + PART,
                    "no progress, or too long"
                );
                rest = &rest[taken..];
                log.extend(out);
            }
        }
        splitter.finish(T, &mut log);
        log.split_inclusive(|b| *b == b'\n')
            .map(|line| {
                let (prefix, content) = line.split_at(STAMP + 10);
                assert_eq!(&prefix[..STAMP], T);
                assert_eq!(&prefix[STAMP..STAMP + 8], b" stderr ");
                assert_eq!((prefix[STAMP + 9], content.last()), (b' ', Some(&b'\n')));
                (prefix[STAMP + 8], content[..content.len() - 1].to_vec())
            })
            .collect()
    }

    #[test]
    fn lines_and_parts() {
        let long = vec![b'x'; PART];
        type Case<'a> = (&'a [&'a [u8]], Vec<(u8, Vec<u8>)>);
        let cases: [Case<'_>; 7] = [
            (&[b"one\ntwo\n"], vec![(b'F', b"one".into()), (b'F', b"two".into())]),
            (&[b"o", b"ne", b"\n"], vec![(b'F', b"one".into())]),
            (&[b"\n\r\n"], vec![(b'F', vec![]), (b'F', b"\r".into())]),
            (&[b"no end"], vec![(b'P', b"no end".into())]),
            (&[&long, b"\n"], vec![(b'F', long.clone())]),
            (&[&long, b"y\n"], vec![(b'P', long.clone()), (b'F', b"y".into())]),
            (&[&long, b"y"], vec![(b'P', long.clone()), (b'P', b"y".into())]),
        ];
        for (chunks, expected) in cases {
            assert_eq!(entries(chunks, 1 << 20), expected);
        }
    }

    #[test]
    fn stamps() {
        for (nanos, expected) in [
            (-1, "1970-01-01T00:00:00.000000000Z"),
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400_000_000_001, "2000-02-29T00:00:00.000000001Z"),
            (1_709_251_199_999_999_999, "2024-02-29T23:59:59.999999999Z"),
            (1_709_251_200_000_000_000, "2024-03-01T00:00:00.000000000Z"),
            (4_107_542_399_000_000_000, "2100-02-28T23:59:59.000000000Z"),
            (4_107_542_400_000_000_000, "2100-03-01T00:00:00.000000000Z"),
        ] {
            assert_eq!(std::str::from_utf8(&stamp(nanos)), Ok(expected));
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost_whatever_the_pieces(
            pieces in prop::collection::vec(
                (prop::collection::vec(prop::sample::select(&b"ab\n"[..]), 0..40), 0usize..3), 0..12),
            full in 1usize..70_000,
        ) {
            // Now and then a run that is longer than a part.
            let pieces: Vec<Vec<u8>> = pieces.into_iter().map(|(mut p, n)| {
                p.extend(std::iter::repeat_n(b'z', if n == 2 { PART - 20 + p.len() } else { 0 }));
                p
            }).collect();
            let slices: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let mut joined = Vec::new();
            for (tag, content) in entries(&slices, full) {
                prop_assert!(content.len() <= PART && !content.contains(&b'\n'));
                joined.extend(content);
                if tag == b'F' { joined.push(b'\n') }
            }
            prop_assert_eq!(joined, pieces.concat());
        }
    }
}
