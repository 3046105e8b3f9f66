//! All pods: who owns which name and id. The only place where a pod becomes known or is forgotten.
//!
//! Owns the maps from ids and names to the owners' handles; reads never wait for an owner. A name belongs to its pod from
//! the moment RunPodSandbox is accepted until the pod is removed, so a retry finds the running operation.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use crisp_model::{ContainerId, SandboxConfig, SandboxId, sandbox::SandboxMetadata};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    admit::Key,
    context::Context,
    error::PodError,
    owner::{Command, Owner, Reply, Request, Stages},
    view::{ContainerView, PodView, SandboxView},
};

/// A pod's owner as others see it.
#[derive(Debug, Clone)]
pub struct Handle {
    /// The pod.
    pub id: SandboxId,
    pub(crate) commands: mpsc::Sender<Request>,
    pub(crate) view: watch::Receiver<Arc<PodView>>,
    pub(crate) stages: Stages,
}

impl Handle {
    /// The pod as it was last published.
    pub fn view(&self) -> Arc<PodView> {
        self.view.borrow().clone()
    }

    /// Sends a command and waits for its operation. Dropping the future leaves the operation running.
    pub(crate) async fn ask(&self, command: Command) -> Result<Reply, PodError> {
        let gone = || PodError::not_found("sandbox", &self.id);
        let (reply, answer) = oneshot::channel();
        self.commands.send(Request { command, reply }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// What the operation of `key` is doing and since when.
    pub fn stage(&self, key: &Key) -> Option<(String, std::time::Duration)> {
        self.stages.lock().unwrap_or_else(PoisonError::into_inner).get(key).map(|s| s.now())
    }
}

#[derive(Debug, Default)]
struct Maps {
    pods: HashMap<SandboxId, Handle>,
    names: HashMap<SandboxMetadata, (SandboxId, Arc<SandboxConfig>)>,
    containers: HashMap<ContainerId, SandboxId>,
}

/// All pods. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Registry(Arc<RwLock<Maps>>);

impl Registry {
    fn read<T>(&self, f: impl FnOnce(&Maps) -> T) -> T {
        f(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, f: impl FnOnce(&mut Maps) -> T) -> T {
        f(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn add_container(&self, container: ContainerId, pod: SandboxId) {
        self.write(|m| m.containers.insert(container, pod));
    }

    pub(crate) fn forget_container(&self, container: &ContainerId) {
        self.write(|m| m.containers.remove(container));
    }

    pub(crate) fn forget(&self, pod: &SandboxId, name: &SandboxMetadata) {
        self.write(|m| {
            m.pods.remove(pod);
            m.containers.retain(|_, p| p != pod);
            if m.names.get(name).is_some_and(|(id, _)| id == pod) {
                m.names.remove(name);
            }
        });
    }

    pub(crate) fn add(&self, handle: Handle, config: Arc<SandboxConfig>) {
        self.write(|m| {
            m.names.insert(config.metadata.clone(), (handle.id.clone(), config));
            m.pods.insert(handle.id.clone(), handle);
        });
    }

    /// Takes the name for `id`, or says who has it.
    fn claim(&self, config: &Arc<SandboxConfig>, handle: Handle) -> Result<(), (Handle, Arc<SandboxConfig>)> {
        self.write(|m| {
            if let Some((id, theirs)) = m.names.get(&config.metadata)
                && let Some(owner) = m.pods.get(id)
            {
                return Err((owner.clone(), theirs.clone()));
            }
            m.names.insert(config.metadata.clone(), (handle.id.clone(), config.clone()));
            m.pods.insert(handle.id.clone(), handle);
            Ok(())
        })
    }

    /// The pod of this name.
    pub(crate) fn named(&self, name: &SandboxMetadata) -> Option<Handle> {
        self.read(|m| m.pods.get(&m.names.get(name)?.0).cloned())
    }

    /// Handles of all pods.
    pub fn all(&self) -> Vec<Handle> {
        self.read(|m| m.pods.values().cloned().collect())
    }
}

/// Finds the one id that `text` is the beginning of, as people type it.
fn by_prefix<'a, I>(
    kind: &'static str,
    ids: impl Iterator<Item = &'a I>,
    text: &str,
    name: impl Fn(&I) -> &str,
) -> Result<&'a I, PodError> {
    let mut found = ids.filter(|id| !text.is_empty() && name(id).starts_with(text));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(PodError::not_found(kind, text)),
        (Some(one), Some(other)) => Err(PodError::Invalid {
            object: format!("{kind} {text:?}"),
            reason: format!("{} and {} begin so: write more digits", name(one), name(other)),
        }),
    }
}

/// The pods of this node: what the services call.
#[derive(Debug, Clone)]
pub struct Pods {
    pub(crate) context: Arc<Context>,
}

impl Pods {
    /// All pods of `context`; see [`crate::recover`] for those that were there before.
    pub fn new(context: Arc<Context>) -> Self {
        Self { context }
    }

    /// What the pods work with.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Finds a pod by its id or a unique prefix of it.
    pub fn find(&self, text: &str) -> Result<Handle, PodError> {
        self.context.registry.read(|m| {
            let exact = text.parse::<SandboxId>().ok().and_then(|id| m.pods.get(&id));
            if let Some(pod) = exact {
                return Ok(pod.clone());
            }
            let id = by_prefix("sandbox", m.pods.keys(), text, SandboxId::as_str)?;
            m.pods.get(id).cloned().ok_or_else(|| PodError::not_found("sandbox", text))
        })
    }

    /// Finds a container and its pod by its id or a unique prefix of it.
    pub fn find_container(&self, text: &str) -> Result<(Handle, ContainerId), PodError> {
        self.context.registry.read(|m| {
            let exact = text.parse::<ContainerId>().ok().filter(|id| m.containers.contains_key(id));
            let id = match exact {
                Some(id) => id,
                None => by_prefix("container", m.containers.keys(), text, ContainerId::as_str)?.clone(),
            };
            let pod = m.containers.get(&id).and_then(|sandbox| m.pods.get(sandbox));
            pod.map(|pod| (pod.clone(), id)).ok_or_else(|| PodError::not_found("container", text))
        })
    }

    /// A container as it was last published.
    pub fn container(&self, text: &str) -> Result<Arc<ContainerView>, PodError> {
        let (pod, id) = self.find_container(text)?;
        pod.view().containers.get(&id).cloned().ok_or_else(|| PodError::not_found("container", text))
    }

    /// A sandbox as it was last published; one that is still being made is not found.
    pub fn sandbox(&self, text: &str) -> Result<Arc<SandboxView>, PodError> {
        self.find(text)?.view().sandbox.clone().ok_or_else(|| PodError::not_found("sandbox", text))
    }

    /// All pods that were made and not removed.
    pub fn views(&self) -> Vec<Arc<PodView>> {
        let all = self.context.registry.all();
        all.iter().map(Handle::view).filter(|v| v.sandbox.is_some()).collect()
    }

    /// Makes a pod, or joins the making of it: the same name with the same configuration is the same pod.
    pub async fn run(&self, config: SandboxConfig) -> Result<SandboxId, PodError> {
        let config = Arc::new(config);
        let (owner, handle) = Owner::new(self.context.clone(), config.clone());
        match self.context.registry.claim(&config, handle.clone()) {
            Ok(()) => {
                tokio::spawn(owner.serve());
                handle.ask(Command::Run).await?;
                Ok(handle.id)
            }
            Err((theirs, same)) if same == config => {
                theirs.ask(Command::Run).await?;
                Ok(theirs.id)
            }
            Err((theirs, other)) => {
                let name = &other.metadata;
                let what = format!("sandbox {}/{} attempt {}", name.namespace, name.name, name.attempt);
                Err(PodError::AlreadyExists { what, id: theirs.id.to_string() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_digits_name_one_if_they_tell_it_apart() {
        let all = ["aaab", "aabb"].map(str::to_owned);
        let find = |text| by_prefix("sandbox", all.iter(), text, String::as_str).map(String::as_str);
        assert_eq!(find("aaa"), Ok("aaab"));
        assert_eq!(find("aabb"), Ok("aabb"));
        for text in ["", "b", "aaabb", "../.."] {
            assert_eq!(find(text), Err(PodError::not_found("sandbox", text)));
        }
        let several = find("aa").unwrap_err().to_string();
        assert_eq!(several, "sandbox \"aa\": aaab and aabb begin so: write more digits");
    }
}
