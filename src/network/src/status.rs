//! Whether pods can get a network, and why not.

use serde::{Deserialize, Serialize};

/// What gives pods their network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkKind {
    /// CNI plugins.
    Cni,
    /// The built-in bridge.
    Builtin,
    /// Nothing.
    #[default]
    None,
}

/// The CRI's `NetworkReady` condition and what is known beside it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NetworkStatus {
    /// Whether pods can get a network.
    pub ready: bool,
    /// One word, for machines; empty if ready.
    pub reason: String,
    /// A sentence, for people; empty if ready.
    pub message: String,
    /// What gives it.
    pub kind: NetworkKind,
    /// Configuration in force, plugin versions or pools; for verbose answers.
    pub details: serde_json::Value,
}

impl NetworkStatus {
    pub(crate) fn ready(kind: NetworkKind, details: serde_json::Value) -> Self {
        Self { ready: true, kind, details, ..Self::default() }
    }

    pub(crate) fn not_ready(
        kind: NetworkKind,
        reason: &str,
        message: String,
        details: serde_json::Value,
    ) -> Self {
        Self { ready: false, reason: reason.to_owned(), message, kind, details }
    }
}
