//! UpdatePodSandboxResources: what the pod as a whole may use.
//!
//! A pod's cgroup belongs to whoever made it: the kubelet writes the limits of its own. Only the cgroup of a pod that named no parent is ours.

use std::sync::Arc;

use crisp_model::LinuxResources;

use crate::owner::{Effect, Operation, Outcome, Reply};

pub(crate) async fn update(op: Operation, overhead: LinuxResources, resources: LinuxResources) -> Outcome {
    let mut config = (*op.sandbox.config).clone();
    config.overhead = config.overhead.updated_by(&overhead);
    config.resources = config.resources.updated_by(&resources);
    if config.cgroup_parent.is_empty() {
        op.stage.enter("writing the limits of the pod");
        let cgroup = op.context.pod_cgroup(&op.sandbox.id, "");
        let written = op.context.blocking(move |c| c.limit(&cgroup, &resources)).await;
        if let Ok(Err(error)) | Err(error) = written {
            return (None, Err(error));
        }
    }
    (Some(Effect::SandboxUpdated(Arc::new(config))), Ok(Reply::Done))
}
