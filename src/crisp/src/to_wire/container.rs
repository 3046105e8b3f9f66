//! Containers.

use crisp_model::{
    ContainerConfig, ContainerState, Mount,
    container::{ContainerMetadata, Propagation},
};
use crisp_proto::v1;

use super::id_mappings;

/// Name of a container.
pub fn container_metadata(model: &ContainerMetadata) -> v1::ContainerMetadata {
    v1::ContainerMetadata { name: model.name.clone(), attempt: model.attempt }
}

/// State of a container.
pub fn container_state(model: ContainerState) -> v1::ContainerState {
    match model {
        ContainerState::Created => v1::ContainerState::ContainerCreated,
        ContainerState::Running => v1::ContainerState::ContainerRunning,
        ContainerState::Exited => v1::ContainerState::ContainerExited,
        ContainerState::Unknown => v1::ContainerState::ContainerUnknown,
    }
}

/// The image as the container's configuration named it.
pub fn image_spec(model: &ContainerConfig) -> v1::ImageSpec {
    v1::ImageSpec {
        image: model.image.clone(),
        user_specified_image: model.user_specified_image.clone(),
        ..v1::ImageSpec::default()
    }
}

/// The mounts that were asked for, and no others. Paths of the host are given with their symbolic links resolved
/// where the pod's code has done so.
pub fn mounts(model: &[Mount]) -> Vec<v1::Mount> {
    model.iter().map(mount).collect()
}

fn mount(model: &Mount) -> v1::Mount {
    let propagation = match model.propagation {
        Propagation::Private => v1::MountPropagation::PropagationPrivate,
        Propagation::HostToContainer => v1::MountPropagation::PropagationHostToContainer,
        Propagation::Bidirectional => v1::MountPropagation::PropagationBidirectional,
    };
    v1::Mount {
        container_path: model.container_path.clone(),
        // Paths of the host came in as texts of the wire, so nothing is lost here.
        host_path: model.host_path.to_string_lossy().into_owned(),
        readonly: model.readonly,
        selinux_relabel: model.selinux_relabel,
        propagation: propagation.into(),
        uid_mappings: id_mappings(&model.uid_mappings),
        gid_mappings: id_mappings(&model.gid_mappings),
        recursive_read_only: model.recursive_readonly,
        image: model.image.clone().map(|image| v1::ImageSpec { image, ..v1::ImageSpec::default() }),
        image_sub_path: model.image_sub_path.clone(),
        mount_options: model.mount_options.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::from_wire::{At, container_config};

    #[test]
    fn mounts_come_back_as_they_were_sent() {
        let mapping = v1::IdMapping { host_id: 65536, container_id: 0, length: 65536 };
        let image = v1::ImageSpec { image: "sha256:1".into(), ..Default::default() };
        let wire = vec![
            v1::Mount {
                container_path: "/a".into(),
                host_path: "/srv/a".into(),
                readonly: true,
                recursive_read_only: true,
                selinux_relabel: true,
                uid_mappings: vec![mapping],
                gid_mappings: vec![mapping],
                mount_options: vec!["noexec".into()],
                ..Default::default()
            },
            v1::Mount {
                container_path: "/b".into(),
                host_path: "/srv/b".into(),
                propagation: 2,
                ..Default::default()
            },
            v1::Mount {
                container_path: "/c".into(),
                image: Some(image.clone()),
                image_sub_path: "x".into(),
                readonly: true,
                ..Default::default()
            },
        ];
        let config = v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata { name: "c".into(), attempt: 1 }),
            image: Some(v1::ImageSpec { user_specified_image: "nginx".into(), ..image }),
            mounts: wire.clone(),
            ..Default::default()
        };
        let model = container_config(&At::root("config"), Some(&config)).expect("valid");
        assert_eq!(mounts(&model.mounts), wire);
        assert_eq!(Some(image_spec(&model)), config.image);
        assert_eq!(Some(container_metadata(&model.metadata)), config.metadata);
    }
}
