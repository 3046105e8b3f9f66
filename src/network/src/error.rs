//! Why an operation on a pod's network failed.

use std::{fmt, net::IpAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::pod::InvalidBandwidth;

/// What a CNI plugin is asked to do (CNI specification, "CNI operations").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verb {
    /// Attach.
    Add,
    /// Detach.
    Del,
    /// Look whether it is still attached.
    Check,
    /// Say whether ADD would work.
    Status,
    /// Free what belongs to no attachment.
    Gc,
    /// Name the supported versions.
    Version,
}

impl Verb {
    /// As `CNI_COMMAND` has it.
    pub fn name(self) -> &'static str {
        match self {
            Verb::Add => "ADD",
            Verb::Del => "DEL",
            Verb::Check => "CHECK",
            Verb::Status => "STATUS",
            Verb::Gc => "GC",
            Verb::Version => "VERSION",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What went wrong. The variants are what a caller can tell apart; texts name operation, object and cause.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// No network: neither CNI configuration nor the built-in one. The text is that of the status.
    #[error("the pod network is not ready: {message}")]
    NotReady {
        /// Why.
        message: String,
    },
    /// The request cannot be carried out as it stands.
    #[error("{field}: {problem}")]
    Invalid {
        /// The field of the request or of the configuration.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// All addresses of a subnet are in use.
    #[error("no free address in {subnet}: all {size} are in use. Hint: use a larger subnet or remove pods")]
    Exhausted {
        /// The subnet.
        subnet: ipnet::IpNet,
        /// How many it has for pods.
        size: u64,
    },
    /// Another pod has the host port.
    #[error("host port {protocol} {port} on {} belongs to sandbox {holder}", address(.host_ip))]
    PortTaken {
        /// Transport.
        protocol: &'static str,
        /// Host port.
        port: u16,
        /// Host address; `None`: all.
        host_ip: Option<IpAddr>,
        /// Who has it.
        holder: crisp_model::SandboxId,
    },
    /// A plugin is in none of the folders.
    #[error("CNI plugin {plugin} ({verb}): not found in {}", folders(.searched))]
    PluginMissing {
        /// Its type.
        plugin: String,
        /// What it was wanted for.
        verb: Verb,
        /// Where it was looked for.
        searched: Vec<PathBuf>,
    },
    /// A plugin refused (CNI specification, "Error").
    #[error("CNI plugin {plugin} {verb}: {message} (code {code}){}", detail(.details))]
    Plugin {
        /// Its type.
        plugin: String,
        /// What it was asked to do.
        verb: Verb,
        /// Error code; 1 to 99 are defined by the specification.
        code: u64,
        /// Its words.
        message: String,
        /// More of them, or what it wrote to standard error.
        details: String,
    },
    /// A plugin took longer than it may, and was killed.
    #[error("CNI plugin {plugin} {verb}: killed after {} s without an answer{}", .after.as_secs(), detail(.details))]
    PluginTimeout {
        /// Its type.
        plugin: String,
        /// What it was asked to do.
        verb: Verb,
        /// The deadline.
        after: Duration,
        /// What it wrote to standard error.
        details: String,
    },
    /// A plugin answered something that is not what the specification says.
    #[error("CNI plugin {plugin} {verb}: bad answer: {problem}")]
    PluginAnswer {
        /// Its type.
        plugin: String,
        /// What it was asked to do.
        verb: Verb,
        /// What is wrong.
        problem: String,
    },
    /// The host refused.
    #[error("{operation} {object}: {cause}")]
    Host {
        /// What was tried.
        operation: &'static str,
        /// On what.
        object: String,
        /// Why it failed.
        #[source]
        cause: std::io::Error,
    },
    /// Several steps of a removal failed. All others were done.
    #[error("{}", list(.0))]
    Several(Vec<NetworkError>),
}

impl NetworkError {
    pub(crate) fn host(
        operation: &'static str,
        object: impl fmt::Display,
        cause: impl Into<std::io::Error>,
    ) -> Self {
        Self::Host { operation, object: object.to_string(), cause: cause.into() }
    }

    /// The errors of a removal as one, or `Ok` if there is none.
    pub(crate) fn collected(mut errors: Vec<NetworkError>) -> Result<(), NetworkError> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Self::Several(errors)),
        }
    }
}

impl From<InvalidBandwidth> for NetworkError {
    fn from(error: InvalidBandwidth) -> Self {
        Self::Invalid { field: "annotations", problem: error.to_string() }
    }
}

impl From<crate::netlink::NetlinkError> for std::io::Error {
    fn from(error: crate::netlink::NetlinkError) -> Self {
        error.errno.into()
    }
}

fn address(host_ip: &Option<IpAddr>) -> String {
    host_ip.map_or_else(|| "all addresses".to_owned(), |ip| ip.to_string())
}

fn folders(paths: &[PathBuf]) -> String {
    paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn detail(details: &str) -> String {
    if details.is_empty() { String::new() } else { format!(": {details}") }
}

fn list(errors: &[NetworkError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
