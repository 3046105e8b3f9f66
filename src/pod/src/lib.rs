//! The domain: pods, their containers, and the one task that owns each pod.
//!
//! ```text
//!   src/crisp (RPCs) --- Pods::create_container(...) --+            +--> Store (intent, fact)
//!                                                      v            |
//!        reads: PodView (published, never waits)    Owner task ---- +--> steps: network, image, spec, monitor
//!   <-------------------------------------------------  |  ^
//!                                                       |  +-------- facts from below: monitor events
//!                                                       +--> EventBus, Sampler
//! ```
//!
//! - [`registry`] knows which pod owns which name and id, and finds ids by prefix.
//! - [`owner`] is the task: it admits commands ([`admit`], pure), runs each as an operation beside the others, and is the
//!   only one that changes a pod's records. An operation brings back an effect; the owner stores and publishes it.
//! - [`sandbox`] and [`container`] hold the operations, a file a verb.
//! - [`recover`] makes owners out of records, monitors and the host's truth when the daemon starts.
//! - [`view`] is what readers see.
//!
//! This crate may use every crate but `crisp`; only `crisp` uses it. If the daemon dies in the middle of anything, the intent is in
//! the record: `recover` finishes or undoes it.

pub mod admit;
pub mod container;
pub mod context;
pub mod error;
pub mod owner;
pub mod record;
pub mod recover;
pub mod registry;
pub mod sandbox;
pub mod selinux;
pub mod stage;
pub mod verbs;
pub mod view;

pub use context::{Context, PodsConfig};
pub use error::PodError;
pub use registry::Pods;
pub use view::{ContainerView, PodView, SandboxView};
