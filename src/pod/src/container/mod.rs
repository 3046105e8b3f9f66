//! Operations on containers, a file a verb.

pub(crate) mod create;
pub mod exec;
pub(crate) mod inputs;
mod propagation;
pub use inputs::below as nodes_below;
pub(crate) mod remove;
pub(crate) mod start;
pub(crate) mod stop;
pub mod streams;
pub(crate) mod update;

use crisp_monitor::client::Monitor;

use crate::{error::PodError, owner::Operation};

/// The pod's monitor, which every operation on a running container needs.
pub(crate) fn monitor(op: &Operation) -> Result<&Monitor, PodError> {
    op.monitor.as_ref().ok_or_else(|| PodError::Unavailable {
        what: format!("the monitor of sandbox {}", op.sandbox.id),
        reason: "it is not connected".into(),
    })
}
