//! Stats, events, metrics: what crisp knows about itself and about what it runs.
//!
//! Plain numbers and ids only; `src/crisp` makes wire messages of them. May use `crisp-host` (the kernel's files) and
//! `crisp-model`. Nothing here is asked before an operation goes on: losing all of it loses no pod.

pub mod events;
pub mod metrics;
pub mod stats;
