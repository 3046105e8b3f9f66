//! Image references: `[host[:port]/]path[:tag][@digest]`, normalised as every client does (short names are Docker
//! Hub's). Grammar: github.com/distribution/reference; pure.

use std::fmt;

use crate::{digest::Digest, error::ImageError};

/// Names longer than this are refused by registries (distribution-spec).
const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;

/// A reference with everything that short forms leave out.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    host: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Parses and completes: no host means `docker.io`, one path component there means `library/`, neither tag nor
    /// digest means `latest`.
    pub fn parse(text: &str) -> Result<Self, ImageError> {
        let wrong = |why| ImageError::InvalidReference { reference: text.chars().take(300).collect(), why };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (
                rest,
                Some(
                    digest
                        .parse()
                        .map_err(|_| wrong("the digest must be sha256 and 64 hexadecimal digits"))?,
                ),
            ),
            None => (text, None),
        };
        // A colon after the last slash separates the tag; one before it belongs to a port.
        let slash = rest.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match rest[slash..].find(':') {
            Some(colon) => (&rest[..slash + colon], Some(&rest[slash + colon + 1..])),
            None => (rest, None),
        };
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(wrong(
                "the tag must be letters, digits, '_', '.', '-', at most 128, and not start with '.' or '-'",
            ));
        }
        let (host, path) = match name.split_once('/') {
            Some((first, rest))
                if first.contains(['.', ':', '['])
                    || first == "localhost"
                    || first.bytes().any(|b| b.is_ascii_uppercase()) =>
            {
                (first, rest.to_owned())
            }
            _ => ("docker.io", name.to_owned()),
        };
        let host = if host == "index.docker.io" { "docker.io" } else { host };
        let path = if host == "docker.io" && !path.contains('/') && !path.is_empty() {
            format!("library/{path}")
        } else {
            path
        };
        if !is_host(host) {
            return Err(wrong("the registry's host is malformed"));
        }
        if path.is_empty() || !path.split('/').all(is_component) {
            return Err(wrong(
                "the name must be lower-case letters and digits, separated by '.', '_', '__', '-' or '/'",
            ));
        }
        if host.len() + 1 + path.len() > MAX_NAME {
            return Err(wrong("the name is longer than 255 characters"));
        }
        let tag = match (tag, &digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, None) => Some("latest".to_owned()),
            (None, Some(_)) => None,
        };
        Ok(Self { host: host.to_owned(), path, tag, digest })
    }

    /// The registry, `docker.io` for Docker Hub, with its port if one was given.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The repository within the registry.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag, if there is one. With a digest beside it, it only informs.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if there is one.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// `host/path`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.host, self.path)
    }

    /// `host/path:tag`, unless a digest decides.
    pub fn repo_tag(&self) -> Option<String> {
        match (&self.digest, &self.tag) {
            (None, Some(tag)) => Some(format!("{}:{tag}", self.name())),
            _ => None,
        }
    }

    /// `host/path@digest`.
    pub fn repo_digest(&self, digest: &Digest) -> String {
        format!("{}@{digest}", self.name())
    }

    /// What a registry is asked for: the digest if there is one, else the tag.
    pub fn manifest(&self) -> &str {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.as_str(),
            (None, Some(tag)) => tag,
            (None, None) => "latest",
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= MAX_TAG
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

/// Runs of `[a-z0-9]` separated by `.`, `_`, `__` or any number of `-`.
fn is_component(component: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_digit() || b.is_ascii_lowercase();
    let bytes = component.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    if !alnum(*first) || !alnum(*last) {
        return false;
    }
    bytes
        .split(|b| alnum(*b))
        .all(|between| matches!(between, b"" | b"." | b"_" | b"__") || between.iter().all(|b| *b == b'-'))
}

/// A DNS name, an IPv4 address or a bracketed IPv6 address, with an optional port.
fn is_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) => {
                if address.parse::<std::net::Ipv6Addr>().is_err() {
                    return false;
                }
                ("v6", port)
            }
            None => return false,
        },
        None => match host.find(':') {
            Some(at) => (&host[..at], &host[at..]),
            None => (host, ""),
        },
    };
    let port_is_good = port.is_empty()
        || port
            .strip_prefix(':')
            .is_some_and(|p| p.parse::<u16>().is_ok() && p.bytes().all(|b| b.is_ascii_digit()));
    let label = |l: &str| {
        !l.is_empty()
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    port_is_good && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "9700f9a2f5bf3c5bf0d0ff3d3f2f6c2c3e2d1a0b9c8d7e6f5a4b3c2d1e0f9a8b";

    #[test]
    fn short_forms_are_completed() {
        let digest = format!("quay.io/a/b@sha256:{HEX}");
        let both = format!("quay.io/a/b:1@sha256:{HEX}");
        for (text, full) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36"),
            ("user/app", "docker.io/user/app:latest"),
            ("index.docker.io/app", "docker.io/library/app:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/app:x", "localhost:5000/app:x"),
            ("[::1]:5000/app", "[::1]:5000/app:latest"),
            (
                "registry.k8s.io/e2e-test-images/busybox:1.29-2",
                "registry.k8s.io/e2e-test-images/busybox:1.29-2",
            ),
            ("127.0.0.1:5000/a__b/c-d.e_f---g:T", "127.0.0.1:5000/a__b/c-d.e_f---g:T"),
            ("MyHost/app", "MyHost/app:latest"),
            (digest.as_str(), digest.as_str()),
            (both.as_str(), both.as_str()),
        ] {
            assert_eq!(Reference::parse(text).expect(text).to_string(), full);
        }
    }

    #[test]
    fn a_digest_overrides_the_tag() {
        let both = Reference::parse(&format!("quay.io/a/b:1@sha256:{HEX}")).expect("reference");
        assert_eq!(both.repo_tag(), None);
        assert_eq!(both.manifest(), format!("sha256:{HEX}"));
        assert_eq!(both.tag(), Some("1"));
    }

    #[test]
    fn malformed_references_are_refused() {
        let long = format!("docker.io/{}", "a".repeat(250));
        let long_tag = format!("a:{}", "t".repeat(129));
        for bad in [
            "",
            ":",
            "@",
            "/",
            "a/",
            "/a",
            "a//b",
            "A",
            "a/B",
            "a:",
            "a:-x",
            "a:x y",
            "a@sha256:12",
            "a@sha512:00",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "host:99999/a",
            "host:/a",
            "ho_st.x/a",
            "[::1/a",
            "[zz]:1/a",
            "a/../b",
            "a b",
            "http://x/y",
            "x.y/a\n",
            "é.io/a",
            "+1:80/a",
            "h.x:+8/a",
            long.as_str(),
            long_tag.as_str(),
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn parsing_is_stable(text in "\\PC{0,80}") {
            if let Ok(reference) = Reference::parse(&text) {
                prop_assert_eq!(&Reference::parse(&reference.to_string()).expect("its own text"), &reference);
            }
        }

        #[test]
        fn what_looks_right_is_right(
            host in "([a-z0-9]{1,5}\\.[a-z]{1,3}(:[1-9][0-9]{0,3})?/)?",
            path in "[a-z0-9]{1,6}((_|__|-{1,3})[a-z0-9]{1,6}){0,2}(/[a-z0-9]{1,6}(\\.[a-z0-9]){0,2}){0,2}",
            tag in "(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,20})?",
        ) {
            let text = format!("{host}{path}{tag}");
            prop_assert!(Reference::parse(&text).is_ok(), "{}", text);
        }
    }
}
