//! Texts of kernel files as numbers. What is not understood counts as absent: newer kernels add lines.

use super::{BlockIo, IoOperation, Pressure};

/// A file of one number; `None` for `max` and for what is no number.
pub(super) fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The value of `key value` among such lines.
pub(super) fn value(text: &str, key: &str) -> Option<u64> {
    pairs(text).find(|(k, _)| *k == key).map(|(_, v)| v)
}

/// All `key value` lines.
pub(super) fn pairs(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (key, value) = line.split_once(' ')?;
        Some((key, value.trim().parse().ok()?))
    })
}

/// A pressure file; lines that are missing (`full` of the processor on old kernels) are zero.
pub(super) fn pressure(text: &str) -> Pressure {
    let mut pressure = Pressure::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let psi = match words.next() {
            Some("some") => &mut pressure.some,
            Some("full") => &mut pressure.full,
            _ => continue,
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            match key {
                "avg10" => psi.avg10 = percent(value),
                "avg60" => psi.avg60 = percent(value),
                "avg300" => psi.avg300 = percent(value),
                "total" => psi.total = value.parse().unwrap_or(0),
                _ => {}
            }
        }
    }
    pressure
}

fn percent(text: &str) -> f64 {
    text.parse().ok().filter(|value: &f64| value.is_finite()).unwrap_or(0.0)
}

fn device(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// `8:0 rbytes=… wbytes=… rios=… wios=… dbytes=… dios=…` lines of v2's `io.stat`.
pub(super) fn io_stat(text: &str) -> Vec<BlockIo> {
    let mut all = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some((major, minor)) = words.next().and_then(device) else { continue };
        let fields: Vec<(&str, u64)> =
            words.filter_map(|w| w.split_once('=')).filter_map(|(k, v)| Some((k, v.parse().ok()?))).collect();
        let field = |name| fields.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
        for (operation, bytes, count) in [
            (IoOperation::Read, "rbytes", "rios"),
            (IoOperation::Write, "wbytes", "wios"),
            (IoOperation::Discard, "dbytes", "dios"),
        ] {
            if let (Some(bytes), Some(count)) = (field(bytes), field(count)) {
                all.push(BlockIo { major, minor, operation, bytes, count });
            }
        }
    }
    all
}

/// `8:0 Read 123` lines of v1's `blkio.throttle.io_service_bytes` and `io_serviced`, joined.
pub(super) fn blkio(bytes: &str, counts: &str) -> Vec<BlockIo> {
    let lines = |text: &str| -> Vec<(u32, u32, IoOperation, u64)> {
        text.lines()
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                let (major, minor) = device(words.next()?)?;
                let operation = match words.next()? {
                    "Read" => IoOperation::Read,
                    "Write" => IoOperation::Write,
                    "Sync" => IoOperation::Sync,
                    "Async" => IoOperation::Async,
                    "Discard" => IoOperation::Discard,
                    "Total" => IoOperation::Total,
                    _ => return None,
                };
                Some((major, minor, operation, words.next()?.parse().ok()?))
            })
            .collect()
    };
    let counts = lines(counts);
    lines(bytes)
        .into_iter()
        .map(|(major, minor, operation, bytes)| {
            let same = |c: &&(u32, u32, IoOperation, u64)| (c.0, c.1, c.2) == (major, minor, operation);
            let count = counts.iter().find(same).map_or(0, |c| c.3);
            BlockIo { major, minor, operation, bytes, count }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::Psi, *};

    #[test]
    fn numbers() {
        assert_eq!(number("42\n"), Some(42));
        assert_eq!(number("max\n"), None);
        assert_eq!(value("a 1\nab 2\n", "ab"), Some(2));
        assert_eq!(value("a 1\nab 2\n", "b"), None);
    }

    #[test]
    fn pressures() {
        let text = "some avg10=1.50 avg60=2.99 avg300=12.10 total=254828204\nfull avg10=0.00 avg60=0.25 avg300=0.00 total=7\n";
        let p = pressure(text);
        assert_eq!(p.some, Psi { avg10: 1.5, avg60: 2.99, avg300: 12.1, total: 254_828_204 });
        assert_eq!((p.full.avg60, p.full.total), (0.25, 7));
        assert_eq!(pressure("some avg10=nan total=x"), Pressure::default());
    }

    #[test]
    fn block_io() {
        let v2 = io_stat("254:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n7:0 \n");
        assert_eq!(v2.len(), 3);
        assert_eq!((v2[1].operation, v2[1].bytes, v2[1].count), (IoOperation::Write, 8192, 2));
        let v1 = blkio("254:0 Read 10\n254:0 Write 20\nTotal 30\n", "254:0 Write 3\nTotal 3\n");
        assert_eq!(v1.len(), 2);
        assert_eq!((v1[0].count, v1[1].count), (0, 3));
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "[ a-z0-9:=.\\n]{0,200}") {
            let _ = (number(&text), pressure(&text), io_stat(&text), blkio(&text, &text), pairs(&text).count());
        }

        #[test]
        fn what_was_written_is_read(n in any::<u64>(), major in any::<u32>(), minor in any::<u32>()) {
            let line = format!("{major}:{minor} rbytes={n} rios={n}\n");
            let io = BlockIo { major, minor, operation: IoOperation::Read, bytes: n, count: n };
            prop_assert_eq!(io_stat(&line), vec![io]);
        }
    }
}
