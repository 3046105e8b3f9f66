//! Facts from below: a process ended, the monitor died.

use std::sync::Arc;

use crisp_model::{ContainerId, ExitStatus};
use crisp_monitor::protocol::Event;
use crisp_observe::events::EventKind as Kind;

use super::Owner;
use crate::{admit::Key, record::ContainerRecord, sandbox};

impl Owner {
    pub(super) fn happened(&mut self, event: Event) {
        match event {
            Event::Exited { container, status }
                if self.running.contains_key(&Key::Start(container.clone())) =>
            {
                self.early_exits.insert(container, status);
            }
            Event::Exited { container, status } => self.container_exited(container, status),
            Event::InfraExited(status) => {
                tracing::info!(sandbox = %self.record.id, code = status.code, "the infra container ended");
                if !self.record.ended
                    && let Err(error) = self.end_of_sandbox(false)
                {
                    tracing::error!(sandbox = %self.record.id, %error, "the end of a sandbox could not be stored");
                }
            }
            // The client gives it to whoever started the exec.
            Event::ExecExited { .. } => {}
        }
    }

    pub(super) fn container_exited(&mut self, container: ContainerId, status: ExitStatus) {
        if self.containers.get(&container).is_none_or(|c| c.exit.is_some()) {
            return;
        }
        if status.oom_killed {
            self.context.metrics.oom_killed();
        }
        if let Err(error) = self.change(&container, |c| c.exit = Some(status)) {
            // The monitor has its own record of the exit, which the next start reads.
            tracing::error!(%container, %error, "an exit could not be stored");
        }
        self.announce(Kind::Stopped, Some(&container));
    }

    /// The connection is gone: nobody reaps, logs or answers for this pod any more. It ends here, whole.
    pub(super) async fn monitor_died(&mut self) {
        self.events = None;
        self.monitor = None;
        if self.running.contains_key(&Key::StopSandbox) || self.running.contains_key(&Key::RemoveSandbox) {
            return;
        }
        tracing::error!(sandbox = %self.record.id, "the pod's monitor died; its containers are killed");
        let dir = self.context.pod_dir(&self.record.id);
        for (id, exit) in sandbox::lost::exits(&dir, self.containers.keys()) {
            self.container_exited(id, exit);
        }
        let cgroups = self.containers.values().map(|c| c.cgroup.clone());
        let cgroups: Vec<String> = cgroups.chain([self.infra_cgroup()]).collect();
        if let Err(error) = self.context.blocking(move |c| sandbox::lost::kill(c, &cgroups)).await {
            tracing::error!(sandbox = %self.record.id, %error, "what a dead monitor left could not be killed");
        }
        for id in self.containers.keys().cloned().collect::<Vec<_>>() {
            if self.containers.get(&id).is_some_and(|c| c.exit.is_none()) {
                let lost = self.change(&id, |c| {
                    c.lose("MonitorDied", "the pod's crisp-monitor ended; the container was killed");
                });
                if let Err(error) = lost {
                    tracing::error!(container = %id, %error, "a lost container could not be stored");
                }
                self.announce(Kind::Stopped, Some(&id));
            }
        }
        if let Err(error) = self.end_of_sandbox(false) {
            tracing::error!(sandbox = %self.record.id, %error, "the end of a sandbox could not be stored");
        }
    }

    pub(super) fn records(&self) -> Vec<Arc<ContainerRecord>> {
        self.containers.values().cloned().collect()
    }

    pub(super) fn infra_cgroup(&self) -> String {
        let parent = &self.record.config.cgroup_parent;
        sandbox::run::infra_cgroup(&self.context, &self.record.id, parent)
    }
}
