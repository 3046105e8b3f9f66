//! CNI: the runtime's side of the Container Network Interface, versions 0.3.1 to 1.1.0.
//!
//! ```text
//!   ADD:  record (intent) -> each plugin in order, with its predecessor's result -> record with the result
//!         a failure or an end of the caller leaves the record: DEL
//!   DEL:  from the record alone, in reverse order, on past errors -> record removed
//! ```

pub mod config;
mod plugin;
mod record;
pub mod result;
mod runtime;
mod source;
pub mod version;
mod watch;

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use crisp_model::SandboxId;
use nix::sys::statfs::{FsType, statfs};
use serde_json::{Map, Value, json};
use tokio::sync::RwLock;

use crate::{Attached, Deadlines, INTERFACE, NetworkConfig, NetworkError, PodAttachment, Verb, files};
use config::{NetworkList, Plugin};
use plugin::Call;
use record::Record;
use result::CniResult;
pub(crate) use source::{Found, load};
pub(crate) use watch::{Watch, watch};

/// After so many DELs that found a plugin's binary missing, the rest of the removal counts: its owner has taken the
/// plugin from the host, and the pod must still be removable.
const MISSING_IS_GONE: u32 = 3;
/// Error code 1 of the specification.
const INCOMPATIBLE_VERSION: u64 = 1;
/// Plugins whose versions are remembered; more than any configuration has.
const MAX_KNOWN_PLUGINS: usize = 64;
/// `NSFS_MAGIC` of statfs(2), which libc has only for some targets.
const NSFS: FsType = FsType(0x6e73_6673);

/// What plugins said of their versions, by binary and its time of change. Held for a moment, never over an await.
type Versions = HashMap<(PathBuf, Option<SystemTime>), Vec<String>>;

/// The plugins of this host.
#[derive(Debug)]
pub(crate) struct Cni {
    folders: Vec<PathBuf>,
    cache: PathBuf,
    deadlines: Deadlines,
    boot: String,
    versions: Mutex<Versions>,
    /// Attached by this run.
    own: Mutex<HashSet<SandboxId>>,
    /// Many ADDs and DELs, or one GC: the specification demands it. The one lock here that is held over an await;
    /// every holder has a deadline for each plugin.
    gate: RwLock<()>,
}

impl Cni {
    pub(crate) fn open(config: &NetworkConfig) -> Result<Self, NetworkError> {
        files::make_folder(&config.cni_cache_dir)?;
        Ok(Self {
            folders: config.cni_bin_dirs.clone(),
            cache: config.cni_cache_dir.clone(),
            deadlines: config.deadlines.clone(),
            boot: files::boot_id()?,
            versions: Mutex::default(),
            own: Mutex::default(),
            gate: RwLock::default(),
        })
    }

    async fn call(
        &self,
        verb: Verb,
        record: &Record,
        plugin: &Plugin,
        previous: Option<&CniResult>,
    ) -> Result<Vec<u8>, NetworkError> {
        let netns = self.netns(record);
        let call = Call {
            verb,
            container: record.sandbox.as_str(),
            netns: &netns,
            interface: &record.interface,
            args: &record.args,
            deadline: self.deadlines.of(verb),
        };
        let mut config = base(&record.list, plugin);
        let values = runtime::for_plugin(&record.runtime, plugin);
        if !values.is_empty() {
            config.insert("runtimeConfig".to_owned(), Value::Object(values));
        }
        if let Some(previous) = previous {
            config.insert("prevResult".to_owned(), previous.to_value(record.list.version));
        }
        plugin::run(&plugin.kind, &self.folders, &call, &Value::Object(config)).await
    }

    /// The path for `CNI_NETNS`: empty if there is no such namespace (any more), as the specification has it for
    /// DEL. A path of an earlier boot must not be used: whatever is there now is not the pod's.
    fn netns(&self, record: &Record) -> String {
        let there = record.boot == self.boot && is_namespace(&record.netns);
        if there { record.netns.display().to_string() } else { String::new() }
    }

    /// ADD. A failure has been followed by DEL; if that failed too, the record stays for [`Cni::del`].
    pub(crate) async fn add(
        &self,
        list: &NetworkList,
        pod: &PodAttachment,
    ) -> Result<Attached, NetworkError> {
        if !is_namespace(&pod.netns) {
            let problem = format!("{} is not a namespace", pod.netns.display());
            return Err(NetworkError::Invalid { field: "netns", problem });
        }
        let mut record = Record {
            version: record::VERSION,
            boot: self.boot.clone(),
            sandbox: pod.sandbox.clone(),
            list: list.clone(),
            netns: pod.netns.clone(),
            interface: INTERFACE.to_owned(),
            args: runtime::args(pod)?,
            runtime: runtime::values(pod)?,
            result: None,
            missing: 0,
        };
        let _gate = self.gate.read().await;
        self.own.lock().unwrap_or_else(PoisonError::into_inner).insert(pod.sandbox.clone());
        record.save(&self.cache).await?;
        let added = match self.chain(&record).await {
            Ok(result) => {
                let attached = result.attached(INTERFACE);
                record.result = Some(result);
                record.save(&self.cache).await.map(|()| attached)
            }
            Err(error) => Err(error),
        };
        if added.is_err()
            && let Err(error) = self.del_record(record).await
        {
            tracing::warn!(sandbox = %pod.sandbox, %error, "DEL after a failed ADD failed too; it is tried again");
        }
        added
    }

    async fn chain(&self, record: &Record) -> Result<CniResult, NetworkError> {
        let mut previous: Option<CniResult> = None;
        for plugin in &record.list.plugins {
            let answer = self.call(Verb::Add, record, plugin, previous.as_ref()).await?;
            let result = CniResult::parse(&answer).map_err(|e| NetworkError::PluginAnswer {
                plugin: plugin.kind.clone(),
                verb: Verb::Add,
                problem: e.to_string(),
            })?;
            previous = Some(result);
        }
        let result = previous.unwrap_or_default();
        match (result.attached(INTERFACE).ips.is_empty(), record.list.plugins.last()) {
            (true, Some(last)) => Err(NetworkError::PluginAnswer {
                plugin: last.kind.clone(),
                verb: Verb::Add,
                problem: "the result has no address for the pod".to_owned(),
            }),
            _ => Ok(result),
        }
    }

    /// DEL of what the record says; nothing if there is none.
    pub(crate) async fn del(&self, sandbox: &SandboxId) -> Result<(), NetworkError> {
        match Record::load(&self.cache, sandbox)? {
            Some(record) => {
                let _gate = self.gate.read().await;
                self.del_record(record).await
            }
            None => Ok(()),
        }
    }

    async fn del_record(&self, mut record: Record) -> Result<(), NetworkError> {
        let previous = record.result.clone().filter(|_| record.list.version.has_check());
        let mut errors = Vec::new();
        for plugin in record.list.plugins.iter().rev() {
            if let Err(error) = self.call(Verb::Del, &record, plugin, previous.as_ref()).await {
                errors.push(error);
            }
        }
        let missing = |e: &NetworkError| matches!(e, NetworkError::PluginMissing { .. });
        if !errors.is_empty() && errors.iter().all(missing) {
            record.missing += 1;
            if record.missing >= MISSING_IS_GONE {
                tracing::warn!(sandbox = %record.sandbox, ?errors, "the pod's plugins have gone: removed without");
                errors.clear();
            } else {
                record.save(&self.cache).await?;
            }
        }
        NetworkError::collected(errors)?;
        self.own.lock().unwrap_or_else(PoisonError::into_inner).remove(&record.sandbox);
        Record::remove(&self.cache, &record.sandbox)
    }

    /// Whether the sandbox was attached by plugins.
    pub(crate) fn holds(&self, sandbox: &SandboxId) -> Result<bool, NetworkError> {
        Ok(Record::load(&self.cache, sandbox)?.is_some())
    }

    /// CHECK, where the version has it and the configuration wants it.
    pub(crate) async fn check(&self, sandbox: &SandboxId) -> Result<(), NetworkError> {
        let Some(record) = Record::load(&self.cache, sandbox)? else {
            return Err(NetworkError::host("check", sandbox, nix::errno::Errno::ENOENT));
        };
        if record.list.disable_check || !record.list.version.has_check() {
            return Ok(());
        }
        for plugin in &record.list.plugins {
            self.call(Verb::Check, &record, plugin, record.result.as_ref()).await?;
        }
        Ok(())
    }

    /// DEL for all records of earlier runs whose sandboxes do not live, then GC of the network in force, if its
    /// version has it.
    pub(crate) async fn gc(
        &self,
        live: &[SandboxId],
        list: Option<&NetworkList>,
    ) -> Result<usize, NetworkError> {
        let _gate = self.gate.write().await;
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let lives = |r: &Record| live.contains(&r.sandbox) || own.contains(&r.sandbox);
        let (keep, dead): (Vec<Record>, Vec<Record>) =
            Record::load_all(&self.cache)?.into_iter().partition(lives);
        let mut errors = Vec::new();
        let count = dead.len();
        for record in dead {
            errors.extend(self.del_record(record).await.err());
        }
        if let Some(list) = list.filter(|l| l.version.has_status_and_gc() && !l.disable_gc) {
            let valid: Vec<Value> = keep
                .iter()
                .filter(|r| r.list.name == list.name)
                .map(|r| json!({"containerID": r.sandbox.as_str(), "ifname": r.interface}))
                .collect();
            for plugin in &list.plugins {
                let mut config = base(list, plugin);
                config.insert("cni.dev/valid-attachments".to_owned(), json!(valid));
                errors.extend(self.ask(Verb::Gc, plugin, config).await.err());
            }
        }
        NetworkError::collected(errors).map(|()| count)
    }

    /// Whether ADD would work, as far as the plugins can say.
    pub(crate) async fn status(&self, list: &NetworkList) -> Result<(), NetworkError> {
        for plugin in &list.plugins {
            let binary = plugin::find(&plugin.kind, Verb::Add, &self.folders)?;
            self.check_version(list, plugin, &binary).await?;
        }
        if list.version.has_status_and_gc() {
            for plugin in &list.plugins {
                self.ask(Verb::Status, plugin, base(list, plugin)).await?;
            }
        }
        Ok(())
    }

    /// Whether the plugin speaks the version of the configuration. It is asked once for each state of its binary. A
    /// plugin that does not answer VERSION is given the benefit of the doubt: ADD will tell.
    async fn check_version(
        &self,
        list: &NetworkList,
        plugin: &Plugin,
        binary: &Path,
    ) -> Result<(), NetworkError> {
        let changed = std::fs::metadata(binary).and_then(|m| m.modified()).ok();
        let key = (binary.to_owned(), changed);
        let known = self.versions.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let versions = match known {
            Some(versions) => versions,
            None => {
                let versions = self.ask_versions(list, plugin).await.unwrap_or_else(|error| {
                    tracing::debug!(%error, "a plugin does not name its versions");
                    Vec::new()
                });
                let mut known = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
                if known.len() >= MAX_KNOWN_PLUGINS {
                    known.clear();
                }
                known.insert(key, versions.clone());
                versions
            }
        };
        let wanted = list.version.text();
        if versions.is_empty() || versions.iter().any(|v| v == wanted) {
            return Ok(());
        }
        Err(NetworkError::Plugin {
            plugin: plugin.kind.clone(),
            verb: Verb::Version,
            code: INCOMPATIBLE_VERSION,
            message: format!("version {wanted} of the configuration is not among its own"),
            details: versions.join(", "),
        })
    }

    async fn ask_versions(&self, list: &NetworkList, plugin: &Plugin) -> Result<Vec<String>, NetworkError> {
        let config = Map::from_iter([("cniVersion".to_owned(), json!(list.version.text()))]);
        let answer = self.ask(Verb::Version, plugin, config).await?;
        let bad = |problem: String| NetworkError::PluginAnswer {
            plugin: plugin.kind.clone(),
            verb: Verb::Version,
            problem,
        };
        let value: Value = serde_json::from_slice(&answer).map_err(|e| bad(e.to_string()))?;
        let list = value.get("supportedVersions").and_then(Value::as_array);
        let list = list.ok_or_else(|| bad("no supportedVersions".to_owned()))?;
        Ok(list.iter().filter_map(Value::as_str).take(64).map(str::to_owned).collect())
    }

    async fn ask(
        &self,
        verb: Verb,
        plugin: &Plugin,
        config: Map<String, Value>,
    ) -> Result<Vec<u8>, NetworkError> {
        let deadline = self.deadlines.of(verb);
        let call = Call { verb, container: "", netns: "", interface: "", args: "", deadline };
        plugin::run(&plugin.kind, &self.folders, &call, &Value::Object(config)).await
    }
}

/// A plugin's configuration with what every call adds.
fn base(list: &NetworkList, plugin: &Plugin) -> Map<String, Value> {
    let mut config = plugin.config.clone();
    config.insert("name".to_owned(), json!(list.name));
    config.insert("cniVersion".to_owned(), json!(list.version.text()));
    config
}

fn is_namespace(path: &Path) -> bool {
    statfs(path).is_ok_and(|fs| fs.filesystem_type() == NSFS)
}
