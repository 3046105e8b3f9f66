//! RemovePodSandbox: stops what is not stopped, then forgets the pod and all of its containers.

use std::sync::Arc;

use super::stop;
use crate::{
    container,
    owner::{Effect, Operation, Outcome, Reply},
    record::ContainerRecord,
};

pub(crate) async fn remove(op: Operation, containers: Vec<Arc<ContainerRecord>>) -> Outcome {
    if !op.sandbox.stopped {
        let (effect, result) = stop::stop(op.clone(), containers.clone()).await;
        if result.is_err() {
            return (effect, result);
        }
    }
    op.stage.enter("removing containers");
    let mut failures = Vec::new();
    for container in &containers {
        failures.extend(container::remove::forget(&op.context, container).await.err());
    }
    if failures.is_empty() {
        failures.extend(op.context.sandboxes.remove(op.sandbox.id.as_str()).map_err(Into::into).err());
    }
    match stop::merge("remove the sandbox", failures) {
        None => {
            if let Some(selinux) = &op.context.selinux {
                selinux.release(&op.sandbox);
            }
            (Some(Effect::SandboxRemoved), Ok(Reply::Done))
        }
        Some(error) => (None, Err(error)),
    }
}
