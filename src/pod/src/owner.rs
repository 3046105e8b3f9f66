//! The task that owns one pod.
//!
//! It alone changes the pod's records. Commands come in by a channel, are admitted ([`crate::admit`]) and run as operations
//! beside each other; an operation changes nothing itself but brings back an effect, which the owner stores and publishes.
//! Facts from below (a process ended, the monitor died) come from the monitor's connection.
//!
//! ```text
//!            Run                    StopSandbox, infra exited            RemoveSandbox
//!  (new) ----------> Ready -----------------------------------> NotReady -------------> (gone)
//!     \ failed: undone, gone         monitor died, reboot
//! ```
//!
//! A crash in the middle of an operation leaves its intent in the record; `recover` undoes it.

mod commands;
mod effects;
mod facts;
mod publish;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use crisp_model::{
    ContainerConfig, ContainerId, ExitStatus, LinuxResources, SandboxConfig, SandboxId, time::Timestamp,
};
use crisp_monitor::{client::Monitor, protocol::Event};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{Id, JoinSet},
};

use crate::{
    admit::Key,
    context::Context,
    error::PodError,
    record::{ContainerRecord, Failed, SandboxRecord},
    registry::Handle,
    sandbox,
    stage::Stage,
    view::PodView,
};

/// Commands that wait for another operation of the pod; more than this is a client gone mad.
const DEFERRED: usize = 256;

/// Commands on their way to the owner, which takes them at once.
const COMMANDS: usize = 64;

/// Stages of the running operations, for whoever asks why it takes so long.
pub(crate) type Stages = Arc<Mutex<HashMap<Key, Stage>>>;

/// What to do with the pod.
#[derive(Debug)]
pub(crate) enum Command {
    Run,
    Create(Box<ContainerConfig>),
    Start(ContainerId),
    Stop { container: ContainerId, grace: Duration },
    Remove(ContainerId),
    Update { container: ContainerId, resources: Box<LinuxResources> },
    UpdateSandbox { overhead: Box<LinuxResources>, resources: Box<LinuxResources> },
    StopSandbox,
    RemoveSandbox,
}

impl Command {
    fn key(&self) -> Key {
        match self {
            Command::Run => Key::Run,
            Command::Create(config) => Key::Create(config.metadata.clone()),
            Command::Start(id) => Key::Start(id.clone()),
            Command::Stop { container, .. } => Key::Stop(container.clone()),
            Command::Remove(id) => Key::Remove(id.clone()),
            Command::Update { container, .. } => Key::Update(container.clone()),
            Command::UpdateSandbox { .. } => Key::UpdateSandbox,
            Command::StopSandbox => Key::StopSandbox,
            Command::RemoveSandbox => Key::RemoveSandbox,
        }
    }
}

/// The answer to a command.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    Done,
    Container(ContainerId),
}

type Answer = oneshot::Sender<Result<Reply, PodError>>;

/// A command and who waits for it.
#[derive(Debug)]
pub(crate) struct Request {
    pub command: Command,
    pub reply: Answer,
}

/// What an operation did, for the owner to record.
#[derive(Debug)]
pub(crate) enum Effect {
    Up(Box<sandbox::run::Up>),
    Created(Box<ContainerRecord>),
    Started(ContainerId, Timestamp),
    StartFailed(ContainerId, Failed),
    Removed(ContainerId),
    Updated(ContainerId, Box<ContainerConfig>),
    SandboxUpdated(Arc<SandboxConfig>),
    SandboxStopped,
    SandboxRemoved,
}

/// How an operation ended: an effect may come with an error (a failed start is a fact too).
pub(crate) type Outcome = (Option<Effect>, Result<Reply, PodError>);

/// What an operation works with: copies, so that it never waits for the owner or changes it.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    pub context: Arc<Context>,
    pub stage: Stage,
    pub sandbox: Arc<SandboxRecord>,
    pub monitor: Option<Monitor>,
    /// For waiting: "the container has exited" is a change of the view.
    pub view: watch::Receiver<Arc<PodView>>,
}

struct Running {
    waiters: Vec<Answer>,
    /// The latest moment at which a stop turns into a kill; a second stop may only bring it nearer.
    grace: Option<watch::Sender<tokio::time::Instant>>,
    task: Id,
}

/// See the module.
pub(crate) struct Owner {
    context: Arc<Context>,
    record: SandboxRecord,
    containers: BTreeMap<ContainerId, Arc<ContainerRecord>>,
    monitor: Option<Monitor>,
    events: Option<mpsc::Receiver<Event>>,
    requests: mpsc::Receiver<Request>,
    publish: watch::Sender<Arc<PodView>>,
    stages: Stages,
    running: HashMap<Key, Running>,
    tasks: JoinSet<(Key, Outcome)>,
    deferred: VecDeque<Request>,
    /// Exits that came before their start was recorded: events are published in order.
    early_exits: HashMap<ContainerId, ExitStatus>,
    generation: u64,
    gone: bool,
}

/// A pod that was there before the daemon started, put together by `recover`.
pub(crate) struct Adopted {
    pub record: SandboxRecord,
    pub containers: BTreeMap<ContainerId, Arc<ContainerRecord>>,
    pub monitor: Option<(Monitor, mpsc::Receiver<Event>)>,
}

impl Owner {
    /// An owner for a pod that is to be made by `Command::Run`.
    pub(crate) fn new(context: Arc<Context>, config: Arc<SandboxConfig>) -> (Owner, Handle) {
        let record = SandboxRecord {
            id: SandboxId::random(),
            config,
            created_at: Timestamp::now(),
            boot_id: context.boot_id.clone(),
            infra: None,
            ips: Vec::new(),
            attached: false,
            ended: false,
            stopped: false,
            selinux: None,
        };
        Self::build(context, Adopted { record, containers: BTreeMap::new(), monitor: None })
    }

    /// An owner for a pod that exists; published at once.
    pub(crate) fn adopt(context: Arc<Context>, pod: Adopted) -> (Owner, Handle) {
        let (mut owner, handle) = Self::build(context, pod);
        if !owner.record.ended {
            owner.measure();
        }
        owner.publish();
        (owner, handle)
    }

    fn build(context: Arc<Context>, pod: Adopted) -> (Owner, Handle) {
        let (commands, requests) = mpsc::channel(COMMANDS);
        let empty = PodView::default();
        let (publish, view) = watch::channel(Arc::new(empty));
        let stages = Stages::default();
        let handle = Handle { id: pod.record.id.clone(), commands, view, stages: stages.clone() };
        let (monitor, events) = pod.monitor.unzip();
        let owner = Owner {
            context,
            record: pod.record,
            containers: pod.containers,
            monitor,
            events,
            requests,
            publish,
            stages,
            running: HashMap::new(),
            tasks: JoinSet::new(),
            deferred: VecDeque::new(),
            early_exits: HashMap::new(),
            generation: 0,
            gone: false,
        };
        (owner, handle)
    }

    /// Runs until the pod is removed.
    pub(crate) async fn serve(mut self) {
        while !self.gone {
            tokio::select! {
                request = self.requests.recv() => match request {
                    Some(request) => self.admit(request),
                    None => break,
                },
                Some(done) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => self.finish(done),
                event = next(&mut self.events) => match event {
                    Some(event) => self.happened(event),
                    None => self.monitor_died().await,
                },
            }
        }
    }
}

fn answer(to: Answer, result: Result<Reply, PodError>) {
    // A caller that has gone does not want its answer.
    let _ = to.send(result);
}

/// The next event; never for a pod without a monitor.
async fn next(events: &mut Option<mpsc::Receiver<Event>>) -> Option<Event> {
    match events {
        Some(events) => events.recv().await,
        None => std::future::pending().await,
    }
}

/// Where a pod's exits are recorded by its monitor.
pub(crate) fn exits_dir(pod_dir: &std::path::Path) -> PathBuf {
    pod_dir.join("exits")
}
