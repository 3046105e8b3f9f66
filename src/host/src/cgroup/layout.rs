//! Which cgroup hierarchies the host has, and where they are mounted.
//!
//! Found once, from `/proc/self/mountinfo` and `/proc/cgroups` (`cgroups(7)`); pure but for [`Layout::detect`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::CgroupError;

/// Where distributions mount cgroups; a mount elsewhere is only used if there is none here.
const USUAL_ROOT: &str = "/sys/fs/cgroup";

/// Mount points of cgroup v1 hierarchies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Hierarchies {
    /// Controller to mount point; controllers mounted together share one.
    pub controllers: BTreeMap<String, PathBuf>,
    /// The `name=systemd` hierarchy: no controllers, but systemd's own book-keeping.
    pub systemd: Option<PathBuf>,
}

impl Hierarchies {
    /// Every mount point once: the controllers', then systemd's.
    pub fn mount_points(&self) -> Vec<&Path> {
        let mut all: Vec<&Path> = Vec::with_capacity(self.controllers.len() + 1);
        for point in self.controllers.values().chain(&self.systemd) {
            if !all.contains(&point.as_path()) {
                all.push(point);
            }
        }
        all
    }
}

/// The cgroup layout of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// Controllers on v1 hierarchies, no v2 at all.
    V1(Hierarchies),
    /// Controllers on v1 hierarchies, and v2 beside them. Processes are limited and found by the v1 part.
    Hybrid {
        /// The controllers.
        v1: Hierarchies,
        /// Where cgroup2 is mounted.
        unified: PathBuf,
    },
    /// cgroup v2 alone.
    V2 {
        /// Where cgroup2 is mounted.
        root: PathBuf,
        /// What its root offers (`cgroup.controllers`).
        controllers: BTreeSet<String>,
    },
}

impl Layout {
    /// Looks at the host.
    pub fn detect() -> Result<Self, CgroupError> {
        let read =
            |path: &str| fs::read_to_string(path).map_err(|source| CgroupError::host("read", path, source));
        let mountinfo = read("/proc/self/mountinfo")?;
        let known = fs::read_to_string("/proc/cgroups").unwrap_or_default();
        let mut layout = Self::from_text(&mountinfo, &known).ok_or(CgroupError::NotMounted)?;
        if let Self::V2 { root, controllers } = &mut layout {
            let file = root.join("cgroup.controllers");
            let text =
                fs::read_to_string(&file).map_err(|source| CgroupError::host("read", &file, source))?;
            *controllers = text.split_whitespace().map(str::to_owned).collect();
        }
        Ok(layout)
    }

    /// The layout that the two kernel files describe (a v2 root's controllers are not in them); `None`: no cgroups.
    pub fn from_text(mountinfo: &str, cgroups: &str) -> Option<Self> {
        let known: BTreeSet<&str> = cgroups
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        let mut v1 = Hierarchies::default();
        let mut unified: Option<PathBuf> = None;
        for mount in mountinfo.lines().filter_map(Mount::parse) {
            match mount.fstype {
                "cgroup2" => prefer(&mut unified, mount.point),
                "cgroup" => {
                    for option in mount.options.split(',') {
                        if option == "name=systemd" {
                            prefer(&mut v1.systemd, mount.point.clone());
                        } else if known.contains(option) {
                            let mut slot = v1.controllers.remove(option);
                            prefer(&mut slot, mount.point.clone());
                            v1.controllers.extend(slot.map(|point| (option.to_owned(), point)));
                        }
                    }
                }
                _ => {}
            }
        }
        match (v1.controllers.is_empty(), unified) {
            (true, Some(root)) => Some(Self::V2 { root, controllers: BTreeSet::new() }),
            (true, None) => None,
            (false, Some(unified)) => Some(Self::Hybrid { v1, unified }),
            (false, None) => Some(Self::V1(v1)),
        }
    }

    /// The v1 hierarchies that hold the controllers; `None` on a v2 host.
    pub fn v1(&self) -> Option<&Hierarchies> {
        match self {
            Self::V1(v1) | Self::Hybrid { v1, .. } => Some(v1),
            Self::V2 { .. } => None,
        }
    }

    /// Whether controllers are on v2.
    pub fn is_v2(&self) -> bool {
        matches!(self, Self::V2 { .. })
    }

    /// Where the controller is mounted; `None`: this host does not have it.
    pub fn controller(&self, name: &str) -> Option<&Path> {
        match self {
            Self::V1(v1) | Self::Hybrid { v1, .. } => v1.controllers.get(name).map(PathBuf::as_path),
            Self::V2 { root, controllers } => controllers.contains(name).then_some(root.as_path()),
        }
    }

    /// The mount points in which a container has a cgroup. On a hybrid host v2 is not among them: it has no
    /// controllers, and moving a process there costs the kernel's threadgroup lock.
    pub fn roots(&self) -> Vec<&Path> {
        match self {
            Self::V1(v1) | Self::Hybrid { v1, .. } => v1.mount_points(),
            Self::V2 { root, .. } => vec![root],
        }
    }

    /// `v1`, `hybrid` or `v2`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::V1(_) => "v1",
            Self::Hybrid { .. } => "hybrid",
            Self::V2 { .. } => "v2",
        }
    }
}

/// A later mount replaces an earlier one, but one in the usual place is not replaced by one elsewhere.
fn prefer(slot: &mut Option<PathBuf>, candidate: PathBuf) {
    let usual = |path: &Path| path.starts_with(USUAL_ROOT);
    if !slot.as_deref().is_some_and(|old| usual(old) && !usual(&candidate)) {
        *slot = Some(candidate);
    }
}

/// The fields of a line of mountinfo (`proc_pid_mountinfo(5)`) that matter here.
struct Mount<'a> {
    point: PathBuf,
    fstype: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut filesystem = filesystem.split(' ');
        let (fstype, _source, options) = (filesystem.next()?, filesystem.next()?, filesystem.next()?);
        Some(Self { point: unescape(mount.split(' ').nth(4)?), fstype, options })
    }
}

/// Undoes `\040` and the like.
fn unescape(field: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let bytes = field.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let octal = (bytes[at] == b'\\')
            .then(|| field.get(at + 1..at + 4))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(byte) => {
                out.push(byte);
                at += 4;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CGROUPS: &str = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpuset\t3\t1\t1\ncpu\t1\t1\t1\n\
        cpuacct\t2\t1\t1\nmemory\t4\t21\t1\nfreezer\t6\t1\t1\npids\t8\t1\t1\n";
    const ROOT: &str = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n";

    fn v1(text: &str) -> Hierarchies {
        Layout::from_text(text, CGROUPS).and_then(|l| l.v1().cloned()).unwrap_or_default()
    }

    #[test]
    fn separate_v1_mounts_beside_v2_are_hybrid() {
        let text = format!(
            "{ROOT}32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
             33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct\n\
             40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
        );
        let layout = Layout::from_text(&text, CGROUPS).unwrap();
        assert_eq!(layout.name(), "hybrid");
        assert_eq!(layout.controller("cpu"), Some(Path::new("/sys/fs/cgroup/cpu")));
        assert_eq!(layout.controller("memory"), None);
        assert_eq!(layout.roots().len(), 3, "unified is not among them");
    }

    #[test]
    fn controllers_mounted_together_are_one_root() {
        let text = format!(
            "{ROOT}32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
             33 31 0:30 / /sys/fs/cgroup/systemd rw shared:10 - cgroup cgroup rw,xattr,name=systemd\n"
        );
        let v1 = v1(&text);
        assert_eq!(v1.controllers["cpu"], v1.controllers["cpuacct"]);
        assert_eq!(v1.mount_points().len(), 2);
        assert_eq!(Layout::from_text(&text, CGROUPS).unwrap().name(), "v1");
    }

    #[test]
    fn v2_alone() {
        let text = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        let layout = Layout::from_text(text, CGROUPS).unwrap();
        assert!(layout.is_v2());
        assert_eq!(layout.roots(), [Path::new("/sys/fs/cgroup")]);
    }

    #[test]
    fn the_usual_place_wins_over_a_copy_elsewhere() {
        let copy = "50 1 0:40 / /mnt/a\\040b rw - cgroup cgroup rw,memory\n";
        let usual = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        for text in [format!("{copy}{usual}"), format!("{usual}{copy}")] {
            assert_eq!(v1(&text).controllers["memory"], Path::new("/sys/fs/cgroup/memory"));
        }
        assert_eq!(v1(copy).controllers["memory"], Path::new("/mnt/a b"));
    }

    #[test]
    fn no_cgroups_is_said() {
        assert_eq!(Layout::from_text(ROOT, CGROUPS), None);
        assert_eq!(Layout::from_text("", ""), None);
    }

    #[test]
    fn this_host_has_a_layout() {
        let layout = Layout::detect().unwrap();
        assert!(layout.controller("memory").is_some_and(Path::is_dir), "{layout:?}");
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "\\PC{0,200}", other in "\\PC{0,50}") {
            let _ = Layout::from_text(&text, &other);
        }

        #[test]
        fn plain_fields_stay_as_they_are(field in "[a-z/._-]{0,40}") {
            prop_assert_eq!(unescape(&field), PathBuf::from(field));
        }
    }
}
