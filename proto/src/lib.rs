//! The Container Runtime Interface v1 as of k8s.io/cri-api v0.37.2.
//!
//! Generated from `runtime/v1/api.proto`. Only `src/crisp` and tests may use these types: below that crate
//! everything speaks `crisp-model`.

/// Messages, `RuntimeService` and `ImageService`.
#[allow(missing_docs, missing_debug_implementations, clippy::all, clippy::unwrap_used, rustdoc::all)]
pub mod v1 {
    tonic::include_proto!("runtime.v1");
}
