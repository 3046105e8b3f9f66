//! Ends of operations: what they did is stored, published and announced, and their callers are answered.

use std::sync::{Arc, PoisonError};

use crisp_model::{ContainerId, ExitStatus, time::Timestamp};
use crisp_observe::events::EventKind as Kind;
use crisp_store::Durability;
use tokio::task::{Id, JoinError};

use super::{Command, Effect, Outcome, Owner, Reply, answer};
use crate::{admit::Key, error::PodError, record::ContainerRecord};

impl Owner {
    pub(super) fn finish(&mut self, done: Result<(Id, (Key, Outcome)), JoinError>) {
        let (key, (effect, result)) = match done {
            Ok((_, finished)) => finished,
            Err(error) => {
                // A bug in an operation: say so to its callers instead of letting them wait for ever.
                let Some(key) =
                    self.running.iter().find(|(_, r)| r.task == error.id()).map(|(k, _)| k.clone())
                else {
                    return;
                };
                (key, (None, Err(PodError::host("run the operation", error))))
            }
        };
        let result = match effect.map(|effect| self.apply(effect)) {
            Some(Err(error)) => Err(error),
            _ => result,
        };
        if key == Key::Run && result.is_err() {
            self.forget();
        }
        self.stages.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        for waiter in self.running.remove(&key).map(|r| r.waiters).unwrap_or_default() {
            answer(waiter, result.clone());
        }
        if let Key::Start(container) = &key
            && let Some(status) = self.early_exits.remove(container)
        {
            self.container_exited(container.clone(), status);
        }
        for request in std::mem::take(&mut self.deferred) {
            self.admit(request);
        }
    }

    fn apply(&mut self, effect: Effect) -> Result<(), PodError> {
        match effect {
            Effect::Up(up) => {
                self.record = up.record;
                self.monitor = Some(up.monitor);
                self.events = Some(up.events);
                self.publish();
                self.measure();
                self.announce(Kind::Created, None);
                self.announce(Kind::Started, None);
            }
            Effect::Created(record) => {
                let id = record.id.clone();
                self.context.registry.add_container(id.clone(), self.record.id.clone());
                let record = Arc::from(record);
                self.measure_container(&record);
                self.containers.insert(id.clone(), record);
                self.publish();
                self.announce(Kind::Created, Some(&id));
            }
            Effect::Started(id, at) => {
                self.change(&id, |c| c.started_at = Some(at))?;
                self.announce(Kind::Started, Some(&id));
            }
            Effect::StartFailed(id, failed) => {
                self.change(&id, |c| {
                    c.failure = Some(failed);
                    let finished_at = Timestamp::now();
                    let code = 128;
                    c.exit.get_or_insert(ExitStatus { code, signal: None, oom_killed: false, finished_at });
                })?;
                self.announce(Kind::Stopped, Some(&id));
            }
            Effect::Updated(id, config) => self.change(&id, |c| {
                // Later execs take their score from the process.
                c.process.oom_score_adj = i32::try_from(config.resources.oom_score_adj).ok();
                c.config = Arc::new(*config);
            })?,
            Effect::Removed(id) => self.container_removed(&id),
            Effect::SandboxUpdated(config) => {
                self.record.config = config;
                self.context.sandboxes.put(self.record.id.as_str(), &self.record, Durability::Process)?;
                self.publish();
            }
            Effect::SandboxStopped => {
                self.monitor = None;
                self.events = None;
                self.end_of_sandbox(true)?;
            }
            Effect::SandboxRemoved => {
                for id in self.containers.keys().cloned().collect::<Vec<_>>() {
                    self.container_removed(&id);
                }
                self.forget();
                self.announce(Kind::Deleted, None);
            }
        }
        Ok(())
    }

    fn container_removed(&mut self, id: &ContainerId) {
        let view = self.publish.borrow().containers.get(id).cloned();
        self.containers.remove(id);
        self.context.registry.forget_container(id);
        self.publish();
        self.announce_view(Kind::Deleted, view);
    }

    /// Changes a container's record, stores it and publishes it.
    pub(super) fn change(
        &mut self,
        id: &ContainerId,
        f: impl FnOnce(&mut ContainerRecord),
    ) -> Result<(), PodError> {
        let Some(record) = self.containers.get_mut(id) else { return Ok(()) };
        let record = Arc::make_mut(record);
        f(record);
        let stored = self.context.containers.put(id.as_str(), record, Durability::Process);
        self.publish();
        Ok(stored?)
    }

    pub(super) fn end_of_sandbox(&mut self, stopped: bool) -> Result<(), PodError> {
        let was_up = !self.record.stopped && self.publish.borrow().sandbox.is_some();
        self.record.ended = true;
        self.record.stopped |= stopped;
        self.record.attached &= !stopped;
        let stored = self.context.sandboxes.put(self.record.id.as_str(), &self.record, Durability::Process);
        for id in self.containers.keys().cloned().collect::<Vec<_>>() {
            let running =
                self.containers.get(&id).is_some_and(|c| c.exit.is_none() && c.started_at.is_some());
            if stopped && running {
                self.change(&id, |c| c.lose("Unknown", "the pod was stopped and the exit was not seen"))?;
                self.announce(Kind::Stopped, Some(&id));
            }
        }
        self.publish();
        if was_up {
            self.announce(Kind::Stopped, None);
        }
        Ok(stored?)
    }

    pub(super) fn forget(&mut self) {
        self.gone = true;
        self.context.registry.forget(&self.record.id, &self.record.config.metadata);
        for request in std::mem::take(&mut self.deferred) {
            let result = match request.command {
                Command::StopSandbox | Command::RemoveSandbox | Command::Stop { .. } | Command::Remove(_) => {
                    Ok(Reply::Done)
                }
                _ => Err(PodError::not_found("sandbox", &self.record.id)),
            };
            answer(request.reply, result);
        }
    }
}
