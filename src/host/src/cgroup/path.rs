//! Names of cgroups: paths below the hierarchies' roots, and systemd's `slice:prefix:name`.

use std::path::{Path, PathBuf};

use super::CgroupError;

/// Longest path taken; the kernel's own bound is `PATH_MAX` with the mount point in front.
const MAX_PATH: usize = 3072;

/// The cgroup's path relative to a hierarchy's root. Nothing that could leave the root, nothing that could forge
/// a line in a kernel file, and never the root itself: no caller means to limit or to kill the whole machine.
pub(super) fn relative(cgroup: &str) -> Result<&Path, CgroupError> {
    let invalid = |reason| CgroupError::InvalidPath { path: cgroup.chars().take(200).collect(), reason };
    if cgroup.len() > MAX_PATH {
        return Err(invalid("too long"));
    }
    if cgroup.contains(['\0', '\n']) {
        return Err(invalid("it holds a control character"));
    }
    let mut parts = cgroup.split('/').filter(|part| !part.is_empty()).peekable();
    if parts.peek().is_none() {
        return Err(invalid("it is the root"));
    }
    if parts.any(|part| part == "." || part == "..") {
        return Err(invalid("it holds a dot component"));
    }
    Ok(Path::new(cgroup.trim_start_matches('/')))
}

/// The cgroup path that systemd gives a slice: `a-b-c.slice` is `/a.slice/a-b.slice/a-b-c.slice`
/// (`systemd.slice(5)`); `-.slice` is the root, `/`.
pub fn slice_path(slice: &str) -> Result<String, CgroupError> {
    let invalid = |reason| CgroupError::InvalidPath { path: slice.chars().take(200).collect(), reason };
    let name = slice.strip_suffix(".slice").ok_or_else(|| invalid("a slice's name ends in .slice"))?;
    if name == "-" {
        return Ok("/".into());
    }
    if name.contains(['/', '\0', '\n', ':']) {
        return Err(invalid("a slice's name holds no slash, colon or control character"));
    }
    let mut path = String::new();
    let mut prefix = String::new();
    for part in name.split('-') {
        if part.is_empty() {
            return Err(invalid("a dash in a slice's name stands between two words"));
        }
        prefix.push_str(part);
        path.push('/');
        path.push_str(&prefix);
        path.push_str(".slice");
        prefix.push('-');
    }
    Ok(path)
}

/// A scope in a slice, as the OCI runtime spec writes it for the systemd driver: `slice:prefix:name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// `kubepods-burstable-pod….slice`.
    pub slice: String,
    /// Unit name, `prefix-name.scope`.
    pub unit: String,
}

impl Scope {
    /// Reads `slice:prefix:name`. An empty slice is `system.slice`; a name that ends in `.slice` is a unit by itself.
    pub fn parse(text: &str) -> Result<Self, CgroupError> {
        let invalid = |reason| CgroupError::InvalidPath { path: text.chars().take(200).collect(), reason };
        let mut parts = text.split(':');
        let (Some(slice), Some(prefix), Some(name), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(invalid("slice:prefix:name is needed"));
        };
        if name.is_empty() || name.contains('/') || prefix.contains('/') {
            return Err(invalid("a scope needs a name without slashes"));
        }
        let slice = if slice.is_empty() { "system.slice" } else { slice };
        slice_path(slice)?;
        let unit = match prefix {
            "" => format!("{name}.scope"),
            prefix => format!("{prefix}-{name}.scope"),
        };
        Ok(Self { slice: slice.to_owned(), unit })
    }

    /// Where systemd puts it.
    pub fn path(&self) -> Result<String, CgroupError> {
        let parent = slice_path(&self.slice)?;
        Ok(format!("{}/{}", parent.trim_end_matches('/'), self.unit))
    }
}

/// Joins a checked path to a root.
pub(super) fn under(root: &Path, relative: &Path) -> PathBuf {
    root.join(relative)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_paths_below_the_root() {
        for good in ["/kubepods/burstable/podX/abc", "a", "/a//b/", "/..a/b.."] {
            assert!(relative(good).is_ok(), "{good}");
        }
        for bad in ["", "/", "//", "/a/../b", "..", "/a/.", "a\nb", "a\0"] {
            assert!(relative(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn slices_expand() {
        let table = [
            ("-.slice", "/"),
            ("system.slice", "/system.slice"),
            ("kubepods-besteffort.slice", "/kubepods.slice/kubepods-besteffort.slice"),
            ("a-b-c_d.slice", "/a.slice/a-b.slice/a-b-c_d.slice"),
        ];
        for (slice, path) in table {
            assert_eq!(slice_path(slice).unwrap(), path);
        }
        for bad in ["a", ".slice", "a--b.slice", "-a.slice", "a-.slice", "a/b.slice"] {
            assert!(slice_path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn scopes() {
        let scope = Scope::parse("kubepods-podx.slice:crisp:abc").unwrap();
        assert_eq!(scope.unit, "crisp-abc.scope");
        assert_eq!(scope.path().unwrap(), "/kubepods.slice/kubepods-podx.slice/crisp-abc.scope");
        assert_eq!(Scope::parse("-.slice::x").unwrap().path().unwrap(), "/x.scope");
        assert_eq!(Scope::parse(":p:x").unwrap().path().unwrap(), "/system.slice/p-x.scope");
        for bad in ["", "a", "a.slice:b", "a.slice:b:", "a.slice:b:c:d", "a.slice:b:../c", "nope:b:c"] {
            assert!(Scope::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_path_that_is_taken_stays_below_the_root(text in "[a./\\PC]{0,30}") {
            if let Ok(path) = relative(&text) {
                prop_assert!(path.is_relative());
                prop_assert!(path.components().all(|c| matches!(c, std::path::Component::Normal(_))));
            }
        }

        #[test]
        fn scopes_are_survived(text in "\\PC{0,40}") {
            if let Ok(scope) = Scope::parse(&text) {
                prop_assert!(relative(&scope.path().unwrap()).is_ok());
            }
        }
    }
}
