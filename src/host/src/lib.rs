//! Linux: mounts, namespaces, cgroups, pidfds, descriptors. The home of unsafe.
