//! Linux: mounts, namespaces, cgroups, pidfds, descriptors. The home of unsafe.

pub mod allocator;
pub mod apparmor;
pub mod at;
pub mod beneath;
pub mod capability;
pub mod cgroup;
pub mod file;
pub mod mount;
pub mod mountpoint;
pub mod namespace;
pub mod placement;
pub mod probe;
pub mod process;
pub mod program;
#[cfg(feature = "seccomp-compile")]
pub mod seccomp;
pub mod seccomp_load;
pub mod selinux;
pub mod socket;
pub mod terminal;
pub mod xattr;
