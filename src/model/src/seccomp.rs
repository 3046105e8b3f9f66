//! A system call filter, ready to be compiled: what is left of a profile once it is known which capabilities the
//! container has and what machine it runs on.
//!
//! Names and JSON are those of the OCI runtime spec (`linux.seccomp`).

use serde::{Deserialize, Serialize};

/// A filter. The rules' order does not matter: for one call the most specific rule holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Filter {
    /// For calls that no rule names.
    pub default_action: Action,
    /// Error number of a default action that has one; `None`: `EPERM`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_errno_ret: Option<u16>,
    /// `SCMP_ARCH_…` that programs may be of, beside the machine's own.
    #[serde(default)]
    pub architectures: Vec<String>,
    /// `SECCOMP_FILTER_FLAG_…` for seccomp(2).
    #[serde(default)]
    pub flags: Vec<String>,
    /// Rules.
    #[serde(default)]
    pub syscalls: Vec<Rule>,
}

/// What happens to some calls.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// Names of calls. One that this machine does not have is not an error.
    pub names: Vec<String>,
    /// What happens.
    pub action: Action,
    /// Error number (or value for the tracer); `None`: `EPERM`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno_ret: Option<u16>,
    /// Conditions. All must hold, except that several on one argument are alternatives.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<Argument>,
}

/// What happens to a call (`seccomp(2)`). The notifying action is left out: nobody would answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Action {
    /// It is made.
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    /// It fails with an error number.
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    /// The thread is killed.
    #[serde(rename = "SCMP_ACT_KILL", alias = "SCMP_ACT_KILL_THREAD")]
    Kill,
    /// The process is killed.
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    /// The thread gets SIGSYS.
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
    /// A tracer is asked.
    #[serde(rename = "SCMP_ACT_TRACE")]
    Trace,
    /// It is logged and made.
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
}

/// A condition on an argument of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Argument {
    /// Which, from 0 to 5.
    pub index: u32,
    /// What it is compared with; for [`Compare::MaskedEqual`] the mask.
    pub value: u64,
    /// For [`Compare::MaskedEqual`]: what the masked argument is compared with.
    #[serde(default)]
    pub value_two: u64,
    /// How.
    pub op: Compare,
}

/// How an argument is compared, as an unsigned number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Compare {
    /// `!=`
    #[serde(rename = "SCMP_CMP_NE")]
    NotEqual,
    /// `<`
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    /// `<=`
    #[serde(rename = "SCMP_CMP_LE")]
    LessOrEqual,
    /// `==`
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    /// `>=`
    #[serde(rename = "SCMP_CMP_GE")]
    GreaterOrEqual,
    /// `>`
    #[serde(rename = "SCMP_CMP_GT")]
    Greater,
    /// `argument & value == value_two`
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}
