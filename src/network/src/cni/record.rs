//! What is known of a pod's attachment by plugins: one file a pod, with all that DEL needs.
//!
//! Written (and synced) before ADD and again with its result; removed when DEL has succeeded. It holds the
//! configuration itself, so DEL needs neither the file in `/etc/cni/net.d` nor the pod.

use std::path::{Path, PathBuf};

use crisp_model::SandboxId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{config::NetworkList, result::CniResult};
use crate::{NetworkError, files};

/// Version of the record's form.
pub(super) const VERSION: u32 = 1;

/// See the module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// [`VERSION`].
    pub version: u32,
    /// Boot in which `netns` is what it was.
    pub boot: String,
    /// Whose it is.
    pub sandbox: SandboxId,
    /// The network as it was configured at ADD.
    pub list: NetworkList,
    /// The pod's network namespace.
    pub netns: PathBuf,
    /// Interface inside.
    pub interface: String,
    /// `CNI_ARGS`.
    pub args: String,
    /// Values for the capabilities, whether or not a plugin wants them.
    pub runtime: Map<String, Value>,
    /// The last plugin's result; `None`: ADD has not come to its end.
    #[serde(default)]
    pub result: Option<CniResult>,
    /// How often DEL found a plugin's binary missing.
    #[serde(default)]
    pub missing: u32,
}

impl Record {
    fn path(folder: &Path, sandbox: &SandboxId) -> PathBuf {
        folder.join(format!("{sandbox}.json"))
    }

    /// Writes it down, durably.
    pub(super) async fn save(&self, folder: &Path) -> Result<(), NetworkError> {
        let (path, record) = (Self::path(folder, &self.sandbox), self.clone());
        let write = tokio::task::spawn_blocking(move || files::write(&path, &record, true));
        write.await.map_err(|e| NetworkError::host("write", "network record", std::io::Error::other(e)))?
    }

    /// That of a sandbox, if there is one.
    pub(super) fn load(folder: &Path, sandbox: &SandboxId) -> Result<Option<Self>, NetworkError> {
        files::read(&Self::path(folder, sandbox))
    }

    /// All.
    pub(super) fn load_all(folder: &Path) -> Result<Vec<Self>, NetworkError> {
        files::read_all(folder)
    }

    /// Forgets it.
    pub(super) fn remove(folder: &Path, sandbox: &SandboxId) -> Result<(), NetworkError> {
        files::remove(&Self::path(folder, sandbox))
    }
}
