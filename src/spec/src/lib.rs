//! Pure: pod, container, image and host facts to an OCI runtime spec and the process to become.
//!
//! Owns what a container looks like from inside: namespaces, mounts, devices, limits, user, environment,
//! capabilities and the system call filter. Everything it needs comes in as values ([`Input`]), so the same input
//! gives the same [`Plan`] on every host, and tests compare plans with golden files. It calls nothing but
//! `crisp-model`, opens no file (but for [`cdi::load`]) and has no state, so a crash in the middle leaves nothing
//! behind.
//!
//! ```text
//!   Input --container()--> Plan { spec: for libcontainer, process: for the monitor's last leg, seccomp, … }
//!   Plan.process --exec()--> Process of an exec
//! ```
//!
//! The spec's own process is *bare* (root, no capabilities, `/`): the monitor hands the spec to libcontainer and makes
//! [`Plan::process`] itself on the last leg. What libcontainer would get wrong is kept out of the spec: seccomp,
//! `oomScoreAdj`, `noNewPrivileges`, labels of security modules that are off, huge page limits without a controller,
//! propagation of single mounts.

mod accounts;
mod annotations;
mod capabilities;
pub mod cdi;
mod command;
mod devices;
mod environment;
mod error;
mod exec;
mod input;
mod labels;
mod mounts;
mod namespaces;
mod plan;
mod resources;
pub mod seccomp;
pub mod selinux;
mod signal;
mod user;

pub use accounts::{AccountsError, Group, MAX_FILE as MAX_ACCOUNT_FILE, User, parse_group, parse_passwd};
pub use capabilities::DEFAULT_CAPABILITIES;
pub use command::{command, working_dir};
pub use environment::environment;
pub use error::SpecError;
pub use exec::exec;
pub use input::{
    Accounts, CgroupLayout, CgroupPath, Controller, Defaults, DeviceKind, DeviceNode, HostFacts, Input,
    SandboxFacts,
};
pub use mounts::clean;
pub use plan::{Idmapped, Plan, container};
pub use resources::{Resources, resources};
pub use signal::stop_signal;
pub use user::{ContainerUser, user};
