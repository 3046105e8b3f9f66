//! The configuration: one table of keys ([`schema`]), four sources, and where each value came from.
//!
//! ```text
//!   defaults  <  config.toml  <  conf.d/*.toml (by name)  <  environment CRISP_...  <  flags
//! ```
//!
//! Parsing reads files and changes nothing. An unknown key or a wrong value is an error that names the source and
//! the key, and the daemon does not start (exit code 64); nothing is guessed. The environment is read once, here.
//! Every other crate gets plain settings of its own, made from [`Config`] by the wiring.

pub mod error;
pub mod load;
pub mod print;
pub mod schema;
pub mod units;
mod value;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use crisp_network::FirewallChoice;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use error::ConfigError;
pub use load::{Loaded, Origin, Sources};
pub use units::{Size, Span};

/// Where the configuration is unless `--config` or `CRISP_CONFIG` says otherwise. It need not exist.
pub const DEFAULT_FILE: &str = "/etc/crisp/config.toml";

/// All settings. Their meaning and defaults are in [`schema::KEYS`], which `crisp config --defaults` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What survives a reboot: images, records of pods and containers.
    pub root: PathBuf,
    /// What dies with the boot: sockets, namespaces, mounts.
    pub state: PathBuf,
    /// The CRI socket.
    pub socket: PathBuf,
    /// The monitor's binary; `None`: beside the daemon's own.
    #[serde(with = "value::optional_path")]
    pub monitor: Option<PathBuf>,
    /// Bytes of each output stream that ExecSync keeps.
    pub exec_sync_output_limit: Size,
    /// How long running requests may go on after SIGTERM.
    pub drain_timeout: Span,
    /// Images.
    pub image: ImageSettings,
    /// Pod networks.
    pub network: NetworkSettings,
    /// The server of exec, attach and port-forward.
    pub stream: StreamSettings,
    /// Control groups.
    pub cgroup: CgroupSettings,
    /// Runtime handlers.
    pub runtime: RuntimeSettings,
    /// Security modules.
    pub security: SecuritySettings,
    /// crisp's own metrics.
    pub metrics: MetricsSettings,
    /// Logs of the daemon.
    pub log: LogSettings,
    /// Traces of operations.
    pub trace: TraceSettings,
}

/// `[image]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageSettings {
    /// Folders with a `hosts.toml` and certificates for each registry, searched in order.
    pub certs_dirs: Vec<PathBuf>,
    /// Names of images that nobody may remove for want of space.
    pub pinned: Vec<String>,
    /// Layers that are downloaded and unpacked at the same time.
    pub max_concurrent_downloads: u32,
    /// A pull without a byte for so long fails; zero: never.
    pub pull_progress_timeout: Span,
    /// A Docker `config.json` with credentials for requests that bring none.
    #[serde(with = "value::optional_path")]
    pub docker_config: Option<PathBuf>,
    /// Archives in this folder are imported at start.
    #[serde(with = "value::optional_path")]
    pub import_dir: Option<PathBuf>,
}

/// `[network]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSettings {
    /// Folder with CNI configuration.
    pub cni_conf_dir: PathBuf,
    /// Folders with CNI plugins, searched in order.
    pub cni_bin_dirs: Vec<PathBuf>,
    /// How long a plugin may take to add a pod.
    pub add_timeout: Span,
    /// How long a plugin may take to take a pod away.
    pub del_timeout: Span,
    /// The network for a host without CNI configuration.
    pub builtin: BuiltinNetwork,
}

/// `[network.builtin]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuiltinNetwork {
    /// Whether it is used.
    pub enabled: bool,
    /// Name of the bridge.
    pub bridge: String,
    /// At most one subnet of each family.
    pub subnets: Vec<IpNet>,
    /// Largest packet; 0: the kernel's choice.
    pub mtu: u32,
    /// Whether packets that leave the host carry its address.
    pub masquerade: bool,
    /// What does host ports and masquerading.
    pub firewall: FirewallChoice,
}

/// `[stream]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamSettings {
    /// Address to listen on.
    pub address: IpAddr,
    /// Port; 0: a free one.
    pub port: u16,
    /// Certificate (PEM); with `tls_key`, or neither.
    #[serde(with = "value::optional_path")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key.
    #[serde(with = "value::optional_path")]
    pub tls_key: Option<PathBuf>,
    /// A stream on which nothing moves for so long is closed.
    pub idle_timeout: Span,
    /// How long a client may take to open its streams.
    pub creation_timeout: Span,
    /// How long a forwarded connection whose pod takes nothing may hold up the others of its session.
    pub stall_timeout: Span,
    /// How long an address that was handed out is valid.
    pub token_life: Span,
}

/// Who makes cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupDriver {
    /// systemd if it is the host's init, else the runtime itself.
    Auto,
    /// The runtime itself.
    Cgroupfs,
    /// systemd; parents are slices.
    Systemd,
}

/// `[cgroup]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CgroupSettings {
    /// Driver.
    pub driver: CgroupDriver,
    /// Parent of pods that name none.
    pub default_parent: String,
}

/// `[runtime]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuntimeSettings {
    /// Handlers beside the default one, by name.
    pub handlers: BTreeMap<String, Handler>,
}

/// `[runtime.handlers.NAME]`: what pods with this handler (a RuntimeClass' `handler`) may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Handler {
    /// Privileged pods are allowed.
    pub allow_privileged: bool,
    /// Pods with namespaces of the host are allowed.
    pub allow_host_namespaces: bool,
}

/// `[security]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecuritySettings {
    /// Processes and files of containers get SELinux labels, where the host has SELinux.
    pub selinux: bool,
}

/// `[metrics]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsSettings {
    /// Where they are served; `None`: nowhere.
    #[serde(with = "value::optional_address")]
    pub address: Option<SocketAddr>,
}

/// Form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSettings {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,crisp_image=debug`.
    pub level: String,
    /// Form.
    pub format: LogFormat,
}

/// `[trace]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceSettings {
    /// Spans of operations are appended to this file as JSON lines; `None`: no traces.
    #[serde(with = "value::optional_path")]
    pub file: Option<PathBuf>,
}

impl Config {
    /// The monitor's binary: the configured one, or `crisp-monitor` beside `daemon`.
    pub fn monitor_path(&self, daemon: &Path) -> PathBuf {
        self.monitor.clone().unwrap_or_else(|| daemon.with_file_name("crisp-monitor"))
    }
}

#[cfg(test)]
mod tests;
