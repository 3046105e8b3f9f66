//! SELinux labels of pods and containers, from what the policy says of containers and what the request asks for.
//!
//! A label is `user:role:type`, with `:level` where the policy has levels (MCS). A pod has one level of its own, two categories that no
//! other pod has, so that its processes reach its files only. Processes that share the host's pid or IPC namespace and privileged
//! ones run as [`UNCONFINED`] without categories.

use std::{fmt, str::FromStr};

use crisp_model::security::{NamespaceMode, SecurityContext, SelinuxOptions};
use serde::{Deserialize, Serialize};

/// Type of processes that nothing confines: privileged, or of the host's namespaces (container_selinux(8)).
pub const UNCONFINED: &str = "spc_t";

/// A label, in its parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label {
    /// SELinux user.
    pub user: String,
    /// Role.
    pub role: String,
    /// Type.
    pub kind: String,
    /// Level: sensitivity and categories; `None`: the policy has none.
    pub level: Option<String>,
}

/// A text is no label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no SELinux label, which is user:role:type or user:role:type:level")]
pub struct NoLabel(String);

impl FromStr for Label {
    type Err = NoLabel;

    fn from_str(text: &str) -> Result<Self, NoLabel> {
        // A level has colons of its own.
        let mut parts = text.splitn(4, ':').map(str::to_owned);
        let (user, role, kind, level) = (parts.next(), parts.next(), parts.next(), parts.next());
        match (user, role, kind) {
            (Some(user), Some(role), Some(kind))
                if ![&user, &role, &kind].into_iter().chain(&level).any(String::is_empty) =>
            {
                Ok(Self { user, role, kind, level })
            }
            _ => Err(NoLabel(text.to_owned())),
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.user, self.role, self.kind)?;
        self.level.iter().try_for_each(|level| write!(f, ":{level}"))
    }
}

impl TryFrom<String> for Label {
    type Error = NoLabel;

    fn try_from(text: String) -> Result<Self, NoLabel> {
        text.parse()
    }
}

impl From<Label> for String {
    fn from(label: Label) -> Self {
        label.to_string()
    }
}

/// The labels of a pod or container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labels {
    /// Of its processes.
    pub process: Label,
    /// Of its files and mounts.
    pub mount: Label,
}

/// The policy's file of container labels cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A key is not there.
    #[error("it has no {0:?}")]
    Missing(&'static str),
    /// A value is none.
    #[error(transparent)]
    Label(#[from] NoLabel),
}

impl Labels {
    /// The policy's defaults: `process` and `file` of its `lxc_contexts`, lines of `key = "label"` with comments after `#`.
    pub fn parse_defaults(text: &str) -> Result<Self, PolicyError> {
        let value = |wanted: &'static str| {
            let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
            let mut pairs = lines.filter_map(|line| line.split_once('='));
            let found = pairs.find(|(key, _)| key.trim() == wanted);
            let (_, value) = found.ok_or(PolicyError::Missing(wanted))?;
            Ok::<Label, PolicyError>(value.trim().trim_matches(['"', '\'']).parse()?)
        };
        Ok(Self { process: value("process")?, mount: value("file")? })
    }

    /// The pod's labels, made of the policy's. `level` is asked for a level if the policy has levels and the request names none.
    pub fn of_pod<E>(
        &self,
        security: &SecurityContext,
        level: impl FnOnce(&str) -> Result<String, E>,
    ) -> Result<Self, E> {
        let asked = security.selinux.clone().unwrap_or_default();
        let mut labels = self.with(&asked);
        if let (Some(policy), true) = (&self.process.level, asked.level.is_empty()) {
            let level = level(sensitivity(policy))?;
            labels.process.level = Some(level.clone());
            labels.mount.level = Some(level);
        }
        Ok(labels)
    }

    /// Labels of a container in the pod whose labels these are. What it asks for counts, then what the pod asked for.
    pub fn of_container(&self, pod: &SecurityContext, container: &SecurityContext) -> Self {
        let asked = container.selinux.clone().unwrap_or_default();
        let mut labels = self.with(&asked);
        let host = |s: &SecurityContext| {
            s.namespaces.pid == NamespaceMode::Node || s.namespaces.ipc == NamespaceMode::Node
        };
        let typed = |s: &SecurityContext| s.selinux.as_ref().is_some_and(|o| !o.kind.is_empty());
        let unconfined = container.privileged || host(pod) || host(container);
        if unconfined && !typed(pod) && !typed(container) {
            labels.process.kind = UNCONFINED.into();
            if asked.level.is_empty() {
                labels.process.level = labels.process.level.map(|level| sensitivity(&level).to_owned());
            }
        }
        labels
    }

    /// Files have the policy's role and type, whatever the process has.
    fn with(&self, asked: &SelinuxOptions) -> Self {
        let mut labels = self.clone();
        let part = |part: &str| (!part.is_empty()).then(|| part.to_owned());
        if let Some(user) = part(&asked.user) {
            labels.process.user.clone_from(&user);
            labels.mount.user = user;
        }
        if let Some(role) = part(&asked.role) {
            labels.process.role = role;
        }
        if let Some(kind) = part(&asked.kind) {
            labels.process.kind = kind;
        }
        if let Some(level) = part(&asked.level) {
            labels.process.level = Some(level.clone());
            labels.mount.level = Some(level);
        }
        labels
    }
}

/// The level without its categories, and of a range the lower end.
fn sensitivity(level: &str) -> &str {
    level.split([':', '-']).next().unwrap_or(level)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILE: &str = r#"
# labels of containers
process = "system_u:system_r:container_t:s0"
 file="system_u:object_r:container_file_t:s0"
ro_file = 'system_u:object_r:container_ro_file_t:s0'
#process = "a:b:c"
"#;

    fn options(user: &str, role: &str, kind: &str, level: &str) -> SecurityContext {
        let [user, role, kind, level] = [user, role, kind, level].map(str::to_owned);
        SecurityContext { selinux: Some(SelinuxOptions { user, role, kind, level }), ..Default::default() }
    }

    fn texts(labels: &Labels) -> (String, String) {
        (labels.process.to_string(), labels.mount.to_string())
    }

    fn pod(policy: &Labels, security: &SecurityContext) -> Labels {
        let own = |sensitivity: &str| Ok::<_, ()>(format!("{sensitivity}:c1,c2"));
        policy.of_pod(security, own).expect("a level")
    }

    #[test]
    fn defaults_are_read() {
        let policy = Labels::parse_defaults(FILE).expect("labels");
        let expected = ("system_u:system_r:container_t:s0", "system_u:object_r:container_file_t:s0");
        assert_eq!(texts(&policy), (expected.0.into(), expected.1.into()));
        assert_eq!(Labels::parse_defaults("file = \"a:b:c\""), Err(PolicyError::Missing("process")));
        assert_eq!(Labels::parse_defaults("process = \"a:b:c\""), Err(PolicyError::Missing("file")));
        for wrong in ["a:b", "", "a::c", "a:b:c:"] {
            let text = format!("process = \"{wrong}\"\nfile = \"a:b:c\"");
            assert_eq!(Labels::parse_defaults(&text), Err(NoLabel(wrong.into()).into()));
        }
    }

    #[test]
    fn a_pod_has_a_level_of_its_own_or_the_one_it_asked_for() {
        let policy = Labels::parse_defaults(FILE).expect("labels");
        for (security, process, mount) in [
            (
                SecurityContext::default(),
                "system_u:system_r:container_t:s0:c1,c2",
                "system_u:object_r:container_file_t:s0:c1,c2",
            ),
            (options("u", "r", "t", "s0:c7"), "u:r:t:s0:c7", "u:object_r:container_file_t:s0:c7"),
            (
                options("", "", "init_t", ""),
                "system_u:system_r:init_t:s0:c1,c2",
                "system_u:object_r:container_file_t:s0:c1,c2",
            ),
        ] {
            assert_eq!(texts(&pod(&policy, &security)), (process.into(), mount.into()));
        }
        let flat = Labels::parse_defaults("process = \"a:b:c\"\nfile = \"a:o:f\"").expect("labels");
        let never = |_: &str| Err::<String, _>("a policy without levels has no pairs");
        let labels = flat.of_pod(&SecurityContext::default(), never).expect("no level is asked for");
        assert_eq!(texts(&labels), ("a:b:c".into(), "a:o:f".into()));
    }

    #[test]
    fn a_container_has_its_own_label_or_its_pod_s() {
        let policy = Labels::parse_defaults(FILE).expect("labels");
        let plain = SecurityContext::default();
        let host = |pid, ipc| {
            let mut security = SecurityContext::default();
            (security.namespaces.pid, security.namespaces.ipc) = (pid, ipc);
            security
        };
        let privileged =
            |security: &SecurityContext| SecurityContext { privileged: true, ..security.clone() };
        let (own, node) = (NamespaceMode::Container, NamespaceMode::Node);
        let (shared, ours) = ("container_file_t:s0:c1,c2", "system_u:system_r:container_t:s0:c1,c2");
        let spc = "system_u:system_r:spc_t:s0";
        let typed = options("", "", "my_t", "");
        for (of_pod, of_container, process, mount) in [
            (&plain, &plain, ours, shared),
            (&privileged(&plain), &plain, ours, shared),
            (&privileged(&plain), &privileged(&plain), spc, shared),
            (&host(node.clone(), NamespaceMode::Pod), &plain, spc, shared),
            (&host(own.clone(), node), &plain, spc, shared),
            (&plain, &typed, "system_u:system_r:my_t:s0:c1,c2", shared),
            (&typed, &plain, "system_u:system_r:my_t:s0:c1,c2", shared),
            (&typed, &privileged(&plain), "system_u:system_r:my_t:s0:c1,c2", shared),
            (&plain, &privileged(&typed), "system_u:system_r:my_t:s0:c1,c2", shared),
            (
                &plain,
                &options("", "", "", "s0:c9"),
                "system_u:system_r:container_t:s0:c9",
                "container_file_t:s0:c9",
            ),
            (
                &plain,
                &privileged(&options("", "", "", "s0:c9")),
                "system_u:system_r:spc_t:s0:c9",
                "container_file_t:s0:c9",
            ),
        ] {
            let labels = pod(&policy, of_pod).of_container(of_pod, of_container);
            assert_eq!(texts(&labels), (process.into(), format!("system_u:object_r:{mount}")));
        }
    }

    proptest! {
        #[test]
        fn a_label_is_what_it_prints(text in "[a-z:,0-9.-]{0,40}") {
            match text.parse::<Label>() {
                Ok(label) => prop_assert_eq!(label.to_string(), text),
                Err(error) => prop_assert_eq!(error, NoLabel(text)),
            }
        }
    }
}
