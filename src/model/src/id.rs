//! Identities of sandboxes, containers and execs.
//!
//! An id is 32 random bytes in hex, as every runtime's: no clock and no counter, so it is unique over restarts,
//! reboots and clock jumps. Ids are used as file and cgroup names, so parsing refuses everything else.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an id: 64 hexadecimal digits are needed")]
pub struct InvalidId {
    text: String,
}

fn check(text: &str) -> Result<Arc<str>, InvalidId> {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if text.len() == 64 && text.bytes().all(hex) {
        Ok(Arc::from(text))
    } else {
        Err(InvalidId { text: text.chars().take(80).collect() })
    }
}

fn random() -> Arc<str> {
    let bytes: [u8; 32] = rand::random();
    Arc::from(bytes.iter().map(|b| format!("{b:02x}")).collect::<String>())
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// A new random id.
            pub fn random() -> Self {
                Self(random())
            }

            /// The 64 hexadecimal digits.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The first 13 digits, for logs and for names with little room.
            pub fn short(&self) -> &str {
                &self.0[..13]
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                check(text).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                check(&text).map(Self)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id! {
    /// A pod sandbox.
    SandboxId
}
id! {
    /// A container of a pod.
    ContainerId
}
id! {
    /// A process that was added to a running container.
    ExecId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_ids_parse_and_differ() {
        let (a, b) = (SandboxId::random(), SandboxId::random());
        assert_ne!(a, b);
        assert_eq!(a.as_str().parse::<SandboxId>(), Ok(a.clone()));
        assert_eq!(a.short().len(), 13);
    }

    #[test]
    fn anything_else_is_refused() {
        let long = "a".repeat(65);
        let upper = "A".repeat(64);
        for bad in ["", "abc", "../../etc/passwd", long.as_str(), upper.as_str()] {
            assert!(bad.parse::<ContainerId>().is_err(), "{bad}");
        }
    }
}
