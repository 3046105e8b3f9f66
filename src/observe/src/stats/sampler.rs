//! Who is measured, and the answers.

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crisp_host::cgroup::CgroupFs;
use crisp_model::{ContainerId, SandboxId, time::Timestamp};
use tokio::sync::Semaphore;

use super::{
    ContainerStats, ContainerTarget, CpuUsage, LayerUsage, MemoryUsage, NetworkUsage, ProcessUsage,
    SandboxStats, SandboxTarget, layer,
    network::NetworkView,
    slot::{Slot, Usage},
};

/// A layer is counted again after this many times what the last count took: counting never takes more than two percent
/// of a processor for one container.
const LAYER_REST: u32 = 50;

/// How long answers may be used again.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Processor time, memory and network.
    pub ttl: Duration,
    /// Writable layers, at least.
    pub layer_interval: Duration,
}

impl Default for Options {
    /// Half a second: less than any client's period, more than what several clients at once need. Ten seconds: the
    /// kubelet's own period for evictions.
    fn default() -> Self {
        Self { ttl: Duration::from_millis(500), layer_interval: Duration::from_secs(10) }
    }
}

/// Measures what is registered. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Sampler {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    fs: CgroupFs,
    options: Options,
    registry: Mutex<Registry>,
    /// One layer is counted at a time.
    counting: Semaphore,
}

#[derive(Debug, Default)]
struct Registry {
    containers: HashMap<ContainerId, Arc<Container>>,
    sandboxes: HashMap<SandboxId, Arc<Sandbox>>,
}

#[derive(Debug)]
struct Container {
    target: ContainerTarget,
    slot: Mutex<Slot>,
    layer: Mutex<Layer>,
}

#[derive(Debug, Default)]
struct Layer {
    last: Option<LayerUsage>,
    /// Not before.
    due: Option<Instant>,
    counting: bool,
}

#[derive(Debug)]
struct Sandbox {
    target: SandboxTarget,
    network: Option<NetworkView>,
    containers: Mutex<BTreeSet<ContainerId>>,
    state: Mutex<(Slot, Option<(Instant, NetworkUsage)>)>,
}

/// A panic elsewhere cannot leave these maps and numbers half-changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sampler {
    /// A sampler that measures nothing yet.
    pub fn new(fs: CgroupFs, options: Options) -> Self {
        let registry = Mutex::new(Registry::default());
        Self { shared: Arc::new(Shared { fs, options, registry, counting: Semaphore::new(1) }) }
    }

    /// Begins to measure a pod, in place of what was registered under its id. Its containers stay.
    pub fn register_sandbox(&self, target: SandboxTarget) {
        let network = target.network_pid.and_then(|pid| {
            NetworkView::of(pid)
                .map_err(|error| tracing::debug!(sandbox = %target.id, pid, %error, "no network statistics"))
                .ok()
        });
        let mut slot = Slot::default();
        if let Some(cgroup) = &target.cgroup {
            slot.begin(&self.shared.fs, cgroup);
        }
        let mut registry = lock(&self.shared.registry);
        let containers: BTreeSet<ContainerId> = registry
            .containers
            .values()
            .filter(|c| c.target.sandbox == target.id)
            .map(|c| c.target.id.clone())
            .collect();
        let id = target.id.clone();
        let sandbox =
            Sandbox { target, network, containers: Mutex::new(containers), state: Mutex::new((slot, None)) };
        registry.sandboxes.insert(id, Arc::new(sandbox));
    }

    /// Begins to measure a container, in place of what was registered under its id.
    pub fn register_container(&self, target: ContainerTarget) {
        let mut slot = Slot::default();
        slot.begin(&self.shared.fs, &target.cgroup);
        let mut registry = lock(&self.shared.registry);
        if let Some(sandbox) = registry.sandboxes.get(&target.sandbox) {
            lock(&sandbox.containers).insert(target.id.clone());
        }
        let id = target.id.clone();
        let container = Container { target, slot: Mutex::new(slot), layer: Mutex::default() };
        registry.containers.insert(id, Arc::new(container));
    }

    /// Forgets a container; no error if it was not known.
    pub fn unregister_container(&self, id: &ContainerId) {
        let mut registry = lock(&self.shared.registry);
        if let Some(container) = registry.containers.remove(id)
            && let Some(sandbox) = registry.sandboxes.get(&container.target.sandbox)
        {
            lock(&sandbox.containers).remove(id);
        }
    }

    /// Forgets a pod; its containers are unregistered by themselves. Lets go of its network at once.
    pub fn unregister_sandbox(&self, id: &SandboxId) {
        lock(&self.shared.registry).sandboxes.remove(id);
    }

    /// What the container uses; `None`: it is not registered.
    pub async fn container(&self, id: &ContainerId) -> Option<Arc<ContainerStats>> {
        let container = lock(&self.shared.registry).containers.get(id).cloned()?;
        Some(self.measure_container(&container, false))
    }

    /// What each of the containers uses, in the order asked for, without those that are not registered.
    pub async fn containers(&self, ids: &[ContainerId]) -> Vec<Arc<ContainerStats>> {
        self.measure_all(ids, false).await
    }

    async fn measure_all(&self, ids: &[ContainerId], whole: bool) -> Vec<Arc<ContainerStats>> {
        let found: Vec<Arc<Container>> = {
            let registry = lock(&self.shared.registry);
            ids.iter().filter_map(|id| registry.containers.get(id).cloned()).collect()
        };
        let mut all = Vec::with_capacity(found.len());
        for container in found {
            all.push(self.measure_container(&container, whole));
            // A list of hundreds takes milliseconds; other requests need not wait for all of it.
            tokio::task::yield_now().await;
        }
        all
    }

    /// What the pod uses; `None`: it is not registered.
    pub async fn sandbox(&self, id: &SandboxId) -> Option<SandboxStats> {
        let sandbox = lock(&self.shared.registry).sandboxes.get(id).cloned()?;
        let ids: Vec<ContainerId> = lock(&sandbox.containers).iter().cloned().collect();
        // Where the pod has no cgroup its tasks are theirs.
        let containers = self.measure_all(&ids, sandbox.target.cgroup.is_none()).await;
        Some(self.measure_sandbox(&sandbox, containers))
    }

    /// What each of the pods uses, in the order asked for, without those that are not registered.
    pub async fn sandboxes(&self, ids: &[SandboxId]) -> Vec<SandboxStats> {
        let mut all = Vec::with_capacity(ids.len());
        for id in ids {
            all.extend(self.sandbox(id).await);
        }
        all
    }

    /// The target that was registered under the id.
    pub(crate) fn container_target(&self, id: &ContainerId) -> Option<ContainerTarget> {
        lock(&self.shared.registry).containers.get(id).map(|c| c.target.clone())
    }

    /// The hierarchies that are read.
    pub(crate) fn cgroups(&self) -> &CgroupFs {
        &self.shared.fs
    }

    fn measure_container(&self, container: &Arc<Container>, whole: bool) -> Arc<ContainerStats> {
        let target = &container.target;
        let usage = self.cgroup_usage(&mut lock(&container.slot), &target.cgroup, whole);
        Arc::new(ContainerStats {
            id: target.id.clone(),
            sandbox: target.sandbox.clone(),
            cpu: usage.cpu,
            memory: usage.memory,
            swap: usage.swap,
            io: usage.io,
            tasks: usage.tasks,
            writable_layer: self.layer(container),
        })
    }

    fn cgroup_usage(&self, slot: &mut Slot, cgroup: &str, whole: bool) -> Usage {
        slot.usage(&self.shared.fs, cgroup, self.shared.options.ttl, whole).unwrap_or_else(|error| {
            tracing::warn!(%error, cgroup, "statistics cannot be read");
            Usage::default()
        })
    }

    fn measure_sandbox(&self, sandbox: &Sandbox, containers: Vec<Arc<ContainerStats>>) -> SandboxStats {
        let mut state = lock(&sandbox.state);
        let (slot, network) = &mut *state;
        let (cpu, memory, io, tasks) = match &sandbox.target.cgroup {
            Some(cgroup) => {
                let usage = self.cgroup_usage(slot, cgroup, true);
                (usage.cpu, usage.memory, usage.io, usage.tasks)
            }
            None => {
                let tasks = containers.iter().filter_map(|c| c.tasks).reduce(|a, b| a + b);
                (sum_cpu(&containers), sum_memory(&containers), None, tasks)
            }
        };
        let processes = tasks.map(|count| ProcessUsage { at: Timestamp::now(), count });
        let network = self.network(sandbox, network);
        SandboxStats { id: sandbox.target.id.clone(), cpu, memory, io, network, processes, containers }
    }

    fn network(&self, sandbox: &Sandbox, last: &mut Option<(Instant, NetworkUsage)>) -> Option<NetworkUsage> {
        if let Some((at, usage)) = last
            && at.elapsed() < self.shared.options.ttl
        {
            return Some(usage.clone());
        }
        // Its process is gone, and the pod's network with it.
        let interfaces = sandbox.network.as_ref()?.read().ok()?;
        let usage = NetworkUsage { at: Timestamp::now(), interfaces };
        *last = Some((Instant::now(), usage.clone()));
        Some(usage)
    }

    /// The last count; starts the next one in the background when it is due.
    fn layer(&self, container: &Arc<Container>) -> Option<LayerUsage> {
        let path = container.target.writable_layer.clone()?;
        let mut layer = lock(&container.layer);
        if !layer.counting && layer.due.is_none_or(|due| due <= Instant::now()) {
            layer.counting = true;
            tokio::spawn(count_layer(self.shared.clone(), container.clone(), path));
        }
        layer.last
    }
}

async fn count_layer(shared: Arc<Shared>, container: Arc<Container>, path: PathBuf) {
    // Never closed.
    let Ok(_turn) = shared.counting.acquire().await else { return };
    let start = Instant::now();
    let counted = tokio::task::spawn_blocking(move || layer::measure(&path)).await;
    let took = start.elapsed();
    let mut layer = lock(&container.layer);
    match counted {
        Ok(Ok(size)) => layer.last = Some(LayerUsage { at: Timestamp::now(), size }),
        // What was known before is still the best guess.
        Ok(Err(error)) => tracing::debug!(container = %container.target.id, %error, "layer not counted"),
        Err(error) => tracing::warn!(container = %container.target.id, %error, "layer not counted"),
    }
    layer.counting = false;
    layer.due = Some(Instant::now() + shared.options.layer_interval.max(took * LAYER_REST));
}

fn sum_cpu(containers: &[Arc<ContainerStats>]) -> Option<CpuUsage> {
    containers.iter().filter_map(|c| c.cpu).reduce(|a, b| CpuUsage {
        at: later(a.at, b.at),
        usage_core_nanos: a.usage_core_nanos.saturating_add(b.usage_core_nanos),
        usage_nano_cores: a.usage_nano_cores.zip(b.usage_nano_cores).map(|(a, b)| a.saturating_add(b)),
        pressure: None,
    })
}

fn sum_memory(containers: &[Arc<ContainerStats>]) -> Option<MemoryUsage> {
    containers.iter().filter_map(|c| c.memory).reduce(|a, b| MemoryUsage {
        at: later(a.at, b.at),
        working_set: a.working_set.saturating_add(b.working_set),
        available: a.available.zip(b.available).map(|(a, b)| a.saturating_add(b)),
        usage: a.usage.saturating_add(b.usage),
        rss: a.rss.saturating_add(b.rss),
        page_faults: a.page_faults.saturating_add(b.page_faults),
        major_page_faults: a.major_page_faults.saturating_add(b.major_page_faults),
        pressure: None,
    })
}

fn later(a: Timestamp, b: Timestamp) -> Timestamp {
    Timestamp(a.nanos().max(b.nanos()))
}

#[cfg(test)]
mod tests;
