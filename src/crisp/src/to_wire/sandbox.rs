//! Sandboxes.

use std::net::IpAddr;

use crisp_model::{SandboxState, sandbox::SandboxMetadata, security::NamespaceOptions};
use crisp_proto::v1;

/// Name of a sandbox.
pub fn sandbox_metadata(model: &SandboxMetadata) -> v1::PodSandboxMetadata {
    v1::PodSandboxMetadata {
        name: model.name.clone(),
        uid: model.uid.clone(),
        namespace: model.namespace.clone(),
        attempt: model.attempt,
    }
}

/// State of a sandbox.
pub fn sandbox_state(model: SandboxState) -> v1::PodSandboxState {
    match model {
        SandboxState::Ready => v1::PodSandboxState::SandboxReady,
        SandboxState::NotReady => v1::PodSandboxState::SandboxNotready,
    }
}

/// Addresses of a sandbox, primary first; empty for one on the host's network, as the CRI wants it.
pub fn network_status(ips: &[IpAddr]) -> v1::PodSandboxNetworkStatus {
    let mut texts = ips.iter().map(IpAddr::to_string);
    v1::PodSandboxNetworkStatus {
        ip: texts.next().unwrap_or_default(),
        additional_ips: texts.map(|ip| v1::PodIp { ip }).collect(),
    }
}

/// The Linux part of a sandbox's status.
pub fn linux_status(namespaces: &NamespaceOptions) -> v1::LinuxPodSandboxStatus {
    let options = Some(super::namespace_option(namespaces));
    v1::LinuxPodSandboxStatus { namespaces: Some(v1::Namespace { options }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_address_is_the_primary_one() {
        let ips = ["10.1.0.2", "fd00::2"].map(|ip| ip.parse().expect("address"));
        let status = network_status(&ips);
        assert_eq!(status.ip, "10.1.0.2");
        assert_eq!(status.additional_ips, [v1::PodIp { ip: "fd00::2".into() }]);
        assert_eq!(network_status(&[]), v1::PodSandboxNetworkStatus::default());
    }
}
