//! The 512-byte tar header: fields, numbers, check sum. Pure.

use super::archive::ArchiveError;

/// The unit of a tar archive.
pub(crate) type Block = [u8; 512];

/// What a member of an archive is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// Another name of a file that came before.
    HardLink,
    /// A symbolic link.
    SymLink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A folder.
    Folder,
    /// A named pipe.
    Fifo,
    /// Within the reader only: a sparse file of old GNU tar.
    OldSparse,
}

pub(crate) fn kind(flag: u8, path: &[u8]) -> Result<Kind, ArchiveError> {
    Ok(match flag {
        // Version 7 tar had no folders: a slash at the end told.
        0 | b'0' if path.ends_with(b"/") => Kind::Folder,
        0 | b'0' | b'7' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::SymLink,
        b'3' => Kind::CharDevice,
        b'4' => Kind::BlockDevice,
        b'5' => Kind::Folder,
        b'6' => Kind::Fifo,
        b'S' => Kind::OldSparse,
        other => {
            return Err(ArchiveError::malformed(format!("an entry of unknown type {:?}", char::from(other))));
        }
    })
}

pub(crate) fn until_nul(bytes: &[u8]) -> &[u8] {
    &bytes[..memchr::memchr(0, bytes).unwrap_or(bytes.len())]
}

/// The name field, with ustar's or star's prefix.
pub(crate) fn path(block: &Block) -> Vec<u8> {
    let name = until_nul(&block[..100]);
    if &block[257..263] != b"ustar\0" {
        return name.to_vec();
    }
    // star keeps times behind a shorter prefix.
    let is_star = &block[508..512] == b"tar\0";
    let prefix = until_nul(&block[345..if is_star { 476 } else { 500 }]);
    if prefix.is_empty() {
        return name.to_vec();
    }
    [prefix, b"/", name].concat()
}

/// The sum of all bytes with the sum's own field taken as blanks. Some old writers added signed bytes.
pub(crate) fn check_sum(block: &Block) -> Result<(), ArchiveError> {
    let stored = number(&block[148..156], "check sum")?;
    let (mut unsigned, mut signed) = (0u64, 0i64);
    for (at, byte) in block.iter().enumerate() {
        let byte = if (148..156).contains(&at) { b' ' } else { *byte };
        unsigned += u64::from(byte);
        signed += i64::from(byte as i8);
    }
    if stored == unsigned || i64::try_from(stored) == Ok(signed) {
        Ok(())
    } else {
        Err(ArchiveError::malformed("the header's check sum is wrong"))
    }
}

/// Octal text, or GNU's base 256. Never negative.
pub(crate) fn number(field: &[u8], what: &str) -> Result<u64, ArchiveError> {
    u64::try_from(signed_number(field, what)?)
        .map_err(|_| ArchiveError::malformed(format!("a negative {what}")))
}

/// Octal text, or GNU's base 256, which may be negative.
pub(crate) fn signed_number(field: &[u8], what: &str) -> Result<i64, ArchiveError> {
    let wrong = || ArchiveError::malformed(format!("a malformed {what}"));
    match field.first() {
        Some(first) if first & 0x80 != 0 => {
            // Two's complement, with the top bit as the mark: the next one is the sign.
            let negative = first & 0x40 != 0;
            let mut value: i128 = if negative { -1 } else { 0 };
            for (at, byte) in field.iter().enumerate() {
                let byte = if at == 0 && !negative { byte & 0x7f } else { *byte };
                value = (value << 8) | i128::from(byte);
            }
            i64::try_from(value).map_err(|_| wrong())
        }
        _ => {
            let text = until_nul(field).trim_ascii();
            if text.len() > 21 {
                return Err(wrong());
            }
            text.iter().try_fold(0i64, |value, digit| match digit {
                b'0'..=b'7' => value
                    .checked_mul(8)
                    .and_then(|v| v.checked_add(i64::from(digit - b'0')))
                    .ok_or_else(wrong),
                _ => Err(wrong()),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (field, value) in [
            (&b"0000644\0"[..], 0o644),
            (b"   644 \0", 0o644),
            (b"\0\0\0\0\0\0\0\0", 0),
            (b"        ", 0),
            (b"77777777777 ", 0o77777777777),
            (b"\x80\0\0\0\0\0\x01\0", 256),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", -2),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", -1),
        ] {
            assert_eq!(signed_number(field, "x").expect("number"), value, "{field:?}");
        }
        for field in [
            &b"8"[..],
            b"12 3",
            b"-1",
            b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            b"7777777777777777777777",
        ] {
            assert!(signed_number(field, "x").is_err(), "{field:?}");
        }
        assert!(number(b"\xff\xff\xff\xff\xff\xff\xff\xfe", "x").is_err());
    }

    #[test]
    fn the_prefix_is_joined() {
        let mut block = [0; 512];
        block[..4].copy_from_slice(b"name");
        block[345..351].copy_from_slice(b"folder");
        assert_eq!(path(&block), b"name");
        block[257..263].copy_from_slice(b"ustar\0");
        assert_eq!(path(&block), b"folder/name");
    }
}
