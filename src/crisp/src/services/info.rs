//! Version, Status, RuntimeConfig, UpdateRuntimeConfig: what this runtime is and can do here.

use std::collections::HashMap;

use crisp_model::SandboxConfig;
use crisp_proto::v1;
use serde_json::json;
use tonic::Status;

use super::Services;
use crate::from_wire::{self, At, request};

/// The CRI that is spoken.
pub const API_VERSION: &str = "v1";

impl Services {
    pub(super) fn version_info(&self) -> v1::VersionResponse {
        v1::VersionResponse {
            // Of the kubelet's runtime API: a constant of history, which clients compare.
            version: "0.1.0".into(),
            runtime_name: "crisp".into(),
            runtime_version: env!("CARGO_PKG_VERSION").into(),
            runtime_api_version: API_VERSION.into(),
        }
    }

    pub(super) fn status_info(&self, verbose: bool) -> v1::StatusResponse {
        let network = self.network.status();
        let condition = |r#type: &str, status, reason: &str, message: &str| v1::RuntimeCondition {
            r#type: r#type.into(),
            status,
            reason: reason.into(),
            message: message.into(),
        };
        let conditions = vec![
            condition("RuntimeReady", true, "", ""),
            condition("NetworkReady", network.ready, &network.reason, &network.message),
        ];
        v1::StatusResponse {
            status: Some(v1::RuntimeStatus { conditions }),
            info: if verbose { self.status_details() } else { HashMap::new() },
            runtime_handlers: self.handlers(),
            features: Some(v1::RuntimeFeatures {
                supplemental_groups_policy: true,
                user_namespaces_host_network: self.host.user_namespaces(),
                mount_options: true,
            }),
        }
    }

    /// The handlers by name, the default one under "" too.
    fn handlers(&self) -> Vec<v1::RuntimeHandler> {
        let features = v1::RuntimeHandlerFeatures {
            recursive_read_only_mounts: self.host.recursive_readonly(),
            user_namespaces: self.host.user_namespaces(),
        };
        let names = std::iter::once("").chain(self.config.handler_names());
        names.map(|name| v1::RuntimeHandler { name: name.into(), features: Some(features) }).collect()
    }

    /// Refuses a handler that is not configured, and what a configured one forbids.
    pub(super) fn known_handler(&self, sandbox: &SandboxConfig) -> Result<(), Status> {
        let name = &sandbox.runtime_handler;
        if name.is_empty() {
            return Ok(());
        }
        if let Some(handler) = self.config.runtime.handlers.get(name) {
            return Ok(from_wire::handler::allows(&At::root("config"), handler, sandbox)?);
        }
        let known: Vec<&str> = self.config.handler_names().collect();
        let text = format!("runtime_handler: {name:?} is not configured (there are: {})", known.join(", "));
        Err(Status::invalid_argument(text))
    }

    fn status_details(&self) -> HashMap<String, String> {
        let network = self.network.status();
        let config = json!({
            "rootDir": self.config.root,
            "stateDir": self.config.state,
            "socket": self.config.socket,
        });
        let details = [
            ("config", config),
            ("host", serde_json::to_value(&*self.host).unwrap_or_default()),
            ("network", json!({"kind": network.kind, "ready": network.ready, "message": network.message})),
        ];
        details.into_iter().map(|(key, value)| (key.to_owned(), value.to_string())).collect()
    }

    pub(super) fn runtime_config_info(&self) -> v1::RuntimeConfigResponse {
        let driver = match self.pods.context().config.systemd_cgroup {
            true => v1::CgroupDriver::Systemd,
            false => v1::CgroupDriver::Cgroupfs,
        };
        v1::RuntimeConfigResponse {
            linux: Some(v1::LinuxRuntimeConfiguration { cgroup_driver: driver.into() }),
        }
    }

    pub(super) async fn set_pod_cidrs(&self, wire: Option<&v1::RuntimeConfig>) -> Result<(), Status> {
        let cidrs = request::pod_cidrs(wire)?;
        if !cidrs.is_empty() {
            let set = self.network.set_pod_cidr(&cidrs).await;
            set.map_err(|e| {
                Status::invalid_argument(format!("runtime_config.network_config.pod_cidr: {e}"))
            })?;
        }
        Ok(())
    }
}
