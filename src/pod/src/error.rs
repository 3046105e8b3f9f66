//! Why an operation on a pod failed, by what its caller can do about it.

use std::fmt::Display;

use crisp_monitor::client::MonitorError;
use crisp_monitor::protocol::Failure;

/// An operation on a pod or container failed. Cheap to clone: every caller that joined the operation gets it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PodError {
    /// No such sandbox, container or image: nothing to retry.
    #[error("{kind} {id:?}: not found")]
    NotFound {
        /// `sandbox`, `container`, `image`.
        kind: &'static str,
        /// As the caller named it.
        id: String,
    },
    /// The request can never work: change it.
    #[error("{object}: {reason}")]
    Invalid {
        /// Field, path or object.
        object: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No host has the image, or none gives it to us.
    #[error("{reason}")]
    Image {
        /// Which.
        kind: ImageProblem,
        /// The image.
        reference: String,
        /// Who was asked and what they said.
        reason: String,
    },
    /// Not in this state.
    #[error("{what} is {state}; {needed} is needed")]
    WrongState {
        /// Sandbox or container.
        what: String,
        /// Its state.
        state: String,
        /// What would do.
        needed: &'static str,
    },
    /// The name is taken by something that was asked for differently.
    #[error("{what} exists already with another configuration, as {id}")]
    AlreadyExists {
        /// What.
        what: String,
        /// Its id.
        id: String,
    },
    /// The caller's time is over; the operation goes on, and the same request joins it.
    #[error("{operation} did not end in time: {stage} since {since_ms} ms; repeat the request to join it")]
    Deadline {
        /// RPC and object.
        operation: String,
        /// What is being waited for.
        stage: String,
        /// Milliseconds in that stage.
        since_ms: u64,
    },
    /// An exec ran out of its time and was killed with all it had started.
    #[error("the command did not end within {seconds} s and was killed")]
    ExecTimeout {
        /// The limit.
        seconds: u64,
    },
    /// Too much at once.
    #[error("{what}: {reason}")]
    Exhausted {
        /// What ran out.
        what: String,
        /// Its bound.
        reason: String,
    },
    /// Something that is needed is not there now; a retry may work.
    #[error("{what}: {reason}")]
    Unavailable {
        /// Monitor, network.
        what: String,
        /// Why.
        reason: String,
    },
    /// The host refused.
    #[error("{operation}: {cause}")]
    Host {
        /// Operation and object.
        operation: String,
        /// Cause.
        cause: String,
    },
}

/// What is wrong with an image that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageProblem {
    /// It does not exist.
    NotFound,
    /// It needs other credentials.
    Denied,
}

impl PodError {
    /// A failed operation on the host: what was tried on what, and the cause.
    pub fn host(operation: impl Into<String>, cause: impl Display) -> Self {
        PodError::Host { operation: operation.into(), cause: cause.to_string() }
    }

    /// No such thing.
    pub fn not_found(kind: &'static str, id: impl Display) -> Self {
        PodError::NotFound { kind, id: id.to_string() }
    }
}

impl From<MonitorError> for PodError {
    fn from(error: MonitorError) -> Self {
        match error {
            MonitorError::Failure(Failure::Invalid { object, reason }) => {
                PodError::Invalid { object, reason }
            }
            MonitorError::Failure(Failure::WrongState { what, state, .. }) => {
                PodError::WrongState { what, state, needed: "another state" }
            }
            MonitorError::Failure(Failure::NotFound { what }) => {
                PodError::NotFound { kind: "container", id: what }
            }
            MonitorError::Failure(Failure::Host { operation, reason }) => PodError::host(operation, reason),
            other => PodError::Unavailable { what: "the pod's monitor".into(), reason: other.to_string() },
        }
    }
}

impl From<crisp_store::StoreError> for PodError {
    fn from(error: crisp_store::StoreError) -> Self {
        PodError::host("store", error)
    }
}

impl From<crisp_spec::SpecError> for PodError {
    fn from(error: crisp_spec::SpecError) -> Self {
        PodError::Invalid { object: error.field().to_owned(), reason: error.to_string() }
    }
}

impl From<crisp_image::ImageError> for PodError {
    fn from(error: crisp_image::ImageError) -> Self {
        use crisp_image::ImageError as Image;
        let reason = error.to_string();
        match error {
            Image::NotFound { reference, .. } => {
                PodError::Image { kind: ImageProblem::NotFound, reference, reason }
            }
            Image::Denied { reference, .. } => {
                PodError::Image { kind: ImageProblem::Denied, reference, reason }
            }
            Image::InvalidReference { reference, .. } => {
                PodError::Invalid { object: format!("image {reference}"), reason }
            }
            Image::Unavailable { .. } | Image::Stalled { .. } => {
                PodError::Unavailable { what: "the registry".into(), reason }
            }
            Image::NoSpace { .. } | Image::TooLarge { .. } => {
                PodError::Exhausted { what: "the image store".into(), reason }
            }
            other => PodError::host("image store", other),
        }
    }
}
