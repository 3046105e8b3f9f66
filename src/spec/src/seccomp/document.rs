//! The JSON of a profile.

use crisp_model::seccomp::{Action, Argument, Filter, Rule};
use serde::Deserialize;

use super::Machine;

/// Longest profile that is read, bytes. The one that every runtime ships has 20 KiB.
pub const MAX_PROFILE: usize = 1 << 20;

/// Most rules times names: what libseccomp compiles within a second.
const MAX_NAMES: usize = 16_384;

/// Why a text is not a profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// Too much.
    #[error("it is too large: at most {MAX_PROFILE} bytes and {MAX_NAMES} names of system calls are read")]
    TooLarge,
    /// Not the JSON of a profile.
    #[error("{0}")]
    Json(String),
    /// A value that cannot be.
    #[error("{place}: {reason}")]
    Value {
        /// `syscalls[3].args[0].index`
        place: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// A profile, parsed and checked, its conditions not yet resolved.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    default_action: Action,
    #[serde(default)]
    default_errno_ret: Option<u16>,
    #[serde(default, deserialize_with = "nullable")]
    architectures: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    arch_map: Vec<Architecture>,
    #[serde(default, deserialize_with = "nullable")]
    flags: Vec<String>,
    #[serde(default)]
    listener_path: String,
    #[serde(default, deserialize_with = "nullable")]
    syscalls: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Architecture {
    architecture: String,
    #[serde(default, deserialize_with = "nullable")]
    sub_architectures: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    /// One name, as the oldest profiles have it.
    #[serde(default)]
    name: String,
    #[serde(default, deserialize_with = "nullable")]
    names: Vec<String>,
    action: Action,
    #[serde(default)]
    errno_ret: Option<u16>,
    #[serde(default, deserialize_with = "nullable")]
    args: Vec<Argument>,
    #[serde(default, deserialize_with = "nullable")]
    includes: Condition,
    #[serde(default, deserialize_with = "nullable")]
    excludes: Condition,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    #[serde(default, deserialize_with = "nullable")]
    caps: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    arches: Vec<String>,
    #[serde(default)]
    min_kernel: Option<String>,
}

/// Go writes `null` for an empty list.
fn nullable<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

/// `4.8` or `4.8.0-1` to its first two numbers.
fn kernel(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.splitn(3, '.');
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next().unwrap_or("0");
    let digits = minor.find(|c: char| !c.is_ascii_digit()).unwrap_or(minor.len());
    Some((major, minor[..digits].parse().ok()?))
}

const ARCHITECTURES: [&str; 20] = [
    "X86",
    "X86_64",
    "X32",
    "ARM",
    "AARCH64",
    "LOONGARCH64",
    "M68K",
    "MIPS",
    "MIPS64",
    "MIPS64N32",
    "MIPSEL",
    "MIPSEL64",
    "MIPSEL64N32",
    "PPC",
    "PPC64",
    "PPC64LE",
    "S390",
    "S390X",
    "PARISC",
    "RISCV64",
];

/// `SCMP_ARCH_…` of an architecture as Go spells it.
fn scmp(arch: &str) -> &'static str {
    match arch {
        "amd64" => "SCMP_ARCH_X86_64",
        "arm64" => "SCMP_ARCH_AARCH64",
        "386" => "SCMP_ARCH_X86",
        "arm" => "SCMP_ARCH_ARM",
        "loong64" => "SCMP_ARCH_LOONGARCH64",
        "ppc64le" => "SCMP_ARCH_PPC64LE",
        "riscv64" => "SCMP_ARCH_RISCV64",
        "s390x" => "SCMP_ARCH_S390X",
        _ => "",
    }
}

impl Document {
    /// Reads and checks a profile.
    pub fn parse(text: &str) -> Result<Document, ProfileError> {
        if text.len() > MAX_PROFILE {
            return Err(ProfileError::TooLarge);
        }
        let document: Document =
            serde_json::from_str(text).map_err(|error| ProfileError::Json(error.to_string()))?;
        document.check()?;
        Ok(document)
    }

    fn check(&self) -> Result<(), ProfileError> {
        let wrong = |place: String, reason: String| Err(ProfileError::Value { place, reason });
        if !self.listener_path.is_empty() {
            return wrong("listenerPath".into(), "notification of a listener is not supported".into());
        }
        let mapped = self.arch_map.iter().flat_map(|m| m.sub_architectures.iter().chain([&m.architecture]));
        for name in self.architectures.iter().chain(mapped) {
            if !name.strip_prefix("SCMP_ARCH_").is_some_and(|name| ARCHITECTURES.contains(&name)) {
                return wrong("architectures".into(), format!("{name:?} is not an architecture"));
            }
        }
        for name in &self.flags {
            let known = ["TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV"];
            if !name.strip_prefix("SECCOMP_FILTER_FLAG_").is_some_and(|name| known.contains(&name)) {
                return wrong("flags".into(), format!("{name:?} is not a flag of seccomp(2)"));
            }
        }
        let mut names = 0;
        for (i, entry) in self.syscalls.iter().enumerate() {
            let place = |name: &str| format!("syscalls[{i}].{name}");
            names += entry.names.len() + 1;
            let mut all =
                entry.names.iter().chain((!entry.name.is_empty()).then_some(&entry.name)).peekable();
            if all.peek().is_none() {
                return wrong(place("names"), "no system call is named".into());
            }
            if let Some(bad) = all.find(|name| !is_name(name)) {
                return wrong(place("names"), format!("{bad:?} cannot be the name of a system call"));
            }
            if let Some(j) = entry.args.iter().position(|arg| arg.index > 5) {
                let index = entry.args[j].index;
                return wrong(
                    place(&format!("args[{j}].index")),
                    format!("{index}: a call has arguments 0 to 5"),
                );
            }
            for condition in [&entry.includes, &entry.excludes] {
                if let Some(text) = condition.min_kernel.as_deref().filter(|text| kernel(text).is_none()) {
                    return wrong(place("minKernel"), format!("{text:?} is not a version such as 4.8"));
                }
            }
        }
        if names > MAX_NAMES { Err(ProfileError::TooLarge) } else { Ok(()) }
    }

    /// What holds for a container with these capabilities (names with `CAP_`) on this machine.
    pub fn resolve(&self, capabilities: &[String], machine: &Machine) -> Filter {
        let native = scmp(machine.arch);
        let mut architectures = self.architectures.clone();
        for map in self.arch_map.iter().filter(|map| map.architecture == native) {
            architectures.push(map.architecture.clone());
            architectures.extend(map.sub_architectures.iter().cloned());
        }
        architectures.sort();
        architectures.dedup();
        let syscalls = self.syscalls.iter().filter(|entry| entry.applies(capabilities, machine));
        let syscalls = syscalls.map(|entry| Rule {
            names: entry
                .names
                .iter()
                .chain((!entry.name.is_empty()).then_some(&entry.name))
                .cloned()
                .collect(),
            action: entry.action,
            errno_ret: entry.errno_ret,
            args: entry.args.clone(),
        });
        Filter {
            default_action: self.default_action,
            default_errno_ret: self.default_errno_ret,
            architectures,
            flags: self.flags.clone(),
            syscalls: syscalls.collect(),
        }
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

impl Entry {
    /// All of `includes` and nothing of `excludes` holds.
    fn applies(&self, capabilities: &[String], machine: &Machine) -> bool {
        let has = |name: &String| capabilities.contains(name);
        let here = |name: &String| name == machine.arch;
        let new =
            |least: &Option<String>| least.as_deref().and_then(kernel).map(|least| machine.kernel >= least);
        let included = (self.includes.arches.is_empty() || self.includes.arches.iter().any(here))
            && self.includes.caps.iter().all(has)
            && new(&self.includes.min_kernel) != Some(false);
        let excluded = self.excludes.arches.iter().any(here)
            || self.excludes.caps.iter().any(has)
            || new(&self.excludes.min_kernel) == Some(true);
        included && !excluded
    }
}
