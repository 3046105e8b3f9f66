//! The vocabulary of crisp: ids, names, configurations, states and resources.
//!
//! Pure data: no I/O, no clock, no wire types. Every other crate may use this one, and this one uses none of them.
//! `src/crisp` converts the CRI's messages into these types and checks them on the way; below it nobody sees a wire
//! type. Records on disk are made of these types too, so a field that is added needs `#[serde(default)]`.

pub mod capability;
pub mod container;
pub mod id;
pub mod image;
pub mod process;
pub mod resources;
pub mod sandbox;
pub mod seccomp;
pub mod security;
pub mod time;

pub use container::{ContainerConfig, ContainerState, ExitStatus, Mount};
pub use id::{ContainerId, ExecId, SandboxId};
pub use resources::LinuxResources;
pub use sandbox::{SandboxConfig, SandboxState};
