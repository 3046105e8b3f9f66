//! From the one configuration to the settings of each part.

use std::time::Duration;

use crisp_host::probe::Host;
use crisp_image::ImageStoreConfig;
use crisp_network::{BuiltinConfig, Deadlines, NetworkConfig};
use crisp_stream::{StreamConfig, Tls, TlsError};

use crate::config::{CgroupDriver, Config};

/// Longer than any pull, and still a time that can be added to the clock.
const NEVER: Duration = Duration::from_secs(u32::MAX as u64);

impl Config {
    /// Settings of the image store.
    pub fn image_store(&self) -> ImageStoreConfig {
        let image = &self.image;
        ImageStoreConfig {
            root: self.root.join("images"),
            containers_root: self.root.join("containers"),
            certs_dirs: image.certs_dirs.clone(),
            pinned: image.pinned.clone(),
            max_concurrent_downloads: image.max_concurrent_downloads as usize,
            // Zero is the configuration's "never".
            pull_progress_timeout: match image.pull_progress_timeout.0 {
                Duration::ZERO => NEVER,
                limit => limit,
            },
            docker_config: image.docker_config.clone(),
            ..ImageStoreConfig::default()
        }
    }

    /// Settings of the pod network.
    pub fn pod_network(&self) -> NetworkConfig {
        let network = &self.network;
        NetworkConfig {
            cni_conf_dir: network.cni_conf_dir.clone(),
            cni_bin_dirs: network.cni_bin_dirs.clone(),
            cni_cache_dir: self.root.join("cni"),
            builtin: BuiltinConfig {
                enabled: network.builtin.enabled,
                bridge: network.builtin.bridge.clone(),
                subnets: network.builtin.subnets.clone(),
                state_dir: self.state.join("network"),
                mtu: network.builtin.mtu,
                masquerade: network.builtin.masquerade,
                firewall: network.builtin.firewall,
            },
            deadlines: Deadlines {
                add_seconds: network.add_timeout.0.as_secs(),
                del_seconds: network.del_timeout.0.as_secs(),
                ..Deadlines::default()
            },
        }
    }

    /// Settings of the stream server.
    pub fn stream_server(&self) -> Result<StreamConfig, TlsError> {
        let stream = &self.stream;
        let tls = match (&stream.tls_cert, &stream.tls_key) {
            (Some(certificate), Some(key)) => Some(Tls::from_files(certificate, key)?),
            _ => None,
        };
        Ok(StreamConfig {
            address: (stream.address, stream.port).into(),
            tls,
            token_life: stream.token_life.0,
            creation_timeout: stream.creation_timeout.0,
            idle_timeout: stream.idle_timeout.0,
            stall_timeout: stream.stall_timeout.0,
        })
    }

    /// Names of the runtime handlers beside the default one.
    pub fn handler_names(&self) -> impl Iterator<Item = &str> {
        self.runtime.handlers.keys().map(String::as_str)
    }

    /// Whether systemd makes the cgroups. `auto` is decided by what runs the host.
    pub fn systemd_cgroup(&self, host: &Host) -> bool {
        match self.cgroup.driver {
            CgroupDriver::Systemd => true,
            CgroupDriver::Cgroupfs => false,
            CgroupDriver::Auto => host.cgroup_driver == crisp_host::probe::CgroupDriver::Systemd,
        }
    }
}
