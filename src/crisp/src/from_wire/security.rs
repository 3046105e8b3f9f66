//! Security contexts of sandboxes and containers.

use crisp_model::security::{Capabilities, SecurityContext, SelinuxOptions, SupplementalGroupsPolicy};
use crisp_proto::v1;

use super::{
    error::{At, Invalid, Shown},
    namespaces::{Owner, namespaces},
    profile, text,
};

/// Most supplementary groups (`NGROUPS_MAX`).
const GROUPS_MAX: usize = 65_536;

/// Capabilities of Linux 5.9 and later, without `CAP_`. Newer kernels have no others yet.
const CAPABILITIES: [&str; 41] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

/// Checks a sandbox's context; an absent one is the default one.
pub fn of_sandbox(
    at: &At<'_>,
    wire: Option<&v1::LinuxSandboxSecurityContext>,
) -> Result<SecurityContext, Invalid> {
    let Some(wire) = wire else { return Ok(SecurityContext::default()) };
    let run_as_user = user_id(&at.field("run_as_user"), wire.run_as_user)?;
    let run_as_group = user_id(&at.field("run_as_group"), wire.run_as_group)?;
    group_needs_user(at, run_as_group, run_as_user.is_some())?;
    Ok(SecurityContext {
        privileged: wire.privileged,
        namespaces: namespaces(
            &at.field("namespace_options"),
            wire.namespace_options.as_ref(),
            Owner::Sandbox,
        )?,
        selinux: selinux(&at.field("selinux_options"), wire.selinux_options.as_ref())?,
        run_as_user,
        run_as_group,
        readonly_rootfs: wire.readonly_rootfs,
        supplemental_groups: groups(&at.field("supplemental_groups"), &wire.supplemental_groups)?,
        supplemental_groups_policy: policy(at, wire.supplemental_groups_policy)?,
        seccomp: profile::seccomp(at, wire.seccomp.as_ref(), &wire.seccomp_profile_path)?,
        apparmor: profile::apparmor(at, wire.apparmor.as_ref(), "")?,
        ..SecurityContext::default()
    })
}

/// Checks a container's context; an absent one is the default one.
pub fn of_container(
    at: &At<'_>,
    wire: Option<&v1::LinuxContainerSecurityContext>,
) -> Result<SecurityContext, Invalid> {
    let Some(wire) = wire else { return Ok(SecurityContext::default()) };
    let run_as_user = user_id(&at.field("run_as_user"), wire.run_as_user)?;
    let run_as_group = user_id(&at.field("run_as_group"), wire.run_as_group)?;
    let run_as_username = username(&at.field("run_as_username"), &wire.run_as_username)?;
    if run_as_user.is_some() && run_as_username.is_some() {
        return Err(at
            .field("run_as_username")
            .invalid("is set beside run_as_user; only one of them may be"));
    }
    group_needs_user(at, run_as_group, run_as_user.is_some() || run_as_username.is_some())?;
    Ok(SecurityContext {
        privileged: wire.privileged,
        namespaces: namespaces(
            &at.field("namespace_options"),
            wire.namespace_options.as_ref(),
            Owner::Container,
        )?,
        capabilities: capabilities(&at.field("capabilities"), wire.capabilities.as_ref())?,
        selinux: selinux(&at.field("selinux_options"), wire.selinux_options.as_ref())?,
        run_as_user,
        run_as_group,
        run_as_username,
        readonly_rootfs: wire.readonly_rootfs,
        supplemental_groups: groups(&at.field("supplemental_groups"), &wire.supplemental_groups)?,
        supplemental_groups_policy: policy(at, wire.supplemental_groups_policy)?,
        no_new_privs: wire.no_new_privs,
        masked_paths: paths(&at.field("masked_paths"), &wire.masked_paths)?,
        readonly_paths: paths(&at.field("readonly_paths"), &wire.readonly_paths)?,
        seccomp: profile::seccomp(at, wire.seccomp.as_ref(), &wire.seccomp_profile_path)?,
        apparmor: profile::apparmor(at, wire.apparmor.as_ref(), &wire.apparmor_profile)?,
    })
}

fn group_needs_user(at: &At<'_>, group: Option<u32>, user: bool) -> Result<(), Invalid> {
    if group.is_some() && !user {
        let at = at.field("run_as_group");
        return Err(at.invalid("is set without a user").hint("set run_as_user as well"));
    }
    Ok(())
}

/// A user or group number. The last one, 2^32-1, means "unchanged" to the kernel.
fn id(at: &At<'_>, value: i64) -> Result<u32, Invalid> {
    match u32::try_from(value) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err(at.invalid(format!("{value} is not between 0 and {}", u32::MAX - 1))),
    }
}

fn user_id(at: &At<'_>, wire: Option<v1::Int64Value>) -> Result<Option<u32>, Invalid> {
    wire.map(|wire| id(at, wire.value)).transpose()
}

fn username(at: &At<'_>, name: &str) -> Result<Option<String>, Invalid> {
    if name.is_empty() {
        return Ok(None);
    }
    if name.contains(':') || name.chars().any(char::is_control) {
        return Err(at.invalid(format!("{} is not a user name", Shown(name))));
    }
    Ok(Some(name.to_owned()))
}

fn groups(at: &At<'_>, list: &[i64]) -> Result<Vec<u32>, Invalid> {
    if list.len() > GROUPS_MAX {
        return Err(at.invalid(format!("has {} groups; the kernel takes {GROUPS_MAX}", list.len())));
    }
    list.iter().enumerate().map(|(i, group)| id(&at.index(i), *group)).collect()
}

fn policy(at: &At<'_>, value: i32) -> Result<SupplementalGroupsPolicy, Invalid> {
    match v1::SupplementalGroupsPolicy::try_from(value) {
        Ok(v1::SupplementalGroupsPolicy::Merge) => Ok(SupplementalGroupsPolicy::Merge),
        Ok(v1::SupplementalGroupsPolicy::Strict) => Ok(SupplementalGroupsPolicy::Strict),
        Err(_) => {
            let at = at.field("supplemental_groups_policy");
            Err(at.invalid(format!("{value} is not a SupplementalGroupsPolicy")))
        }
    }
}

fn capabilities(at: &At<'_>, wire: Option<&v1::Capability>) -> Result<Capabilities, Invalid> {
    let Some(wire) = wire else { return Ok(Capabilities::default()) };
    let list = |at: At<'_>, list: &[String]| -> Result<Vec<String>, Invalid> {
        list.iter().enumerate().map(|(i, name)| capability(&at.index(i), name)).collect()
    };
    Ok(Capabilities {
        add: list(at.field("add_capabilities"), &wire.add_capabilities)?,
        drop: list(at.field("drop_capabilities"), &wire.drop_capabilities)?,
        add_ambient: list(at.field("add_ambient_capabilities"), &wire.add_ambient_capabilities)?,
    })
}

fn capability(at: &At<'_>, given: &str) -> Result<String, Invalid> {
    let upper = given.to_ascii_uppercase();
    let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if name == "ALL" || CAPABILITIES.binary_search(&name).is_ok() {
        Ok(name.to_owned())
    } else {
        Err(at.invalid(format!("{} is not a capability", Shown(given))))
    }
}

fn selinux(at: &At<'_>, wire: Option<&v1::SeLinuxOption>) -> Result<Option<SelinuxOptions>, Invalid> {
    let Some(wire) = wire else { return Ok(None) };
    let parts = [("user", &wire.user), ("role", &wire.role), ("type", &wire.r#type), ("level", &wire.level)];
    if parts.iter().all(|(_, part)| part.is_empty()) {
        return Ok(None);
    }
    for (name, part) in parts {
        let colons = name == "level";
        let plain = |c: char| c.is_ascii_graphic() && (colons || c != ':');
        if !part.chars().all(plain) {
            return Err(at
                .field(name)
                .invalid(format!("{} cannot be part of an SELinux label", Shown(part))));
        }
    }
    Ok(Some(SelinuxOptions {
        user: wire.user.clone(),
        role: wire.role.clone(),
        kind: wire.r#type.clone(),
        level: wire.level.clone(),
    }))
}

fn paths(at: &At<'_>, list: &[String]) -> Result<Vec<String>, Invalid> {
    list.iter().enumerate().map(|(i, path)| text::container_path(&at.index(i), path)).collect()
}

#[cfg(test)]
mod tests;
