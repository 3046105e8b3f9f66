//! Profiles and labels of the security modules.

use crisp_model::security::Profile;

use crate::{error::SpecError, input::Input};

const FIELD: &str = "config.linux.security_context.apparmor";

/// The AppArmor profile to change to. A host without AppArmor ignores RuntimeDefault (the kubelet may send it to all
/// nodes alike) and refuses a profile that was asked for by name: the container would run without its confinement.
pub(crate) fn apparmor(input: &Input<'_>) -> Result<Option<String>, SpecError> {
    let security = &input.container.security;
    match (&security.apparmor, &input.host.apparmor) {
        _ if security.privileged && !matches!(security.apparmor, Some(Profile::Localhost(_))) => Ok(None),
        (Some(Profile::Unconfined), _) => Ok(None),
        (None | Some(Profile::RuntimeDefault), default) => Ok(default.clone()),
        (Some(Profile::Localhost(name)), _) if name.is_empty() => {
            Err(SpecError::invalid(format!("{FIELD}.localhost_ref"), "the name of the profile is empty"))
        }
        (Some(Profile::Localhost(name)), Some(_)) => Ok(Some(name.clone())),
        (Some(Profile::Localhost(name)), None) => {
            let reason = format!("profile {name:?} was asked for, but AppArmor is off on this host");
            Err(SpecError::invalid(FIELD, reason))
        }
    }
}

/// The seccomp profile: none for privileged containers, whatever they ask for.
pub(crate) fn seccomp(input: &Input<'_>) -> Result<Profile, SpecError> {
    let security = &input.container.security;
    if security.privileged {
        return Ok(Profile::Unconfined);
    }
    match &security.seccomp {
        Profile::Localhost(path) if !path.starts_with('/') => {
            let reason = format!("{path:?} is not an absolute path");
            Err(SpecError::invalid("config.linux.security_context.seccomp.localhost_ref", reason))
        }
        profile => Ok(profile.clone()),
    }
}

/// The SELinux label of the process, where SELinux is on.
pub(crate) fn selinux(input: &Input<'_>) -> Option<String> {
    input.sandbox_facts.selinux_process.filter(|_| input.host.selinux).map(str::to_owned)
}
