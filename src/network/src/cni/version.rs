//! Versions of the CNI specification.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The versions that are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Version {
    /// 0.3.0 and 0.3.1, whose messages are the same.
    #[serde(rename = "0.3.1")]
    V0_3_1,
    /// 0.4.0: CHECK, and the former result in DEL.
    #[serde(rename = "0.4.0")]
    V0_4_0,
    /// 1.0.0: addresses lose their `version`.
    #[serde(rename = "1.0.0")]
    V1_0_0,
    /// 1.1.0: STATUS and GC.
    #[serde(rename = "1.1.0")]
    V1_1_0,
}

impl Version {
    /// As it is written.
    pub fn text(self) -> &'static str {
        match self {
            Version::V0_3_1 => "0.3.1",
            Version::V0_4_0 => "0.4.0",
            Version::V1_0_0 => "1.0.0",
            Version::V1_1_0 => "1.1.0",
        }
    }

    /// Whether CHECK exists, and DEL gets the former result.
    pub fn has_check(self) -> bool {
        self >= Version::V0_4_0
    }

    /// Whether STATUS and GC exist.
    pub fn has_status_and_gc(self) -> bool {
        self >= Version::V1_1_0
    }
}

impl FromStr for Version {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "0.3.0" | "0.3.1" => Ok(Version::V0_3_1),
            "0.4.0" => Ok(Version::V0_4_0),
            "1.0.0" => Ok(Version::V1_0_0),
            "1.1.0" => Ok(Version::V1_1_0),
            _ => Err(()),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}
