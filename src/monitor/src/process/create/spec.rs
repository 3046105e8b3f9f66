//! The OCI spec on its way to libcontainer: what has to be looked at, and what only the host's root can do.

use std::{
    fs::File,
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::process::{Failure, host, invalid};

/// A spec as JSON: it goes to libcontainer as a file, so nothing is gained by a type.
pub(super) struct Spec(Value);

impl Spec {
    pub(super) fn new(mut spec: Value) -> Result<Self, Failure> {
        if !spec.is_object() {
            return Err(invalid("spec", "not an object"));
        }
        // The last leg does what these ask for; libcontainer would do it to the worker, or wrongly.
        if let Some(process) = spec.pointer_mut("/process").and_then(Value::as_object_mut) {
            for key in
                ["oomScoreAdj", "rlimits", "noNewPrivileges", "apparmorProfile", "selinuxLabel", "terminal"]
            {
                process.remove(key);
            }
        }
        if let Some(linux) = spec.pointer_mut("/linux").and_then(Value::as_object_mut) {
            linux.remove("seccomp");
            // The worker has set them.
            linux.remove("resources");
        }
        Ok(Self(spec))
    }

    /// Every bind mount's source has to be there, but for those that are mounted later.
    pub(super) fn check_sources(&self, later: &[PathBuf]) -> Result<(), Failure> {
        for mount in self.list("/mounts") {
            let text = |key: &str| mount.get(key).and_then(Value::as_str).unwrap_or_default();
            let bind = text("type") == "bind"
                || mount.get("options").and_then(Value::as_array).is_some_and(|options| {
                    options.iter().any(|o| matches!(o.as_str(), Some("bind" | "rbind")))
                });
            let source = PathBuf::from(text("source"));
            // The container's own cgroup is made by libcontainer, before it mounts anything.
            let made_later =
                source.starts_with("/sys/fs/cgroup") || later.iter().any(|l| source.starts_with(l));
            if !bind || made_later {
                continue;
            }
            if let Err(error) = source.metadata() {
                let reason = match error.kind() {
                    io::ErrorKind::NotFound => "no such file or directory".to_owned(),
                    _ => error.to_string(),
                };
                return Err(invalid(format!("mount source {}", source.display()), reason));
            }
        }
        Ok(())
    }

    /// See [`super::dev`].
    pub(super) fn set_dev_aside(&mut self) -> Vec<super::dev::Aside> {
        super::dev::set_aside(&mut self.0)
    }

    /// The SELinux label of the container's files, from here on that of its own tmpfs and devpts. libcontainer would ask for it with
    /// every mount; the message queues and cgroups are the kernel's one of their kind in the pod, and it refuses a second label.
    pub(super) fn take_mount_label(&mut self) -> Option<String> {
        let Value::String(label) = self.0.pointer_mut("/linux")?.as_object_mut()?.remove("mountLabel")?
        else {
            return None;
        };
        let mounts = self.0.pointer_mut("/mounts").and_then(Value::as_array_mut);
        for mount in mounts.into_iter().flatten().filter_map(Value::as_object_mut) {
            if matches!(mount.get("type").and_then(Value::as_str), Some("tmpfs" | "devpts"))
                && let Some(options) = mount.entry("options").or_insert_with(|| json!([])).as_array_mut()
            {
                options.push(json!(format!("context={label}")));
            }
        }
        Some(label)
    }

    /// See [`super::cgroups`].
    pub(super) fn stage_cgroups(&mut self, own: &[PathBuf], staging: &Path) -> Result<(), Failure> {
        super::cgroups::stage(&mut self.0, own, staging)
    }

    /// Opens the namespaces that are to be joined and names them by descriptor. They are to be kept open until
    /// libcontainer has joined them.
    pub(super) fn open_namespaces(&mut self) -> Result<Vec<File>, Failure> {
        let mut open = Vec::new();
        let namespaces = self.0.pointer_mut("/linux/namespaces").and_then(Value::as_array_mut);
        for namespace in namespaces.into_iter().flatten() {
            let Some(path) = namespace.get_mut("path").filter(|p| p.is_string()) else { continue };
            let name = path.as_str().unwrap_or_default().to_owned();
            if name.is_empty() {
                continue;
            }
            let file = File::open(&name).map_err(host(format!("open the namespace {name}")))?;
            *path = Value::String(format!("/proc/self/fd/{}", file.as_raw_fd()));
            open.push(file);
        }
        Ok(open)
    }

    /// Whether the container gets a pid namespace of its own.
    pub(super) fn has_own_pids(&self) -> bool {
        self.list("/linux/namespaces").iter().any(|n| {
            n.get("type").and_then(Value::as_str) == Some("pid")
                && n.get("path").and_then(Value::as_str).unwrap_or_default().is_empty()
        })
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(&self.0).expect("a JSON value has only string keys")
    }

    fn list(&self, pointer: &str) -> &[Value] {
        self.0.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_source_is_named() {
        let spec = |source: &str, options: &[&str]| {
            let mount = json!({"destination": "/d", "type": "none", "source": source, "options": options});
            Spec::new(json!({"mounts": [mount]})).unwrap()
        };
        assert!(spec("/no/such", &["rbind"]).check_sources(&["/no".into()]).is_ok());
        assert!(spec("/no/such", &["ro"]).check_sources(&[]).is_ok());
        assert!(spec("/etc", &["bind"]).check_sources(&[]).is_ok());
        let Err(Failure::Invalid { object, .. }) = spec("/no/such", &["bind"]).check_sources(&[]) else {
            panic!("it was taken");
        };
        assert!(object.contains("/no/such"));
    }

    #[test]
    fn the_label_of_files_goes_to_the_container_s_own_mounts() {
        let mounts = json!([{"type": "tmpfs", "options": ["ro"]}, {"type": "devpts"}, {"type": "mqueue"}, {"type": "bind"}]);
        let mut spec =
            Spec::new(json!({"linux": {"mountLabel": "a:b:c:s0:c1,c2"}, "mounts": mounts})).unwrap();
        assert_eq!(spec.take_mount_label().as_deref(), Some("a:b:c:s0:c1,c2"));
        let context = "context=a:b:c:s0:c1,c2";
        let expected = json!({"linux": {}, "mounts": [{"type": "tmpfs", "options": ["ro", context]},
            {"type": "devpts", "options": [context]}, {"type": "mqueue"}, {"type": "bind"}]});
        assert_eq!(spec.0, expected);
        assert_eq!(spec.take_mount_label(), None);
        assert_eq!(spec.0, expected);
    }

    #[test]
    fn namespaces_are_joined_by_descriptor() {
        let mut spec = Spec::new(json!({"linux": {"seccomp": {}, "namespaces": [
            {"type": "pid"}, {"type": "network", "path": "/proc/self/ns/net"}, {"type": "ipc", "path": ""}]}}))
        .unwrap();
        assert!(spec.has_own_pids());
        let open = spec.open_namespaces().unwrap();
        assert_eq!(open.len(), 1);
        let text = String::from_utf8(spec.to_bytes()).unwrap();
        assert!(text.contains("/proc/self/fd/") && !text.contains("seccomp"), "{text}");
        let mut gone =
            Spec::new(json!({"linux": {"namespaces": [{"type": "pid", "path": "/no/such"}]}})).unwrap();
        assert!(!gone.has_own_pids());
        assert!(gone.open_namespaces().is_err());
    }
}
