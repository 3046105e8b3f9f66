//! UpdateContainerResources: new limits for a container, in place.

use std::sync::Arc;

use crisp_model::LinuxResources;

use crate::{
    owner::{Effect, Operation, Outcome, Reply},
    record::ContainerRecord,
};

pub(crate) async fn update(
    op: Operation,
    container: Arc<ContainerRecord>,
    change: LinuxResources,
) -> Outcome {
    op.stage.enter("writing the limits");
    let cgroup = container.cgroup.clone();
    let mut config = (*container.config).clone();
    config.resources = config.resources.updated_by(&change);
    let written = op.context.blocking(move |c| c.limit(&cgroup, &change)).await;
    match written {
        Ok(Ok(())) => (Some(Effect::Updated(container.id.clone(), Box::new(config))), Ok(Reply::Done)),
        Ok(Err(error)) | Err(error) => (None, Err(error)),
    }
}
