//! What the image store can be told.

use std::{path::PathBuf, time::Duration};

use crate::platform::Platform;

/// Settings of the store. `Default` is what the daemon ships.
#[derive(Debug, Clone)]
pub struct ImageStoreConfig {
    /// Images and layers.
    pub root: PathBuf,
    /// Containers' writable layers.
    pub containers_root: PathBuf,
    /// Folders with `<host>/hosts.toml`, the first that knows a host counts.
    pub certs_dirs: Vec<PathBuf>,
    /// Docker's `config.json`, for credentials that the kubelet does not bring.
    pub docker_config: Option<PathBuf>,
    /// Names (`*` stands for anything) or ids of images that must not be collected.
    pub pinned: Vec<String>,
    /// Layers that are downloaded and unpacked at the same time, over all pulls.
    pub max_concurrent_downloads: usize,
    /// A pull to which nothing arrives for this long fails.
    pub pull_progress_timeout: Duration,
    /// Pulls that take longer say in the log how far they are, as often.
    pub progress_report_after: Duration,
    /// Tries in a row without progress.
    pub attempts: u32,
    /// First pause between tries; doubles up to ten seconds.
    pub retry_backoff: Duration,
    /// Largest compressed layer, in bytes.
    pub max_layer_bytes: u64,
    /// Largest uncompressed layer, in bytes: what stops a gzip bomb.
    pub max_unpacked_bytes: u64,
    /// Most files in a layer.
    pub max_layer_entries: u64,
    /// Which image of an index is taken.
    pub platform: Platform,
    /// Ages of the containers' sizes before they are counted again.
    pub usage_age: Duration,
}

impl Default for ImageStoreConfig {
    fn default() -> Self {
        Self {
            root: "/var/lib/crisp/images".into(),
            containers_root: "/var/lib/crisp/containers".into(),
            certs_dirs: vec!["/etc/crisp/certs.d".into(), "/etc/containerd/certs.d".into()],
            docker_config: None,
            pinned: Vec::new(),
            // As many layers as most images have, and no more connections than registries like.
            max_concurrent_downloads: 6,
            pull_progress_timeout: Duration::from_secs(120),
            progress_report_after: Duration::from_secs(10),
            attempts: 5,
            retry_backoff: Duration::from_millis(250),
            max_layer_bytes: 64 << 30,
            max_unpacked_bytes: 256 << 30,
            max_layer_entries: 10_000_000,
            platform: Platform::host(),
            usage_age: Duration::from_secs(10),
        }
    }
}

/// Whether `text` fits `pattern`, in which `*` stands for any characters.
pub(crate) fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let mut last = None;
    for part in parts {
        if let Some(middle) = last.replace(part) {
            match rest.find(middle) {
                Some(at) => rest = &rest[at + middle.len()..],
                None => return false,
            }
        }
    }
    last.map_or(rest.is_empty(), |last| rest.len() >= last.len() && rest.ends_with(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "a", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*bb*b", "abb", false),
            ("registry.k8s.io/pause:*", "registry.k8s.io/pause:3.9", true),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
    }
}
