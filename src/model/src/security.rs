//! Namespaces, users, capabilities and profiles as the CRI names them.

use serde::{Deserialize, Serialize};

use crate::id::ContainerId;

/// Where a namespace comes from (CRI `NamespaceMode`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NamespaceMode {
    /// The pod's, owned by the infra container.
    #[default]
    Pod,
    /// One of the container's own (only for pid).
    Container,
    /// The host's.
    Node,
    /// That of another container of the pod (only for pid; ephemeral containers).
    Target(ContainerId),
}

/// A range of ids of a user namespace (`user_namespaces(7)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMapping {
    /// First id outside.
    pub host_id: u32,
    /// First id inside.
    pub container_id: u32,
    /// How many.
    pub length: u32,
}

/// A user namespace of the pod's own. `None` in [`NamespaceOptions::user`] means the host's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserNamespace {
    /// User ids.
    pub uids: Vec<IdMapping>,
    /// Group ids.
    pub gids: Vec<IdMapping>,
}

/// The namespaces of a pod or container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NamespaceOptions {
    /// `Pod` or `Node`.
    pub network: NamespaceMode,
    /// Any. The CRI's zero value is `Pod`.
    pub pid: NamespaceMode,
    /// `Pod` or `Node`.
    pub ipc: NamespaceMode,
    /// The pod's user namespace, if it has one.
    pub user: Option<UserNamespace>,
}

/// Which profile of a security module (seccomp, AppArmor) holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// None.
    #[default]
    Unconfined,
    /// The one that crisp ships.
    RuntimeDefault,
    /// A file (seccomp, absolute path) or the name of a loaded profile (AppArmor).
    Localhost(String),
}

/// SELinux label parts. Empty ones are filled from the runtime's defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SelinuxOptions {
    /// SELinux user.
    pub user: String,
    /// SELinux role.
    pub role: String,
    /// SELinux type.
    pub kind: String,
    /// MLS level and categories.
    pub level: String,
}

/// How the groups of the image and of the request add up (KEP-3619).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SupplementalGroupsPolicy {
    /// Groups of the image's `/etc/group` are added to those asked for.
    #[default]
    Merge,
    /// Only those asked for.
    Strict,
}

/// Capabilities relative to the runtime's default set; names without `CAP_`, upper case, or `ALL`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// Added to the bounding, effective and permitted sets.
    pub add: Vec<String>,
    /// Taken away.
    pub drop: Vec<String>,
    /// Also made ambient and inheritable.
    pub add_ambient: Vec<String>,
}

/// Security settings of a container (or of a sandbox, which uses a part of them).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SecurityContext {
    /// All devices, all capabilities, no profiles, nothing masked.
    pub privileged: bool,
    /// Namespaces.
    pub namespaces: NamespaceOptions,
    /// Capabilities to add and drop.
    pub capabilities: Capabilities,
    /// SELinux label.
    pub selinux: Option<SelinuxOptions>,
    /// Numeric user.
    pub run_as_user: Option<u32>,
    /// Numeric group; needs a user.
    pub run_as_group: Option<u32>,
    /// User by name, looked up in the image.
    pub run_as_username: Option<String>,
    /// The root file system cannot be written to.
    pub readonly_rootfs: bool,
    /// More groups.
    pub supplemental_groups: Vec<u32>,
    /// How they combine with the image's.
    pub supplemental_groups_policy: SupplementalGroupsPolicy,
    /// `no_new_privs`.
    pub no_new_privs: bool,
    /// Paths hidden from the container.
    pub masked_paths: Vec<String>,
    /// Paths it may only read.
    pub readonly_paths: Vec<String>,
    /// System call filter.
    pub seccomp: Profile,
    /// AppArmor profile; `None`: not mentioned in the request.
    pub apparmor: Option<Profile>,
}
