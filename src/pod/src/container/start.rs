//! StartContainer: lets the program of a created container begin.

use crisp_model::ContainerId;

use super::monitor;
use crate::{
    error::PodError,
    owner::{Effect, Operation, Outcome, Reply},
    record::Failed,
};

pub(crate) async fn start(op: Operation, id: ContainerId) -> Outcome {
    op.stage.enter("starting the program");
    let monitor = match monitor(&op) {
        Ok(monitor) => monitor,
        Err(error) => return (None, Err(error)),
    };
    match monitor.start(&id).await {
        Ok(at) => (Some(Effect::Started(id, at)), Ok(Reply::Done)),
        Err(error) => {
            let error = PodError::from(error);
            // A container whose program cannot start has ended: the kubelet reads why, and makes another.
            let failed = Failed { reason: "StartError".into(), message: error.to_string() };
            (Some(Effect::StartFailed(id, failed)), Err(error))
        }
    }
}
