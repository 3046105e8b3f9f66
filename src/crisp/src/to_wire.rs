//! From the model onto the wire: plain data, field by field.
//!
//! The reverse of `from_wire`, for answers: what a client asked for is echoed as it was accepted. May use
//! `crisp-model` and `crisp-proto`; knows no state and cannot fail.

pub mod container;
pub mod resources;
pub mod sandbox;
pub mod security;
pub mod stats;

pub use container::{container_metadata, container_state, image_spec, mounts};
pub use resources::{container_resources, linux_resources};
pub use sandbox::{network_status, sandbox_metadata, sandbox_state};
pub use security::{container_user, id_mappings, namespace_option};

use std::collections::{BTreeMap, HashMap};

/// Labels or annotations.
pub fn map(map: &BTreeMap<String, String>) -> HashMap<String, String> {
    map.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}
