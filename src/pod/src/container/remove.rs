//! RemoveContainer: ends what still runs, then forgets the container and frees its writable layer.

use std::sync::Arc;

use tokio::{sync::watch, time::Instant};

use super::stop;
use crate::{
    context::Context,
    error::PodError,
    owner::{Effect, Operation, Outcome, Reply},
    record::ContainerRecord,
};

pub(crate) async fn remove(op: Operation, container: Arc<ContainerRecord>) -> Outcome {
    match carry_out(&op, &container).await {
        Ok(()) => (Some(Effect::Removed(container.id.clone())), Ok(Reply::Done)),
        Err(error) => (None, Err(error)),
    }
}

async fn carry_out(op: &Operation, container: &ContainerRecord) -> Result<(), PodError> {
    if container.started_at.is_some() && container.exit.is_none() && op.monitor.is_some() {
        let (_now, deadline) = watch::channel(Instant::now());
        stop::end(op, &container.id, libc::SIGKILL, deadline).await?;
    }
    if let Some(monitor) = &op.monitor {
        op.stage.enter("removing what the monitor has of the container");
        monitor.delete(&container.id).await?;
    }
    op.stage.enter("freeing the writable layer");
    forget(&op.context, container).await
}

/// Frees what a container has on disk. Idempotent; its record goes last, so that a crash before leaves something to repeat.
pub(crate) async fn forget(context: &Arc<Context>, container: &ContainerRecord) -> Result<(), PodError> {
    context.stats.unregister_container(&container.id);
    let released = context.images.release_rootfs(&container.id).await;
    released
        .map_err(|e| PodError::host(format!("free the writable layer of container {}", container.id), e))?;
    Ok(context.containers.remove(container.id.as_str())?)
}
