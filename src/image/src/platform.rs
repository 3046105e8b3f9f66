//! Which image of an index fits this machine (OCI image-spec, image-index.md). Pure.

use serde::{Deserialize, Serialize};

use crate::manifest::Descriptor;

/// Operating system, architecture and variant in Go's names. `os.version` and `os.features` say nothing on Linux.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "RawPlatform")]
pub struct Platform {
    /// `linux`
    pub os: String,
    /// `amd64`, `arm64`, ...
    pub architecture: String,
    /// `v7`, `v8`, ...; empty where the architecture has one only, or the lowest is meant.
    pub variant: String,
}

#[derive(Deserialize)]
struct RawPlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
}

impl From<RawPlatform> for Platform {
    fn from(raw: RawPlatform) -> Self {
        Self::new(&raw.os, &raw.architecture, raw.variant.as_deref().unwrap_or_default())
    }
}

impl Platform {
    /// With aliases replaced and the default variant made explicit or dropped.
    pub fn new(os: &str, architecture: &str, variant: &str) -> Self {
        let architecture = architecture.to_ascii_lowercase();
        let variant = variant.to_ascii_lowercase();
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("x86_64" | "x86-64" | "amd64", "v1" | "") => ("amd64", ""),
            ("x86_64" | "x86-64" | "amd64", other) => ("amd64", other),
            ("i386" | "386", _) => ("386", ""),
            ("aarch64" | "arm64", "8" | "v8" | "") => ("arm64", ""),
            ("aarch64" | "arm64", other) => ("arm64", other),
            ("armhf", _) => ("arm", "v7"),
            ("armel", _) => ("arm", "v6"),
            ("arm", "" | "7") => ("arm", "v7"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "6") => ("arm", "v6"),
            (other, variant) => (other, variant),
        };
        Self {
            os: os.to_ascii_lowercase(),
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
        }
    }

    /// The machine this runs on.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Self::new("linux", architecture, host_variant())
    }

    /// How well an image for `other` runs here: `None` not at all, else lower is better.
    fn distance(&self, other: &Self) -> Option<u32> {
        if self.os != other.os || self.architecture != other.architecture {
            return None;
        }
        if self.variant == other.variant {
            return Some(0);
        }
        let level = |variant: &str, default: u32| match variant {
            "" => Some(default),
            text => text.strip_prefix('v').and_then(|n| n.split('.').next()).and_then(|n| n.parse().ok()),
        };
        let default = if self.architecture == "arm64" { 8 } else { 1 };
        let (mine, theirs) = (level(&self.variant, default)?, level(&other.variant, default)?);
        // A machine runs everything up to its own level, and the nearest is the best.
        (theirs <= mine).then(|| mine - theirs)
    }

    /// Whether an image built for `other` runs here. An image that does not say is taken at its word.
    pub fn runs(&self, other: &Self) -> bool {
        (other.os.is_empty() && other.architecture.is_empty()) || self.distance(other).is_some()
    }

    /// The best entry of an index; the first of equals. Entries without a platform are the last resort.
    pub fn choose<'a>(&self, entries: &'a [Descriptor]) -> Option<&'a Descriptor> {
        let fitting =
            entries.iter().filter_map(|entry| Some((self.distance(entry.platform.as_ref()?)?, entry)));
        fitting
            .min_by_key(|(distance, _)| *distance)
            .map(|(_, entry)| entry)
            .or_else(|| entries.iter().find(|entry| entry.platform.is_none()))
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

#[cfg(target_arch = "x86_64")]
fn host_variant() -> &'static str {
    // x86-64 psABI levels.
    let v2 = is_x86_feature_detected!("sse4.2")
        && is_x86_feature_detected!("popcnt")
        && is_x86_feature_detected!("ssse3");
    let v3 = v2
        && is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("fma");
    let v4 = v3
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512bw");
    match (v2, v3, v4) {
        (_, _, true) => "v4",
        (_, true, _) => "v3",
        (true, ..) => "v2",
        _ => "",
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn host_variant() -> &'static str {
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(platforms: &[Option<(&str, &str, &str)>]) -> Vec<Descriptor> {
        platforms
            .iter()
            .enumerate()
            .map(|(size, platform)| Descriptor {
                media_type: String::new(),
                digest: crate::digest::Digest::of(b""),
                size: size as u64,
                platform: platform
                    .map(|(os, architecture, variant)| Platform::new(os, architecture, variant)),
                annotations: Default::default(),
            })
            .collect()
    }

    #[test]
    fn the_nearest_entry_wins() {
        let list = entries(&[
            Some(("windows", "amd64", "")),
            Some(("unknown", "unknown", "")),
            Some(("linux", "amd64", "")),
            Some(("linux", "amd64", "v3")),
            Some(("linux", "arm", "v6")),
            Some(("linux", "arm", "v7")),
            Some(("linux", "arm64", "v8")),
        ]);
        let pick = |architecture, variant| {
            Platform::new("linux", architecture, variant).choose(&list).map(|d| d.size)
        };
        assert_eq!(pick("amd64", ""), Some(2));
        assert_eq!(pick("amd64", "v2"), Some(2));
        assert_eq!(pick("amd64", "v4"), Some(3));
        assert_eq!(pick("arm", "v7"), Some(5));
        assert_eq!(pick("arm", "v6"), Some(4));
        assert_eq!(pick("arm", "v5"), None);
        assert_eq!(pick("aarch64", ""), Some(6));
        assert_eq!(pick("riscv64", ""), None);
    }

    #[test]
    fn an_entry_without_platform_is_the_last_resort() {
        let list = entries(&[None, Some(("linux", "arm64", ""))]);
        assert_eq!(Platform::new("linux", "amd64", "").choose(&list).map(|d| d.size), Some(0));
        assert_eq!(Platform::new("linux", "arm64", "").choose(&list).map(|d| d.size), Some(1));
    }
}
