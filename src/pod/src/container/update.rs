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
    let id = container.id.clone();
    let written = op.context.blocking(move |c| {
        c.limit(&cgroup, &change)?;
        // Zero is the wire's "no change".
        if change.oom_score_adj != 0
            && let Err(error) = c.cgroups.set_oom_score(&cgroup, change.oom_score_adj)
        {
            // Lowering it takes CAP_SYS_RESOURCE; a new container's score is clamped in the same way.
            tracing::warn!(container = %id, score = change.oom_score_adj, %error, "some processes keep their OOM score");
        }
        Ok(())
    });
    let written = written.await;
    match written {
        Ok(Ok(())) => (Some(Effect::Updated(container.id.clone(), Box::new(config))), Ok(Reply::Done)),
        Ok(Err(error)) | Err(error) => (None, Err(error)),
    }
}
