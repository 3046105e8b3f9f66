//! Commands: admitted, joined, deferred, started.

use std::sync::{Arc, PoisonError};

use crisp_model::ContainerId;
use tokio::sync::watch;

use super::{Answer, Command, DEFERRED, Operation, Owner, Reply, Request, Running, answer};
use crate::{
    admit::{Decision, Denial, Key, Situation, admit},
    container,
    error::PodError,
    sandbox,
    stage::Stage,
};

impl Owner {
    pub(super) fn admit(&mut self, request: Request) {
        let key = request.command.key();
        let running: Vec<Key> = self.running.keys().cloned().collect();
        let container = match &request.command {
            Command::Start(id) | Command::Remove(id) => Some(id),
            Command::Stop { container, .. } | Command::Update { container, .. } => Some(container),
            _ => None,
        };
        let situation = Situation {
            ready: self.record.infra.is_some() && !self.record.ended,
            stopped: self.record.stopped,
            container: container.and_then(|id| self.containers.get(id)).map(|c| c.state()),
            running: &running,
        };
        match admit(&key, situation) {
            Decision::Join => self.join(&key, request),
            Decision::Wait if self.deferred.len() < DEFERRED => self.deferred.push_back(request),
            Decision::Wait => {
                let what = format!("sandbox {}", self.record.id);
                let reason = format!("{DEFERRED} requests wait already");
                answer(request.reply, Err(PodError::Exhausted { what, reason }));
            }
            Decision::Done => answer(request.reply, Ok(Reply::Done)),
            Decision::Deny(denial) => answer(request.reply, Err(self.denied(denial, container))),
            Decision::Start => self.start(key, request),
        }
    }

    fn denied(&self, denial: Denial, container: Option<&ContainerId>) -> PodError {
        let container = container.map(ContainerId::to_string).unwrap_or_default();
        match denial {
            Denial::NoContainer => PodError::not_found("container", container),
            Denial::SandboxNotReady => PodError::WrongState {
                what: format!("sandbox {}", self.record.id),
                state: "not ready".into(),
                needed: "a ready sandbox",
            },
            Denial::ContainerIs(state, needed) => PodError::WrongState {
                what: format!("container {container}"),
                state: format!("{state:?}"),
                needed,
            },
        }
    }

    fn join(&mut self, key: &Key, request: Request) {
        let Some(running) = self.running.get_mut(key) else { return };
        if let (Command::Stop { grace, .. }, Some(deadline)) = (&request.command, &running.grace) {
            let nearer = tokio::time::Instant::now() + *grace;
            deadline.send_if_modified(|d| {
                if nearer < *d {
                    *d = nearer;
                    true
                } else {
                    false
                }
            });
        }
        running.waiters.push(request.reply);
    }

    fn start(&mut self, key: Key, request: Request) {
        let operation = Operation {
            context: self.context.clone(),
            stage: Stage::default(),
            sandbox: Arc::new(self.record.clone()),
            monitor: self.monitor.clone(),
            view: self.publish.subscribe(),
        };
        self.stages
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key.clone(), operation.stage.clone());
        let mut grace_of_stop = None;
        let name = key.clone();
        macro_rules! run {
            ($future:expr) => {{
                let future = $future;
                self.tasks.spawn(async move { (name, future.await) })
            }};
        }
        let task = match request.command {
            Command::Run if self.record.infra.is_some() => {
                return self.settled(&key, request.reply);
            }
            Command::Run => run!(sandbox::run::run(operation)),
            Command::Create(config) => {
                if let Some(same) = self.containers.values().find(|c| c.config.metadata == config.metadata) {
                    let result = if *same.config == *config {
                        Ok(Reply::Container(same.id.clone()))
                    } else {
                        let what =
                            format!("container {} attempt {}", config.metadata.name, config.metadata.attempt);
                        Err(PodError::AlreadyExists { what, id: same.id.to_string() })
                    };
                    self.stages.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
                    return answer(request.reply, result);
                }
                let targets =
                    self.containers.iter().filter_map(|(id, c)| Some((id.clone(), c.pid?))).collect();
                run!(container::create::create(operation, *config, targets))
            }
            Command::Start(id) => run!(container::start::start(operation, id)),
            Command::Stop { container, grace } => {
                let (sender, deadline) = watch::channel(tokio::time::Instant::now() + grace);
                grace_of_stop = Some(sender);
                let signal = self.containers.get(&container).map_or(libc::SIGTERM, |c| c.stop_signal);
                run!(container::stop::stop(operation, container, signal, deadline))
            }
            Command::Remove(id) => match self.containers.get(&id) {
                Some(record) => run!(container::remove::remove(operation, record.clone())),
                None => return self.settled(&key, request.reply),
            },
            Command::Update { container, resources } => match self.containers.get(&container) {
                Some(record) => run!(container::update::update(operation, record.clone(), *resources)),
                None => return self.settled(&key, request.reply),
            },
            Command::UpdateSandbox { overhead, resources } => {
                run!(sandbox::update::update(operation, *overhead, *resources))
            }
            Command::StopSandbox => {
                // Facts of the end come in while it is being stopped; from here on nothing new may begin.
                self.record.ended = true;
                self.publish();
                run!(sandbox::stop::stop(operation, self.records()))
            }
            Command::RemoveSandbox => {
                self.record.ended = true;
                self.publish();
                run!(sandbox::remove::remove(operation, self.records()))
            }
        };
        self.running
            .insert(key, Running { waiters: vec![request.reply], grace: grace_of_stop, task: task.id() });
    }

    fn settled(&mut self, key: &Key, reply: Answer) {
        self.stages.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        answer(reply, Ok(Reply::Done));
    }
}
