//! Pod networks: CNI plugins, or the built-in bridge on a host without CNI configuration.
//!
//! Pods with the host's network never come here. Everything is given back from records alone: [`Network::detach`]
//! needs neither the configuration nor the pod, and after a crash at any point [`Network::gc`] finds what belongs to
//! nobody.
//!
//! ```text
//!   network   which kind is in force, status
//!   cni       configuration, plugins, results, records          (programs in /opt/cni/bin)
//!   builtin   one thread: pool, leases, bridge, packet filter   (netlink)
//!   netlink   messages, links and routes, nftables, connection tracking
//! ```

mod builtin;
pub mod cni;
mod config;
mod error;
mod files;
mod netlink;
mod network;
mod pod;
mod status;

pub use config::{BuiltinConfig, Deadlines, FirewallChoice, NetworkConfig};
pub use error::{NetworkError, Verb};
pub use network::Network;
pub use pod::{Attached, Bandwidth, INTERFACE, Interface, InvalidBandwidth, PodAttachment};
pub use status::{NetworkKind, NetworkStatus};
