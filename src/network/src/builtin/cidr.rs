//! The pod CIDRs that the kubelet sent (CRI `UpdateRuntimeConfig`), remembered, as it sends them only once.

use ipnet::IpNet;

use crate::{BuiltinConfig, NetworkError, files};

/// The subnets in force: those that the kubelet sent, else those of the configuration.
pub(super) fn load(config: &BuiltinConfig) -> Result<Vec<IpNet>, NetworkError> {
    let sent: Option<Vec<IpNet>> = files::read(&config.state_dir.join("pod-cidrs.json"))?;
    Ok(sent.filter(|s| !s.is_empty()).unwrap_or_else(|| config.subnets.clone()))
}

/// Remembers what the kubelet sent.
pub(super) fn save(config: &BuiltinConfig, subnets: &[IpNet]) -> Result<(), NetworkError> {
    files::write(&config.state_dir.join("pod-cidrs.json"), &subnets, true)
}
