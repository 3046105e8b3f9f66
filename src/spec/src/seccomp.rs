//! Seccomp profiles: from their JSON to a [`Filter`] for one container.
//!
//! Two dialects are read. Runtime specs (`linux.seccomp` of OCI) are plain: architectures and rules. Profiles as
//! Docker, Podman and this project ship them add conditions (`includes` and `excludes` by capability, architecture and
//! kernel) and a map of architectures; resolving them is this module's work. Compiling the result is `crisp-host`'s.

mod document;

use std::{io, sync::LazyLock};

use crisp_model::{seccomp::Filter, security::Profile};

pub use self::document::{Document, MAX_PROFILE, ProfileError};
use crate::error::SpecError;

const FIELD: &str = "config.linux.security_context.seccomp.localhost_ref";

/// The machine that a filter is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Architecture as Go spells it: `amd64`, `arm64`.
    pub arch: &'static str,
    /// Kernel version, major and minor.
    pub kernel: (u32, u32),
}

impl Machine {
    /// The machine that this program was built for.
    pub fn native(kernel: (u32, u32)) -> Self {
        let arch = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Machine { arch, kernel }
    }
}

static DEFAULT: LazyLock<Document> = LazyLock::new(|| {
    Document::parse(include_str!("../profiles/seccomp-default.json"))
        .expect("a test parses the profile that is shipped")
});

/// The profile behind RuntimeDefault.
pub fn default_profile() -> &'static Document {
    &DEFAULT
}

/// The filter of a container (and of every exec in it); `None`: unconfined. `default` is the profile behind
/// RuntimeDefault, [`default_profile`] unless the operator has another. `read` reads a profile of the node, by its
/// absolute path, at most [`MAX_PROFILE`] bytes. `capabilities` are those of the bounding set, with `CAP_`.
pub fn filter(
    choice: &Profile,
    default: &Document,
    capabilities: &[String],
    machine: &Machine,
    read: impl FnOnce(&str) -> io::Result<String>,
) -> Result<Option<Filter>, SpecError> {
    match choice {
        Profile::Unconfined => Ok(None),
        Profile::RuntimeDefault => Ok(Some(default.resolve(capabilities, machine))),
        Profile::Localhost(path) => {
            let text = read(path).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => {
                    SpecError::not_found(FIELD, format!("seccomp profile {path}"), "install it on this node")
                }
                _ => SpecError::invalid(FIELD, format!("read {path}: {error}")),
            })?;
            let document = Document::parse(&text).map_err(|error| {
                SpecError::invalid(FIELD, format!("{path} is not a seccomp profile: {error}"))
            })?;
            Ok(Some(document.resolve(capabilities, machine)))
        }
    }
}

#[cfg(test)]
mod tests;
