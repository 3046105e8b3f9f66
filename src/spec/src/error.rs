//! What can be wrong with a request.

/// Why no plan can be made. The text of both begins with the CRI field that is to blame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// The request contradicts itself, its pod, or what this host can do: the client has to send another one.
    #[error("{field}: {reason}")]
    Invalid {
        /// Field of the CRI message, `config.linux.security_context.run_as_group` (of an image: `image.config.User`).
        field: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// The request names something that is not there.
    #[error("{field}: {object} not found: {reason}")]
    NotFound {
        /// Field of the CRI message.
        field: String,
        /// What was looked for.
        object: String,
        /// Where, and what to do.
        reason: String,
    },
}

impl SpecError {
    /// An invalid field.
    pub(crate) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        SpecError::Invalid { field: field.into(), reason: reason.into() }
    }

    /// A missing object.
    pub(crate) fn not_found(
        field: impl Into<String>,
        object: impl Into<String>,
        reason: impl Into<String>,
    ) -> Self {
        SpecError::NotFound { field: field.into(), object: object.into(), reason: reason.into() }
    }

    /// The field of the request that is to blame.
    pub fn field(&self) -> &str {
        match self {
            SpecError::Invalid { field, .. } | SpecError::NotFound { field, .. } => field,
        }
    }
}
