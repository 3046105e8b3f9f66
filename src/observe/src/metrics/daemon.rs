//! crisp's own metrics.

use std::{
    collections::BTreeSet,
    fmt::Debug,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use crate::events::EventBus;

/// Label values of one kind: calls come with names from outside, and each name costs memory for good. The CRI has 43.
const MAX_NAMES: usize = 128;

/// What a name beyond that counts as.
const OTHER: &str = "other";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    method: String,
    code: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabel {
    method: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NetworkLabels {
    operation: String,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabel {
    operation: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

type Timings<L> = Family<L, Histogram, fn() -> Histogram>;

/// The registry and what is in it.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    names: Mutex<BTreeSet<String>>,
    calls: Family<CallLabels, Counter>,
    call_seconds: Timings<MethodLabel>,
    pulls: Family<ResultLabel, Counter>,
    pull_seconds: Histogram,
    network: Family<NetworkLabels, Counter>,
    network_seconds: Timings<OperationLabel>,
    oom_kills: Counter,
    pods: Family<StateLabel, Gauge>,
    containers: Family<StateLabel, Gauge>,
    events: Gauge,
    events_dropped: Gauge,
    event_clients: Gauge,
    resident: Gauge,
    descriptors: Gauge,
}

/// 0.5 ms to 65 s: from a list to a slow pull's worth of waiting.
fn call_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 2.0, 18))
}

fn result(ok: bool) -> ResultLabel {
    ResultLabel { result: if ok { "ok" } else { "error" } }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let metrics = Self {
            registry: Registry::default(),
            names: Mutex::default(),
            calls: Family::default(),
            call_seconds: Family::new_with_constructor(call_histogram),
            pulls: Family::default(),
            // 50 ms to 27 minutes.
            pull_seconds: Histogram::new(exponential_buckets(0.05, 2.0, 16)),
            network: Family::default(),
            network_seconds: Family::new_with_constructor(call_histogram),
            oom_kills: Counter::default(),
            pods: Family::default(),
            containers: Family::default(),
            events: Gauge::default(),
            events_dropped: Gauge::default(),
            event_clients: Gauge::default(),
            resident: Gauge::default(),
            descriptors: Gauge::default(),
        };
        metrics.registered()
    }

    fn registered(mut self) -> Self {
        let r = self.registry.sub_registry_with_prefix("crisp");
        r.register("cri_calls", "CRI calls by method and gRPC code", self.calls.clone());
        r.register("cri_call_duration_seconds", "How long CRI calls took", self.call_seconds.clone());
        r.register("image_pulls", "Image pulls by result", self.pulls.clone());
        r.register("image_pull_duration_seconds", "How long image pulls took", self.pull_seconds.clone());
        r.register("network_operations", "Pod network operations by result", self.network.clone());
        r.register(
            "network_operation_duration_seconds",
            "How long pod network operations took",
            self.network_seconds.clone(),
        );
        r.register(
            "containers_oom_killed",
            "Containers of which the kernel took a process for want of memory",
            self.oom_kills.clone(),
        );
        r.register("pods", "Pod sandboxes by state", self.pods.clone());
        r.register("containers", "Containers by state", self.containers.clone());
        r.register("events_published", "Lifecycle events since the daemon started", self.events.clone());
        r.register(
            "events_dropped",
            "Lifecycle events that slow clients missed",
            self.events_dropped.clone(),
        );
        r.register("event_clients", "Clients that read lifecycle events", self.event_clients.clone());
        self.registry.register("process_resident_memory_bytes", "Resident memory", self.resident.clone());
        self.registry.register("process_open_fds", "Open file descriptors", self.descriptors.clone());
        self
    }

    /// A CRI call that ended. `code` is the gRPC code's name.
    pub fn call(&self, method: &str, code: &str, took: Duration) {
        let (method, code) = (self.name(method), self.name(code));
        self.calls.get_or_create(&CallLabels { method: method.clone(), code }).inc();
        self.call_seconds.get_or_create(&MethodLabel { method }).observe(took.as_secs_f64());
    }

    /// An image pull that ended.
    pub fn pull(&self, ok: bool, took: Duration) {
        self.pulls.get_or_create(&result(ok)).inc();
        self.pull_seconds.observe(took.as_secs_f64());
    }

    /// A network operation (`add`, `del`, `check`…) that ended.
    pub fn network(&self, operation: &str, ok: bool, took: Duration) {
        let operation = self.name(operation);
        let labels = NetworkLabels { operation: operation.clone(), result: result(ok).result };
        self.network.get_or_create(&labels).inc();
        self.network_seconds.get_or_create(&OperationLabel { operation }).observe(took.as_secs_f64());
    }

    /// A container ended for want of memory.
    pub fn oom_killed(&self) {
        self.oom_kills.inc();
    }

    /// How many pods and containers are in each state now. Every state is named each time: a gauge keeps its last number.
    pub fn states(&self, pods: [(&'static str, u64); 2], containers: [(&'static str, u64); 4]) {
        for (family, states) in [(&self.pods, &pods[..]), (&self.containers, &containers[..])] {
            for (state, count) in states {
                family.get_or_create(&StateLabel { state }).set(i64::try_from(*count).unwrap_or(i64::MAX));
            }
        }
    }

    /// All of it in the OpenMetrics text format (`application/openmetrics-text; version=1.0.0; charset=utf-8`).
    pub fn render(&self, events: &EventBus) -> String {
        let counts = events.counts();
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.events.set(number(counts.published));
        self.events_dropped.set(number(counts.dropped));
        self.event_clients.set(number(counts.subscribers));
        self.resident.set(number(resident_bytes().unwrap_or(0)));
        self.descriptors.set(number(std::fs::read_dir("/proc/self/fd").map_or(0, |dir| dir.count() as u64)));
        let mut text = String::new();
        // A String takes whatever is written to it.
        let _ = encode(&mut text, &self.registry);
        text
    }

    fn name(&self, name: &str) -> String {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.contains(name) {
            return name.to_owned();
        }
        if names.len() >= MAX_NAMES || name.len() > 64 {
            return OTHER.to_owned();
        }
        names.insert(name.to_owned());
        name.to_owned()
    }
}

/// The second field of `/proc/self/statm` in pages.
fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten()?;
    pages.checked_mul(u64::try_from(size).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_in_the_text() {
        let dir = tempfile::tempdir().unwrap();
        let events = EventBus::open(dir.path()).unwrap();
        let metrics = Metrics::new();
        metrics.call("RunPodSandbox", "Ok", Duration::from_millis(12));
        metrics.call("RunPodSandbox", "Ok", Duration::from_millis(3));
        metrics.pull(false, Duration::from_secs(2));
        metrics.states(
            [("ready", 2), ("notready", 0)],
            [("created", 0), ("running", 3), ("exited", 1), ("unknown", 0)],
        );
        metrics.network("add", true, Duration::from_millis(9));
        metrics.oom_killed();
        let _client = events.subscribe();
        let text = metrics.render(&events);
        for line in [
            "crisp_cri_calls_total{method=\"RunPodSandbox\",code=\"Ok\"} 2",
            "crisp_cri_call_duration_seconds_count{method=\"RunPodSandbox\"} 2",
            "crisp_image_pulls_total{result=\"error\"} 1",
            "crisp_pods{state=\"ready\"} 2",
            "crisp_pods{state=\"notready\"} 0",
            "crisp_containers{state=\"exited\"} 1",
            "crisp_network_operations_total{operation=\"add\",result=\"ok\"} 1",
            "crisp_containers_oom_killed_total 1",
            "crisp_event_clients 1",
            "# EOF",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
        let resident = text.lines().find_map(|l| l.strip_prefix("process_resident_memory_bytes ")).unwrap();
        assert!(resident.parse::<u64>().unwrap() > 1 << 20);
    }

    #[test]
    fn names_from_outside_are_bounded() {
        let metrics = Metrics::new();
        for n in 0..1000 {
            metrics.call(&format!("M{n}"), "Ok", Duration::ZERO);
        }
        assert_eq!(metrics.names.lock().unwrap().len(), MAX_NAMES);
        assert_eq!(metrics.name("new"), OTHER);
        assert_eq!(metrics.name("M0"), "M0");
    }
}
