//! Content addresses: `sha256:` and 64 hexadecimal digits (OCI image-spec, descriptor.md).

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A sha256 digest. Other algorithms are refused by name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(Arc<str>);

/// Why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDigest {
    /// Another algorithm.
    #[error("digest algorithm {0:?} is not supported")]
    Algorithm(String),
    /// Not `algorithm:hex`.
    #[error("{0:?} is not a digest")]
    Syntax(String),
}

impl Digest {
    const PREFIX: &'static str = "sha256:";

    /// Digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_hash(Sha256::new_with_prefix(bytes))
    }

    /// Digest of what was hashed.
    pub(crate) fn from_hash(hash: Sha256) -> Self {
        let mut text = String::with_capacity(71);
        text.push_str(Self::PREFIX);
        for byte in hash.finalize() {
            let digit = |n: u8| char::from(if n < 10 { b'0' + n } else { b'a' + n - 10 });
            text.push(digit(byte >> 4));
            text.push(digit(byte & 15));
        }
        Self(Arc::from(text))
    }

    /// With the algorithm's name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Without the algorithm's name.
    pub fn hex(&self) -> &str {
        &self.0[Self::PREFIX.len()..]
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let shortened = || text.chars().take(100).collect::<String>();
        let (algorithm, hex) = text.split_once(':').ok_or_else(|| InvalidDigest::Syntax(shortened()))?;
        if algorithm != "sha256" {
            let known = !algorithm.is_empty()
                && algorithm.bytes().all(|b| b.is_ascii_alphanumeric() || b"+._-".contains(&b));
            let short = algorithm.chars().take(40).collect();
            return Err(if known {
                InvalidDigest::Algorithm(short)
            } else {
                InvalidDigest::Syntax(shortened())
            });
        }
        if hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            Ok(Self(Arc::from(text)))
        } else {
            Err(InvalidDigest::Syntax(shortened()))
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidDigest;
    fn try_from(text: String) -> Result<Self, InvalidDigest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.0.as_ref().to_owned()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_digest() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").as_str(), empty);
        assert_eq!(empty.parse::<Digest>().map(|d| d.hex().to_owned()), Ok(empty[7..].to_owned()));
    }

    #[test]
    fn wrong_digests() {
        assert_eq!("sha512:00".parse::<Digest>(), Err(InvalidDigest::Algorithm("sha512".into())));
        let upper = format!("sha256:{}", "A".repeat(64));
        for bad in ["", "sha256", "sha256:", "sha256:12", ":12", "../x:12", upper.as_str()] {
            assert!(matches!(bad.parse::<Digest>(), Err(InvalidDigest::Syntax(_))), "{bad}");
        }
    }
}
