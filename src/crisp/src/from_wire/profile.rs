//! seccomp and AppArmor profiles, in today's form and in the deprecated one.

use crisp_model::security::Profile;
use crisp_proto::v1::{SecurityProfile, security_profile::ProfileType};

use super::{
    error::{At, Invalid, Shown},
    text,
};

const LOCALHOST: &str = "localhost/";

/// The seccomp profile. No field at all is unconfined, an empty message is the runtime's default profile.
pub fn seccomp(at: &At<'_>, wire: Option<&SecurityProfile>, deprecated: &str) -> Result<Profile, Invalid> {
    let profile = match wire {
        Some(wire) => current(&at.field("seccomp"), wire)?,
        None => old(&at.field("seccomp_profile_path"), deprecated)?.unwrap_or_default(),
    };
    if let Profile::Localhost(path) = &profile {
        let field = if wire.is_some() { "seccomp" } else { "seccomp_profile_path" };
        let at = at.field(field);
        let at = if wire.is_some() { at.field("localhost_ref") } else { at };
        text::host_path(&at, path)?;
        if path.split('/').any(|part| part == "..") {
            return Err(at.invalid(format!("{} has a `..` in it", Shown(path))));
        }
    }
    Ok(profile)
}

/// The AppArmor profile; `None` if the request does not speak of it.
pub fn apparmor(
    at: &At<'_>,
    wire: Option<&SecurityProfile>,
    deprecated: &str,
) -> Result<Option<Profile>, Invalid> {
    let profile = match wire {
        Some(wire) => Some(current(&at.field("apparmor"), wire)?),
        None => old(&at.field("apparmor_profile"), deprecated)?,
    };
    if let Some(Profile::Localhost(name)) = &profile
        && name.chars().any(char::is_control)
    {
        return Err(at.field("apparmor").invalid(format!("{} has a control character", Shown(name))));
    }
    Ok(profile)
}

fn current(at: &At<'_>, wire: &SecurityProfile) -> Result<Profile, Invalid> {
    let kind = ProfileType::try_from(wire.profile_type).map_err(|_| {
        at.field("profile_type").invalid(format!("{} is not a ProfileType", wire.profile_type))
    })?;
    let at = at.field("localhost_ref");
    match kind {
        ProfileType::Localhost => localhost(&at, &wire.localhost_ref),
        _ if !wire.localhost_ref.is_empty() => Err(at.invalid("is set, but profile_type is not Localhost")),
        ProfileType::RuntimeDefault => Ok(Profile::RuntimeDefault),
        ProfileType::Unconfined => Ok(Profile::Unconfined),
    }
}

/// The strings of before Kubernetes 1.19.
fn old(at: &At<'_>, text: &str) -> Result<Option<Profile>, Invalid> {
    match text {
        "" => Ok(None),
        "unconfined" => Ok(Some(Profile::Unconfined)),
        "runtime/default" | "docker/default" => Ok(Some(Profile::RuntimeDefault)),
        other if other.starts_with(LOCALHOST) => localhost(at, other).map(Some),
        other => {
            let reason = format!("{} is not a profile", Shown(other));
            Err(at.invalid(reason).hint("runtime/default, unconfined or localhost/NAME"))
        }
    }
}

fn localhost(at: &At<'_>, reference: &str) -> Result<Profile, Invalid> {
    let name = reference.strip_prefix(LOCALHOST).unwrap_or(reference);
    text::required(at, name).map(Profile::Localhost)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(kind: ProfileType, reference: &str) -> SecurityProfile {
        SecurityProfile { profile_type: kind.into(), localhost_ref: reference.into() }
    }

    #[test]
    fn absent_and_empty_differ() {
        let at = At::root("sc");
        assert_eq!(seccomp(&at, None, ""), Ok(Profile::Unconfined));
        assert_eq!(seccomp(&at, Some(&SecurityProfile::default()), ""), Ok(Profile::RuntimeDefault));
        assert_eq!(apparmor(&at, None, ""), Ok(None));
        assert_eq!(apparmor(&at, Some(&SecurityProfile::default()), ""), Ok(Some(Profile::RuntimeDefault)));
    }

    #[test]
    fn todays_form_wins_over_the_deprecated_one() {
        let at = At::root("sc");
        let unconfined = wire(ProfileType::Unconfined, "");
        assert_eq!(seccomp(&at, Some(&unconfined), "runtime/default"), Ok(Profile::Unconfined));
    }

    #[test]
    fn deprecated_strings_are_understood() {
        let at = At::root("sc");
        for (text, profile) in [
            ("unconfined", Profile::Unconfined),
            ("runtime/default", Profile::RuntimeDefault),
            ("docker/default", Profile::RuntimeDefault),
            ("localhost//etc/p.json", Profile::Localhost("/etc/p.json".into())),
        ] {
            assert_eq!(seccomp(&at, None, text), Ok(profile), "{text}");
        }
        assert_eq!(apparmor(&at, None, "localhost/mine"), Ok(Some(Profile::Localhost("mine".into()))));
        for bad in ["default", "localhost/", "localhost/relative.json", "localhost//a/../b"] {
            assert_eq!(seccomp(&at, None, bad).expect_err(bad).field, "sc.seccomp_profile_path");
        }
        assert_eq!(apparmor(&at, None, "nonsense").expect_err("bad").field, "sc.apparmor_profile");
    }

    #[test]
    fn references_belong_to_localhost_only() {
        let at = At::root("sc");
        let good = wire(ProfileType::Localhost, "/var/lib/kubelet/seccomp/p.json");
        assert!(seccomp(&at, Some(&good), "").is_ok());
        for bad in [
            wire(ProfileType::Localhost, ""),
            wire(ProfileType::Localhost, "p.json"),
            wire(ProfileType::Localhost, "/a/../b"),
            wire(ProfileType::RuntimeDefault, "/p.json"),
            wire(ProfileType::Unconfined, "/p.json"),
        ] {
            assert_eq!(seccomp(&at, Some(&bad), "").expect_err("bad").field, "sc.seccomp.localhost_ref");
        }
        let unknown = SecurityProfile { profile_type: 3, localhost_ref: String::new() };
        assert_eq!(seccomp(&at, Some(&unknown), "").expect_err("3").field, "sc.seccomp.profile_type");
        let control = wire(ProfileType::Localhost, "a\nb");
        assert!(apparmor(&at, Some(&control), "").is_err());
    }
}
