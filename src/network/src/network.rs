//! The pod network as the daemon sees it: which kind is in force, and the calls that go to either.
//!
//! New pods go to the network that is configured now; a pod that was attached stays with whatever attached it, and
//! is detached by its record alone.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use crisp_model::SandboxId;
use ipnet::IpNet;
use serde_json::{Value, json};
use tokio::{sync::watch, task::AbortHandle};

use crate::{
    Attached, Bandwidth, NetworkConfig, NetworkError, NetworkKind, NetworkStatus, PodAttachment,
    builtin::Builtin,
    cni::{self, Cni, Found, config::NetworkList},
};

/// A status older than this is renewed when somebody asks for it.
const FRESH: Duration = Duration::from_secs(10);
/// The same while there is no network: everybody waits for it.
const FRESH_NOT_READY: Duration = Duration::from_secs(1);

/// How long a start waits for the first status.
const FIRST_STATUS: Duration = Duration::from_millis(500);

/// The pod network. Clones are the same network.
#[derive(Debug, Clone)]
pub struct Network {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: NetworkConfig,
    cni: Cni,
    builtin: Builtin,
    status: watch::Sender<NetworkStatus>,
    /// Held for a moment, never over an await.
    now: Mutex<Now>,
    watcher: Mutex<Option<AbortHandle>>,
}

/// What is in force.
#[derive(Debug, Clone)]
struct Now {
    source: Source,
    renewed: Instant,
    renewing: bool,
}

#[derive(Debug, Clone, PartialEq)]
enum Source {
    Cni(PathBuf, Arc<NetworkList>),
    Builtin,
    None(String),
}

impl Drop for Inner {
    fn drop(&mut self) {
        let watcher = self.watcher.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(watcher) = watcher.take() {
            watcher.abort();
        }
    }
}

impl Network {
    /// Takes up what an earlier run left and finds out which network is configured. Pods that were attached then are
    /// neither touched nor looked at; see [`Network::gc`].
    ///
    /// Fails if the state cannot be read. A bad CNI configuration or a host that refuses is no failure: it shows in
    /// the status, and may be mended while the daemon runs.
    pub async fn open(config: NetworkConfig) -> Result<Self, NetworkError> {
        let cni = Cni::open(&config)?;
        let builtin = Builtin::open(config.builtin.clone())?;
        let now = Now { source: Source::None(String::new()), renewed: Instant::now(), renewing: false };
        let inner = Arc::new(Inner {
            config,
            cni,
            builtin,
            status: watch::Sender::new(NetworkStatus::not_ready(
                NetworkKind::None,
                "NetworkStarting",
                "it is not known yet whether the configured network works".to_owned(),
                Value::Null,
            )),
            now: Mutex::new(now),
            watcher: Mutex::new(None),
        });
        let watched = cni::watch(&inner.config.cni_conf_dir);
        inner.reload();
        // A plugin that hangs must not keep the daemon from starting.
        let first = inner.clone();
        let _ = tokio::time::timeout(FIRST_STATUS, tokio::spawn(async move { first.renew().await })).await;
        match watched {
            Ok(watched) => {
                let task = tokio::spawn(follow(Arc::downgrade(&inner), watched));
                *inner.watcher.lock().unwrap_or_else(PoisonError::into_inner) = Some(task.abort_handle());
            }
            Err(error) => tracing::warn!(%error, "the CNI configuration folder cannot be watched"),
        }
        Ok(Self { inner })
    }

    /// Attaches a pod. After a failure nothing is left but what [`Network::detach`] frees, and the pod's network
    /// namespace must not be used again.
    pub async fn attach(&self, pod: &PodAttachment) -> Result<Attached, NetworkError> {
        let bandwidth = Bandwidth::from_annotations(&pod.annotations)?;
        match self.inner.source() {
            Source::Cni(_, list) => {
                let netns = pod.netns.clone();
                self.inner.builtin.run(move |engine| engine.loopback_up(&netns)).await??;
                self.inner.cni.add(&list, pod).await
            }
            Source::Builtin => {
                let pod = pod.clone();
                self.inner.builtin.run(move |engine| engine.attach(&pod, bandwidth)).await?
            }
            Source::None(message) => Err(NetworkError::NotReady { message }),
        }
    }

    /// Gives back all that the sandbox has: addresses, host ports, and whatever plugins made. Needs nothing but what
    /// was written down: neither the configuration nor the namespace. A sandbox that has nothing is fine. After an
    /// error it can be called again and goes on with what is left.
    pub async fn detach(&self, sandbox: &SandboxId) -> Result<(), NetworkError> {
        let id = sandbox.clone();
        let builtin = self.inner.builtin.run(move |engine| engine.detach(&id)).await.and_then(|done| done);
        let cni = self.inner.cni.del(sandbox).await;
        NetworkError::collected(builtin.err().into_iter().chain(cni.err()).collect())
    }

    /// Whether what was made for the sandbox is still as it was.
    pub async fn check(&self, sandbox: &SandboxId) -> Result<(), NetworkError> {
        if self.inner.cni.holds(sandbox)? {
            return self.inner.cni.check(sandbox).await;
        }
        let id = sandbox.clone();
        self.inner.builtin.run(move |engine| engine.check(&id)).await?
    }

    /// Frees what earlier runs gave to sandboxes that are not among the live ones, for use after a start; returns how
    /// many there were. What was attached since [`Network::open`] is left alone, so it may run beside new requests. With
    /// plugins of version 1.1, also asks these to free what they know of and nobody has.
    pub async fn gc(&self, live: &[SandboxId]) -> Result<usize, NetworkError> {
        let list = match self.inner.source() {
            Source::Cni(_, list) => Some(list),
            _ => None,
        };
        let ids = live.to_vec();
        let builtin = self.inner.builtin.run(move |engine| engine.gc(&ids)).await.and_then(|done| done);
        let cni = self.inner.cni.gc(live, list.as_deref()).await;
        match (builtin, cni) {
            (Ok(a), Ok(b)) => Ok(a + b),
            (a, b) => Err(NetworkError::Several(a.err().into_iter().chain(b.err()).collect())),
        }
    }

    /// Whether pods can get a network. Never waits; an answer that has become old is renewed behind the scenes, so
    /// nothing is asked of plugins while nobody asks this.
    pub fn status(&self) -> NetworkStatus {
        let status = self.inner.status.borrow().clone();
        if self.inner.may_renew(status.ready) {
            let inner = self.inner.clone();
            tokio::spawn(async move {
                // Also if the folder cannot be watched.
                inner.reload();
                inner.renew().await;
            });
        }
        status
    }

    /// The status as it changes.
    pub fn changed(&self) -> watch::Receiver<NetworkStatus> {
        self.inner.status.subscribe()
    }

    /// Gives the built-in network the subnets that the kubelet wants (CRI `UpdateRuntimeConfig`). Pods keep the
    /// addresses that they have.
    pub async fn set_pod_cidr(&self, cidrs: &[IpNet]) -> Result<(), NetworkError> {
        if cidrs.is_empty() {
            return Ok(());
        }
        let cidrs = cidrs.to_vec();
        self.inner.builtin.run(move |engine| engine.set_subnets(&cidrs)).await??;
        self.inner.renew().await;
        Ok(())
    }

    /// Removes the built-in network from the host: bridge, rules, sysctls. Refuses while a pod uses it. The next pod
    /// brings it back.
    pub async fn uninstall(&self) -> Result<(), NetworkError> {
        self.inner.builtin.run(|engine| engine.uninstall()).await?
    }
}

async fn follow(inner: Weak<Inner>, mut watched: cni::Watch) {
    loop {
        if let Err(error) = watched.changed().await {
            tracing::warn!(%error, "the CNI configuration folder is not watched any more");
            return;
        }
        let Some(inner) = inner.upgrade() else { return };
        // Other files of the folder change, too: plugins keep their credentials there.
        if inner.reload() {
            inner.renew().await;
        }
    }
}

impl Inner {
    fn source(&self) -> Source {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).source.clone()
    }

    /// Reads the configuration folder; returns whether it says something new.
    fn reload(&self) -> bool {
        let source = match cni::load(&self.config.cni_conf_dir) {
            Found::Network(path, list) => Source::Cni(path, Arc::new(list)),
            Found::Broken(path, error) => Source::None(format!("{}: {error}", path.display())),
            Found::Nothing if self.config.builtin.enabled => Source::Builtin,
            Found::Nothing => Source::None(format!(
                "no CNI configuration in {}, and the built-in network is disabled",
                self.config.cni_conf_dir.display()
            )),
        };
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let new = now.source != source;
        if new {
            tracing::info!(?source, "pod network");
            now.source = source;
        }
        new
    }

    fn may_renew(&self, ready: bool) -> bool {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let old = now.renewed.elapsed() > if ready { FRESH } else { FRESH_NOT_READY };
        let renew = old && !now.renewing;
        now.renewing |= renew;
        renew
    }

    /// Finds the status out and publishes it.
    async fn renew(&self) {
        let status = match self.source() {
            Source::Cni(path, list) => self.cni_status(&path, &list).await,
            Source::Builtin => self.builtin_status().await,
            Source::None(message) => NetworkStatus::not_ready(
                NetworkKind::None,
                "NoUsableNetworkConfiguration",
                message,
                Value::Null,
            ),
        };
        self.status.send_if_modified(|old| {
            let changed = *old != status;
            if changed && (old.ready != status.ready || old.kind != status.kind) {
                tracing::info!(ready = status.ready, kind = ?status.kind, status.message, "pod network status");
            }
            *old = status;
            changed
        });
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        now.renewed = Instant::now();
        now.renewing = false;
    }

    async fn cni_status(&self, path: &std::path::Path, list: &NetworkList) -> NetworkStatus {
        let plugins: Vec<&str> = list.plugins.iter().map(|p| p.kind.as_str()).collect();
        let details = json!({
            "network": list.name, "cniVersion": list.version.text(), "file": path, "plugins": plugins,
        });
        match self.cni.status(list).await {
            Ok(()) => NetworkStatus::ready(NetworkKind::Cni, details),
            Err(error) => {
                let reason = match error {
                    NetworkError::PluginMissing { .. } => "NetworkPluginMissing",
                    _ => "NetworkPluginNotReady",
                };
                NetworkStatus::not_ready(NetworkKind::Cni, reason, error.to_string(), details)
            }
        }
    }

    async fn builtin_status(&self) -> NetworkStatus {
        let asked = self.builtin.run(|engine| {
            let ready = engine.verify();
            (ready, engine.firewall_kind(), engine.usage())
        });
        let (ready, firewall, usage) = match asked.await {
            Ok(answer) => answer,
            Err(error) => (Err(error), "none", Vec::new()),
        };
        let subnets: Vec<Value> = usage
            .into_iter()
            .map(|(subnet, used, size)| json!({"subnet": subnet, "used": used, "size": size}))
            .collect();
        let details = json!({"bridge": self.config.builtin.bridge, "firewall": firewall, "subnets": subnets});
        match ready {
            Ok(()) => NetworkStatus::ready(NetworkKind::Builtin, details),
            Err(error) => NetworkStatus::not_ready(
                NetworkKind::Builtin,
                "BuiltinNetworkFailed",
                error.to_string(),
                details,
            ),
        }
    }
}
