//! Linux: mounts, namespaces, cgroups, pidfds, descriptors. The home of unsafe.

pub mod at;
pub mod beneath;
pub mod cgroup;
pub mod file;
pub mod socket;
pub mod xattr;
