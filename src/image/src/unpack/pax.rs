//! PAX extended headers: `length key=value\n` records (POSIX.1-2017, pax, "Extended Header"). Pure.

use std::collections::BTreeMap;

use base64::Engine;

use super::{
    archive::ArchiveError,
    sparse::{self, Segment},
};

/// The records of one extended header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pax {
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    /// GNU sparse 0.0 repeats its keys, so order and repetition matter.
    pairs: Vec<(bool, u64)>,
}

/// What the `GNU.sparse.*` records say.
#[derive(Debug)]
pub(crate) struct SparseFormat {
    /// Replaces the member's name, which is made up for readers that know no sparse files.
    pub(crate) name: Option<Vec<u8>>,
    pub(crate) real_size: u64,
    /// `None`: it is at the start of the content.
    pub(crate) map: Option<Vec<Segment>>,
}

impl Pax {
    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty() && self.pairs.is_empty()
    }

    /// Adds the records of one header. Later ones win; an empty value takes the key back.
    pub(crate) fn read(&mut self, mut bytes: &[u8]) -> Result<(), ArchiveError> {
        let wrong = || ArchiveError::malformed("a malformed extended header");
        while !bytes.is_empty() {
            // Some writers pad with zeroes.
            if bytes.iter().all(|b| *b == 0) {
                break;
            }
            let blank = memchr::memchr(b' ', &bytes[..bytes.len().min(21)]).ok_or_else(wrong)?;
            let length = usize::try_from(decimal(&bytes[..blank]).ok_or_else(wrong)?).map_err(|_| wrong())?;
            if length <= blank + 1 || length > bytes.len() || bytes[length - 1] != b'\n' {
                return Err(wrong());
            }
            let record = &bytes[blank + 1..length - 1];
            bytes = &bytes[length..];
            let equals = memchr::memchr(b'=', record).filter(|at| *at > 0).ok_or_else(wrong)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"GNU.sparse.offset" => self.pairs.push((true, decimal(value).ok_or_else(wrong)?)),
                b"GNU.sparse.numbytes" => self.pairs.push((false, decimal(value).ok_or_else(wrong)?)),
                // An empty extended attribute is a value like any other.
                _ if value.is_empty() && !is_xattr(key) => drop(self.records.remove(key)),
                _ => drop(self.records.insert(key.to_vec(), value.to_vec())),
            }
        }
        Ok(())
    }

    /// These records, and those of a global header that they do not replace.
    pub(crate) fn over(mut self, global: &Self) -> Self {
        for (key, value) in &global.records {
            self.records.entry(key.clone()).or_insert_with(|| value.clone());
        }
        self
    }

    fn get(&self, key: &str) -> Option<&[u8]> {
        self.records.get(key.as_bytes()).map(Vec::as_slice)
    }

    pub(crate) fn path(&self) -> Option<&[u8]> {
        self.get("path")
    }

    pub(crate) fn link(&self) -> Option<&[u8]> {
        self.get("linkpath")
    }

    pub(crate) fn number(&self, key: &str) -> Result<Option<u64>, ArchiveError> {
        self.get(key)
            .map(|value| {
                decimal(value).ok_or_else(|| {
                    ArchiveError::malformed(format!("a malformed {key} in an extended header"))
                })
            })
            .transpose()
    }

    /// Seconds with a fraction of any length; may be before 1970.
    pub(crate) fn time(&self, key: &str) -> Result<Option<(i64, u32)>, ArchiveError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        time(value)
            .map(Some)
            .ok_or_else(|| ArchiveError::malformed(format!("a malformed {key} in an extended header")))
    }

    pub(crate) fn sparse(&self) -> Result<Option<SparseFormat>, ArchiveError> {
        let real_size = match self.number("GNU.sparse.realsize")? {
            Some(size) => Some(size),
            None => self.number("GNU.sparse.size")?,
        };
        let map = match (self.get("GNU.sparse.map"), self.pairs.is_empty()) {
            (Some(text), _) => Some(sparse::parse_map(text)?),
            (None, false) => Some(sparse::join_pairs(&self.pairs)?),
            (None, true) => None,
        };
        let leading = self.get("GNU.sparse.major") == Some(b"1");
        if map.is_none() && !leading {
            return Ok(None);
        }
        let real_size = real_size.ok_or_else(|| ArchiveError::malformed("a sparse file without a size"))?;
        Ok(Some(SparseFormat { name: self.get("GNU.sparse.name").map(<[u8]>::to_vec), real_size, map }))
    }

    /// `SCHILY.xattr.*` (raw, but for GNU tar's two escapes), else `LIBARCHIVE.xattr.*` (URL-encoded key, base64 value).
    pub(crate) fn into_xattrs(self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut found = BTreeMap::new();
        for (key, value) in self.records {
            if let Some(name) = key.strip_prefix(SCHILY) {
                found.insert(unescape(name), value);
            } else if let Some(name) = key.strip_prefix(LIBARCHIVE)
                && let Some(name) = url_decode(name)
                && let Ok(value) = base64::engine::general_purpose::STANDARD_NO_PAD
                    .decode(value.trim_ascii_end_matches(b'='))
            {
                // Keys are visited in order, so that SCHILY's comes later and wins.
                found.insert(name, value);
            }
        }
        found.into_iter().filter(|(name, _)| !name.is_empty() && !name.contains(&0)).collect()
    }
}

const SCHILY: &[u8] = b"SCHILY.xattr.";
const LIBARCHIVE: &[u8] = b"LIBARCHIVE.xattr.";

fn is_xattr(key: &[u8]) -> bool {
    key.starts_with(SCHILY) || key.starts_with(LIBARCHIVE)
}

trait TrimEnd {
    fn trim_ascii_end_matches(&self, byte: u8) -> &[u8];
}

impl TrimEnd for Vec<u8> {
    fn trim_ascii_end_matches(&self, byte: u8) -> &[u8] {
        let end = self.iter().rposition(|b| *b != byte).map_or(0, |at| at + 1);
        &self[..end]
    }
}

pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 20 {
        return None;
    }
    text.iter().try_fold(0u64, |value, digit| match digit {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

fn time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = match memchr::memchr(b'.', text) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, &b""[..]),
    };
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nanos =
        (0..9).fold(0u32, |nanos, at| nanos * 10 + fraction.get(at).map_or(0, |d| u32::from(d - b'0')));
    Some(match (negative, nanos) {
        (false, _) => (seconds, nanos),
        (true, 0) => (-seconds, 0),
        // Nanoseconds count upwards from the second below.
        (true, _) => (-seconds - 1, 1_000_000_000 - nanos),
    })
}

/// GNU tar writes `=` and `%` in names of attributes as `%3D` and `%25`.
fn unescape(name: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some(first) = rest.first() {
        let (byte, length) = match rest {
            [b'%', b'3', b'D', ..] => (b'=', 3),
            [b'%', b'2', b'5', ..] => (b'%', 3),
            _ => (*first, 1),
        };
        bytes.push(byte);
        rest = &rest[length..];
    }
    bytes
}

fn url_decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        if *byte == b'%' {
            let digit = |d: &u8| char::from(*d).to_digit(16);
            bytes.push(u8::try_from(digit(rest.next()?)? * 16 + digit(rest.next()?)?).ok()?);
        } else {
            bytes.push(*byte);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &str) -> String {
        let rest = format!(" {key}={value}\n");
        let mut length = rest.len() + 1;
        while length.to_string().len() + rest.len() != length {
            length += 1;
        }
        format!("{length}{rest}")
    }

    #[test]
    fn records_are_read_and_taken_back() {
        let mut pax = Pax::default();
        pax.read(record("path", "a=b").as_bytes()).expect("pax");
        assert_eq!(pax.path(), Some(&b"a=b"[..]));
        pax.read(record("path", "").as_bytes()).expect("pax");
        assert!(pax.is_empty());
        for bad in ["5", "5 a=b\n", "6 a=b", "99 a=b\n", "6 =bc\n", "5 ab\n", "x a=b\n", "0 \n"] {
            assert!(Pax::default().read(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn times() {
        for (text, expected) in [
            ("0", Some((0, 0))),
            ("1.5", Some((1, 500_000_000))),
            ("1.0000000019", Some((1, 1))),
            ("-1.25", Some((-2, 750_000_000))),
            ("-3", Some((-3, 0))),
            ("1.", Some((1, 0))),
            ("", None),
            (".5", None),
            ("1.x", None),
        ] {
            assert_eq!(time(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn extended_attributes_of_both_families() {
        let mut pax = Pax::default();
        let text = record("LIBARCHIVE.xattr.user.a%20b", "aGk=")
            + &record("LIBARCHIVE.xattr.user.c", "aGk")
            + &record("SCHILY.xattr.user.c", "raw");
        pax.read(text.as_bytes()).expect("pax");
        pax.read(record("SCHILY.xattr.user.%3D%25%41", "").as_bytes()).expect("pax");
        let expected = vec![
            (b"user.=%%41".to_vec(), b"".to_vec()),
            (b"user.a b".to_vec(), b"hi".to_vec()),
            (b"user.c".to_vec(), b"raw".to_vec()),
        ];
        assert_eq!(pax.into_xattrs(), expected);
    }
}
