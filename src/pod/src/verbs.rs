//! What the services ask of pods: each verb is a command to the pod's owner.

use std::time::Duration;

use crisp_model::{ContainerConfig, ContainerId, LinuxResources, sandbox::SandboxMetadata};

use crate::{
    error::PodError,
    owner::{Command, Reply},
    registry::{Handle, Pods},
};

impl Pods {
    /// StopPodSandbox. See `sandbox/stop.rs`.
    pub async fn stop(&self, pod: &Handle) -> Result<(), PodError> {
        done(pod.ask(Command::StopSandbox).await, true)
    }

    /// RemovePodSandbox; stops it first if need be.
    pub async fn remove(&self, pod: &Handle) -> Result<(), PodError> {
        done(pod.ask(Command::RemoveSandbox).await, true)
    }

    /// UpdatePodSandboxResources.
    pub async fn update_sandbox(
        &self,
        pod: &Handle,
        overhead: LinuxResources,
        resources: LinuxResources,
    ) -> Result<(), PodError> {
        let (overhead, resources) = (Box::new(overhead), Box::new(resources));
        done(pod.ask(Command::UpdateSandbox { overhead, resources }).await, false)
    }

    /// CreateContainer; the same name with the same configuration is the same container.
    pub async fn create_container(
        &self,
        pod: &Handle,
        config: ContainerConfig,
    ) -> Result<ContainerId, PodError> {
        match pod.ask(Command::Create(Box::new(config))).await? {
            Reply::Container(id) => Ok(id),
            Reply::Done => Err(PodError::host("create the container", "it has no id")),
        }
    }

    /// StartContainer.
    pub async fn start_container(&self, pod: &Handle, container: ContainerId) -> Result<(), PodError> {
        done(pod.ask(Command::Start(container)).await, false)
    }

    /// StopContainer: `grace` after the stop signal everything in it is killed.
    pub async fn stop_container(
        &self,
        pod: &Handle,
        container: ContainerId,
        grace: Duration,
    ) -> Result<(), PodError> {
        done(pod.ask(Command::Stop { container, grace }).await, true)
    }

    /// RemoveContainer; kills it first if it runs.
    pub async fn remove_container(&self, pod: &Handle, container: ContainerId) -> Result<(), PodError> {
        done(pod.ask(Command::Remove(container)).await, true)
    }

    /// UpdateContainerResources.
    pub async fn update_container(
        &self,
        pod: &Handle,
        container: ContainerId,
        resources: LinuxResources,
    ) -> Result<(), PodError> {
        done(pod.ask(Command::Update { container, resources: Box::new(resources) }).await, false)
    }

    /// ReopenContainerLog; the new file exists afterwards.
    pub async fn reopen_log(&self, container: &str) -> Result<(), PodError> {
        let target = self.target(container).await?;
        Ok(target.monitor.reopen_log(&target.record.id).await?)
    }

    /// The pod of this name.
    pub fn named(&self, name: &SandboxMetadata) -> Option<Handle> {
        self.context.registry.named(name)
    }
}

/// `gone_is_done`: the pod went away meanwhile, which is what was asked for.
fn done(result: Result<Reply, PodError>, gone_is_done: bool) -> Result<(), PodError> {
    match result {
        Err(PodError::NotFound { kind: "sandbox", .. }) if gone_is_done => Ok(()),
        other => other.map(|_| ()),
    }
}
