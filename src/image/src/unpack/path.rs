//! Names in archives, taken apart. Pure.

/// Why a name cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadPath {
    #[error("the name leaves the layer")]
    Escapes,
    #[error("the name is longer than 4095 bytes")]
    TooLong,
}

/// A name relative to the layer's root, without `.`, `..` and empty parts. Empty: the root itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct LayerPath(Vec<u8>);

/// Longest path the kernel takes.
const MAX_PATH: usize = 4095;

impl LayerPath {
    /// `/a`, `./a`, `a/` and `b/../a` are all `a`; what would climb above the root is refused.
    pub(crate) fn parse(raw: &[u8]) -> Result<Self, BadPath> {
        // Checked first, so that hostile names cost nothing.
        if raw.len() > 4 * MAX_PATH {
            return Err(BadPath::TooLong);
        }
        let mut path = Vec::with_capacity(raw.len());
        for part in raw.split(|b| *b == b'/') {
            match part {
                b"" | b"." => {}
                b".." => {
                    if path.is_empty() {
                        return Err(BadPath::Escapes);
                    }
                    path.truncate(memchr::memrchr(b'/', &path).unwrap_or(0));
                }
                part => {
                    if !path.is_empty() {
                        path.push(b'/');
                    }
                    path.extend_from_slice(part);
                }
            }
        }
        if path.len() > MAX_PATH { Err(BadPath::TooLong) } else { Ok(Self(path)) }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Folder (empty: the root) and name; `None` for the root.
    pub(crate) fn split(&self) -> Option<(&[u8], &[u8])> {
        split(&self.0)
    }

    pub(crate) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/')
    }
}

/// Folder and name of a path that is already clean.
pub(crate) fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.is_empty() {
        return None;
    }
    Some(match memchr::memrchr(b'/', path) {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_cleaned() {
        for (raw, clean) in [
            ("a", "a"),
            ("/a//b/", "a/b"),
            ("./a/./b", "a/b"),
            ("", ""),
            ("./", ""),
            ("/", ""),
            ("a/..", ""),
            ("a/../b", "b"),
            ("a/b/../../c/d/..", "c"),
        ] {
            assert_eq!(LayerPath::parse(raw.as_bytes()).expect(raw).as_bytes(), clean.as_bytes(), "{raw}");
        }
        for raw in ["..", "/..", "a/../..", "../a", "./../a", "a/../../b"] {
            assert_eq!(LayerPath::parse(raw.as_bytes()), Err(BadPath::Escapes), "{raw}");
        }
        assert_eq!(LayerPath::parse(&[b'a'; 65536]), Err(BadPath::TooLong));
        assert_eq!(LayerPath::parse(&[b'a'; 4096]), Err(BadPath::TooLong));
    }

    #[test]
    fn folder_and_name() {
        assert_eq!(split(b""), None);
        assert_eq!(split(b"a"), Some((&b""[..], &b"a"[..])));
        assert_eq!(split(b"a/b/c"), Some((&b"a/b"[..], &b"c"[..])));
    }

    proptest! {
        #[test]
        fn a_clean_path_stays_below_and_is_stable(raw in "[ab./]{0,24}") {
            if let Ok(path) = LayerPath::parse(raw.as_bytes()) {
                prop_assert!(path.as_bytes().is_empty() || path.parts().all(|p| !matches!(p, b"" | b"." | b"..")));
                prop_assert_eq!(LayerPath::parse(path.as_bytes()), Ok(path.clone()));
            }
        }
    }
}
