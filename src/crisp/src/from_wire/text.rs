//! Checks of single texts: names, paths, label maps.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
};

use super::error::{At, Invalid, Shown};

/// Longest path that Linux takes in a system call (`PATH_MAX`), with its end.
const PATH_MAX: usize = 4096;

/// Longest name of a pod, namespace or container: a DNS subdomain's.
const NAME_MAX: usize = 253;

/// Longest key and value of one label together. Kubernetes stays far below, and the peers draw the line here too.
const LABEL_MAX: usize = 4096;

/// Texts that reach the kernel as C strings.
pub fn no_nul(at: &At<'_>, text: &str) -> Result<(), Invalid> {
    if text.contains('\0') { Err(at.invalid("contains a NUL byte")) } else { Ok(()) }
}

/// A text that must be there and end up in a system call.
pub fn required(at: &At<'_>, text: &str) -> Result<String, Invalid> {
    if text.is_empty() {
        return Err(at.invalid("must not be empty"));
    }
    no_nul(at, text)?;
    Ok(text.to_owned())
}

/// A name that people read and that may become part of a file name.
pub fn name(at: &At<'_>, text: &str) -> Result<String, Invalid> {
    required(at, text)?;
    if text.len() > NAME_MAX {
        return Err(at.invalid(format!("is {} bytes long; {NAME_MAX} are allowed", text.len())));
    }
    if text == "." || text == ".." || text.contains('/') || text.chars().any(char::is_control) {
        return Err(at.invalid(format!("{} has a slash or a control character", Shown(text))));
    }
    Ok(text.to_owned())
}

fn path_length(at: &At<'_>, text: &str) -> Result<(), Invalid> {
    no_nul(at, text)?;
    if text.len() >= PATH_MAX {
        return Err(at.invalid(format!("is {} bytes long; a path has at most {}", text.len(), PATH_MAX - 1)));
    }
    Ok(())
}

/// An absolute path of the host. `..` is left to the kernel: after a symbolic link it cannot be resolved as text.
pub fn host_path(at: &At<'_>, text: &str) -> Result<PathBuf, Invalid> {
    required(at, text)?;
    path_length(at, text)?;
    if !text.starts_with('/') {
        return Err(at.invalid(format!("{} is not an absolute path", Shown(text))));
    }
    Ok(PathBuf::from(text))
}

/// An absolute path inside a container, without `.`, `..` and doubled slashes.
pub fn container_path(at: &At<'_>, text: &str) -> Result<String, Invalid> {
    required(at, text)?;
    path_length(at, text)?;
    if !text.starts_with('/') {
        return Err(at.invalid(format!("{} is not an absolute path", Shown(text))));
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/').filter(|p| !p.is_empty() && *p != ".") {
        if part != ".." {
            parts.push(part);
        } else if parts.pop().is_none() {
            return Err(at.invalid(format!("{} leaves the container's root", Shown(text))));
        }
    }
    Ok(format!("/{}", parts.join("/")))
}

/// A path below some folder: relative and without `..`. May be empty.
pub fn relative_path(at: &At<'_>, text: &str) -> Result<String, Invalid> {
    path_length(at, text)?;
    if text.starts_with('/') {
        return Err(at.invalid(format!("{} is absolute; a relative path is needed", Shown(text))));
    }
    if text.split('/').any(|part| part == "..") {
        return Err(at.invalid(format!("{} leaves its folder by `..`", Shown(text))));
    }
    Ok(text.to_owned())
}

/// Labels: a bound for each entry, so that a list of everything stays a list.
pub fn labels(at: &At<'_>, map: &HashMap<String, String>) -> Result<BTreeMap<String, String>, Invalid> {
    for (key, value) in map {
        if key.is_empty() {
            return Err(at.key(key).invalid("has an empty name"));
        }
        if key.len() + value.len() > LABEL_MAX {
            let size = key.len() + value.len();
            return Err(at
                .key(key)
                .invalid(format!("name and value have {size} bytes; {LABEL_MAX} are allowed")));
        }
    }
    Ok(annotations(map))
}

/// Annotations: the client's own, handed back as they came.
pub fn annotations(map: &HashMap<String, String>) -> BTreeMap<String, String> {
    map.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Where the pod's cgroup goes: a path below the hierarchies' roots, or the name of a systemd slice.
pub fn cgroup_parent(at: &At<'_>, text: &str) -> Result<String, Invalid> {
    path_length(at, text)?;
    if text.chars().any(char::is_control) {
        return Err(at.invalid(format!("{} has a control character", Shown(text))));
    }
    if text.split('/').any(|part| part == ".." || part == ".") {
        return Err(at.invalid(format!("{} has a `.` or `..` in it", Shown(text))));
    }
    Ok(text.to_owned())
}

/// Arguments of a program: each a C string.
pub fn arguments(at: &At<'_>, list: &[String]) -> Result<Vec<String>, Invalid> {
    for (i, argument) in list.iter().enumerate() {
        no_nul(&at.index(i), argument)?;
    }
    Ok(list.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: fn() -> At<'static> = || At::root("f");

    #[test]
    fn container_paths_are_cleaned() {
        for (given, clean) in
            [("/", "/"), ("//a///b/", "/a/b"), ("/a/./b", "/a/b"), ("/a/../b", "/b"), ("/a/b/..", "/a")]
        {
            assert_eq!(container_path(&AT(), given).as_deref(), Ok(clean), "{given}");
        }
        for bad in ["", "a", "./a", "/..", "/a/../../b", "/a\0"] {
            assert!(container_path(&AT(), bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn relative_paths_stay_below() {
        for good in ["", "a", "a/0.log", "..a/b..", "./a"] {
            assert!(relative_path(&AT(), good).is_ok(), "{good}");
        }
        for bad in ["/a", "..", "a/../b", "a/..", "\0"] {
            assert!(relative_path(&AT(), bad).is_err(), "{bad:?}");
        }
        assert!(relative_path(&AT(), &"a".repeat(5000)).is_err());
    }

    #[test]
    fn names_are_one_path_component() {
        for good in ["a", "web-0", "Pod 1", "..a"] {
            assert!(name(&AT(), good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a\nb", "\0"] {
            assert!(name(&AT(), bad).is_err(), "{bad:?}");
        }
        assert!(name(&AT(), &"a".repeat(254)).is_err());
    }

    #[test]
    fn labels_have_a_size() {
        let fits = HashMap::from([("k".to_owned(), "v".repeat(4095))]);
        assert_eq!(labels(&AT(), &fits).map(|m| m.len()), Ok(1));
        let too_long = HashMap::from([("k".to_owned(), "v".repeat(4096))]);
        assert!(labels(&AT(), &too_long).is_err_and(|e| e.field == r#"f["k"]"#));
        assert!(labels(&AT(), &HashMap::from([(String::new(), String::new())])).is_err());
    }

    #[test]
    fn cgroup_parents_do_not_climb() {
        for good in ["", "/kubepods/pod1", "kubepods.slice", "/a.slice/a-b.slice"] {
            assert!(cgroup_parent(&AT(), good).is_ok(), "{good}");
        }
        for bad in ["/a/../b", "..", "/./a", "a\nb", "a\0"] {
            assert!(cgroup_parent(&AT(), bad).is_err(), "{bad:?}");
        }
    }
}
