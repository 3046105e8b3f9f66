//! What others see of the pod: the view, events, measures.

use std::sync::Arc;

use crisp_model::ContainerId;
use crisp_observe::{
    events::EventKind as Kind,
    stats::{ContainerTarget, SandboxTarget},
};

use super::Owner;
use crate::{
    record::ContainerRecord,
    sandbox,
    view::{ContainerView, PodView, SandboxView},
};

impl Owner {
    /// Has the pod and its containers measured.
    pub(super) fn measure(&self) {
        let Some(infra) = &self.record.infra else { return };
        self.context.stats.register_sandbox(SandboxTarget {
            id: self.record.id.clone(),
            cgroup: Some(self.context.pod_cgroup(&self.record.id, &self.record.config.cgroup_parent)),
            network_pid: sandbox::run::has_network(&self.record).then_some(infra.pid),
        });
        self.containers.values().filter(|c| c.exit.is_none()).for_each(|c| self.measure_container(c));
    }

    pub(super) fn measure_container(&self, record: &ContainerRecord) {
        self.context.stats.register_container(ContainerTarget {
            id: record.id.clone(),
            sandbox: record.sandbox.clone(),
            cgroup: record.cgroup.clone(),
            writable_layer: Some(self.context.writable_layer(&record.id)),
        });
    }

    pub(super) fn publish(&mut self) {
        self.generation += 1;
        let cgroup = self.context.pod_cgroup(&self.record.id, &self.record.config.cgroup_parent);
        let made = self.record.infra.is_some() || self.record.ended;
        let before = self.publish.borrow().containers.clone();
        let containers = self.containers.iter().map(|(id, record)| {
            let view = ContainerView::from(&**record);
            let same = before.get(id).filter(|old| ***old == view).cloned();
            (id.clone(), same.unwrap_or_else(|| Arc::new(view)))
        });
        let view = PodView {
            generation: self.generation,
            containers: containers.collect(),
            records: self.containers.clone(),
            monitor: self.monitor.clone(),
            sandbox: made.then(|| Arc::new(SandboxView::new(&self.record, cgroup))),
        };
        self.publish.send_replace(Arc::new(view));
    }

    pub(super) fn announce(&self, kind: Kind, container: Option<&ContainerId>) {
        let view = container.and_then(|id| self.publish.borrow().containers.get(id).cloned());
        self.announce_view(kind, view);
    }

    pub(super) fn announce_view(&self, kind: Kind, container: Option<Arc<ContainerView>>) {
        crate::sandbox::announce(
            &self.context,
            &self.publish.borrow(),
            &self.record.id,
            container.as_deref(),
            kind,
        );
    }
}
