//! Linux: mounts, namespaces, cgroups, pidfds, descriptors. The home of unsafe.

pub mod beneath;
pub mod file;
pub mod xattr;
