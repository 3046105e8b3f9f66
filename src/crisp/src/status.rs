//! The one place where errors become gRPC statuses.

use crisp_image::ImageError;
use crisp_pod::{PodError, error::ImageProblem};
use tonic::{Code, Status};

use crate::from_wire::Invalid;

impl From<Invalid> for Status {
    fn from(error: Invalid) -> Self {
        Status::invalid_argument(error.to_string())
    }
}

/// The status of a failed operation on a pod.
pub fn of_pod(error: PodError) -> Status {
    let code = match &error {
        PodError::NotFound { .. } => Code::NotFound,
        PodError::Image { kind: ImageProblem::NotFound, .. } => Code::NotFound,
        PodError::Image { kind: ImageProblem::Denied, .. } => Code::PermissionDenied,
        PodError::Invalid { .. } => Code::InvalidArgument,
        PodError::WrongState { .. } => Code::FailedPrecondition,
        PodError::AlreadyExists { .. } => Code::AlreadyExists,
        PodError::Deadline { .. } | PodError::ExecTimeout { .. } => Code::DeadlineExceeded,
        PodError::Exhausted { .. } => Code::ResourceExhausted,
        PodError::Unavailable { .. } => Code::Unavailable,
        PodError::Host { .. } => Code::Internal,
    };
    Status::new(code, error.to_string())
}

/// The status of a failed operation on an image.
pub fn of_image(error: ImageError) -> Status {
    of_pod(error.into())
}

/// What is to be stopped or removed; `None`: it does not exist, so that has been done already.
pub fn unless_gone<T>(found: Result<T, PodError>) -> Result<Option<T>, Status> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(PodError::NotFound { .. }) => Ok(None),
        Err(error) => Err(of_pod(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_caller_can_decide_has_its_own_code() {
        let table = [
            (PodError::not_found("container", "x"), Code::NotFound),
            (PodError::ExecTimeout { seconds: 1 }, Code::DeadlineExceeded),
            (PodError::host("mount x", "EIO"), Code::Internal),
        ];
        for (error, code) in table {
            let text = error.to_string();
            let status = of_pod(error);
            assert_eq!((status.code(), status.message()), (code, text.as_str()));
        }
        assert!(matches!(unless_gone::<()>(Err(PodError::not_found("sandbox", "x"))), Ok(None)));
        assert!(unless_gone::<()>(Err(PodError::host("x", "y"))).is_err());
    }
}
