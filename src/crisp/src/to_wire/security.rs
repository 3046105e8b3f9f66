//! Namespaces, mappings and users.

use crisp_model::security::{IdMapping, NamespaceMode, NamespaceOptions};
use crisp_proto::v1;

/// Namespaces of a pod or container.
pub fn namespace_option(model: &NamespaceOptions) -> v1::NamespaceOption {
    let target_id = match &model.pid {
        NamespaceMode::Target(id) => id.to_string(),
        _ => String::new(),
    };
    v1::NamespaceOption {
        network: mode(&model.network).into(),
        pid: mode(&model.pid).into(),
        ipc: mode(&model.ipc).into(),
        target_id,
        userns_options: model.user.as_ref().map(|user| v1::UserNamespace {
            mode: v1::NamespaceMode::Pod.into(),
            uids: id_mappings(&user.uids),
            gids: id_mappings(&user.gids),
        }),
    }
}

fn mode(model: &NamespaceMode) -> v1::NamespaceMode {
    match model {
        NamespaceMode::Pod => v1::NamespaceMode::Pod,
        NamespaceMode::Container => v1::NamespaceMode::Container,
        NamespaceMode::Node => v1::NamespaceMode::Node,
        NamespaceMode::Target(_) => v1::NamespaceMode::Target,
    }
}

/// Id mappings of a user namespace or of a mount.
pub fn id_mappings(model: &[IdMapping]) -> Vec<v1::IdMapping> {
    let one =
        |m: &IdMapping| v1::IdMapping { host_id: m.host_id, container_id: m.container_id, length: m.length };
    model.iter().map(one).collect()
}

/// The user that a container's first process was started as.
pub fn container_user(uid: u32, gid: u32, groups: &[u32]) -> v1::ContainerUser {
    let supplemental_groups = groups.iter().copied().map(i64::from).collect();
    let linux = v1::LinuxContainerUser { uid: uid.into(), gid: gid.into(), supplemental_groups };
    v1::ContainerUser { linux: Some(linux) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::from_wire::{At, container_config};

    #[test]
    fn namespaces_come_back_as_they_were_sent() {
        let mapping = v1::IdMapping { host_id: 65536, container_id: 0, length: 65536 };
        let user = v1::UserNamespace { mode: 0, uids: vec![mapping], gids: vec![mapping] };
        for wire in [
            v1::NamespaceOption::default(),
            v1::NamespaceOption { network: 2, pid: 1, ipc: 2, ..Default::default() },
            v1::NamespaceOption { pid: 3, target_id: "a".repeat(64), ..Default::default() },
            v1::NamespaceOption { network: 2, userns_options: Some(user), ..Default::default() },
        ] {
            let security_context = Some(v1::LinuxContainerSecurityContext {
                namespace_options: Some(wire.clone()),
                ..Default::default()
            });
            let config = v1::ContainerConfig {
                metadata: Some(v1::ContainerMetadata { name: "c".into(), attempt: 0 }),
                image: Some(v1::ImageSpec { image: "i".into(), ..Default::default() }),
                linux: Some(v1::LinuxContainerConfig { security_context, ..Default::default() }),
                ..Default::default()
            };
            let model = container_config(&At::root("config"), Some(&config)).expect("valid");
            assert_eq!(namespace_option(&model.security.namespaces), wire);
        }
    }

    #[test]
    fn users_have_their_groups() {
        let user = container_user(1000, 1001, &[7]).linux.expect("linux");
        assert_eq!((user.uid, user.gid, user.supplemental_groups), (1000, 1001, vec![7]));
    }
}
