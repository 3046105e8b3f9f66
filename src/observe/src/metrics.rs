//! Metrics: of pods, by cAdvisor's names, for the CRI; and of crisp itself, for Prometheus.
//!
//! [`pods`] measures when it is asked and keeps nothing. [`Metrics`] is counters in memory that begin at zero with the
//! daemon, as Prometheus expects.

mod daemon;
mod descriptors;
pub mod pods;

pub use daemon::Metrics;
pub use descriptors::{DESCRIPTORS, Descriptor, MetricKind};
