//! Maps of sparse files in their four notations (GNU tar manual, "Storing Sparse Files"). Pure.

use super::{archive::ArchiveError, header, pax::decimal};

/// A run of data within a file; what lies between runs is a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Offset in the file.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// More runs than this would take unreasonable memory; GNU tar makes one per hole.
const MAX_SEGMENTS: usize = 1 << 18;

/// Runs ascend, do not overlap, stay within the file, and add up to the content in the archive.
pub(crate) fn check(map: &[Segment], real_size: u64, content: u64) -> Result<(), ArchiveError> {
    let wrong = || ArchiveError::malformed("a sparse map that does not fit its file");
    let (mut end, mut sum) = (0u64, 0u64);
    for segment in map {
        if segment.offset < end {
            return Err(wrong());
        }
        end = segment.offset.checked_add(segment.length).ok_or_else(wrong)?;
        sum = sum.checked_add(segment.length).ok_or_else(wrong)?;
    }
    if end > real_size || sum != content || i64::try_from(real_size).is_err() { Err(wrong()) } else { Ok(()) }
}

fn push(map: &mut Vec<Segment>, offset: u64, length: u64) -> Result<(), ArchiveError> {
    if map.len() >= MAX_SEGMENTS {
        return Err(ArchiveError::malformed("a sparse map with too many runs"));
    }
    map.push(Segment { offset, length });
    Ok(())
}

/// Old GNU: pairs of twelve-byte numbers; an empty one ends the list.
pub(crate) fn old_segments(fields: &[u8], map: &mut Vec<Segment>) -> Result<(), ArchiveError> {
    for pair in fields.chunks_exact(24) {
        if pair[0] == 0 {
            break;
        }
        push(
            map,
            header::number(&pair[..12], "sparse offset")?,
            header::number(&pair[12..], "sparse length")?,
        )?;
    }
    Ok(())
}

/// PAX 0.1: `offset,length,offset,length`.
pub(crate) fn parse_map(text: &[u8]) -> Result<Vec<Segment>, ArchiveError> {
    let wrong = || ArchiveError::malformed("a malformed sparse map");
    let mut map = Vec::new();
    let mut numbers = text.split(|b| *b == b',').map(|number| decimal(number).ok_or_else(wrong));
    while let Some(offset) = numbers.next() {
        push(&mut map, offset?, numbers.next().ok_or_else(wrong)??)?;
    }
    Ok(map)
}

/// PAX 0.0: alternating records, `true` for offsets.
pub(crate) fn join_pairs(pairs: &[(bool, u64)]) -> Result<Vec<Segment>, ArchiveError> {
    let mut map = Vec::new();
    for pair in pairs.chunks(2) {
        match pair {
            [(true, offset), (false, length)] => push(&mut map, *offset, *length)?,
            _ => return Err(ArchiveError::malformed("a malformed sparse map")),
        }
    }
    Ok(map)
}

/// PAX 1.0: a count, then pairs, each on a line, padded to whole blocks.
#[derive(Debug, Default)]
pub(crate) struct MapParser {
    digits: Vec<u8>,
    expected: Option<u64>,
    offset: Option<u64>,
    map: Vec<Segment>,
}

impl MapParser {
    pub(crate) fn done(&self) -> bool {
        self.expected == Some(self.map.len() as u64)
    }

    pub(crate) fn feed(&mut self, block: &[u8]) -> Result<(), ArchiveError> {
        let wrong = || ArchiveError::malformed("a malformed sparse map");
        for byte in block {
            if self.done() {
                break;
            }
            if *byte != b'\n' {
                self.digits.push(*byte);
                if self.digits.len() > 20 {
                    return Err(wrong());
                }
                continue;
            }
            let number = decimal(&self.digits).ok_or_else(wrong)?;
            self.digits.clear();
            match (self.expected, self.offset.take()) {
                (None, _) => self.expected = Some(number),
                (Some(_), None) => self.offset = Some(number),
                (Some(_), Some(offset)) => push(&mut self.map, offset, number)?,
            }
        }
        Ok(())
    }

    pub(crate) fn into_map(self) -> Vec<Segment> {
        self.map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(pairs: &[(u64, u64)]) -> Vec<Segment> {
        pairs.iter().map(|(offset, length)| Segment { offset: *offset, length: *length }).collect()
    }

    #[test]
    fn all_notations_agree() {
        let expected = segments(&[(0, 512), (4096, 10)]);
        assert_eq!(parse_map(b"0,512,4096,10").expect("0.1"), expected);
        assert_eq!(join_pairs(&[(true, 0), (false, 512), (true, 4096), (false, 10)]).expect("0.0"), expected);
        let mut parser = MapParser::default();
        parser.feed(b"2\n0\n51").expect("1.0");
        parser.feed(b"2\n4096\n10\n\0\0").expect("1.0");
        assert!(parser.done());
        assert_eq!(parser.into_map(), expected);
    }

    #[test]
    fn maps_that_lie_are_refused() {
        assert!(check(&segments(&[(0, 5), (5, 5)]), 10, 10).is_ok());
        for (map, real, content) in [
            (segments(&[(0, 5), (4, 5)]), 10, 10),
            (segments(&[(0, 11)]), 10, 11),
            (segments(&[(0, 5)]), 10, 6),
            (segments(&[(u64::MAX, 5)]), 10, 5),
            (segments(&[]), u64::MAX, 0),
        ] {
            assert!(check(&map, real, content).is_err(), "{map:?}");
        }
        for bad in ["1", "1,", "1,2,3", "a,b", "-1,2"] {
            assert!(parse_map(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(MapParser::default().feed(b"x\n").is_err());
        assert!(MapParser::default().feed(&[b'1'; 30]).is_err());
    }
}
