//! Capability sets (`capabilities(7)`).

use crisp_model::{capability::CAPABILITIES, process::CapabilitySets, security::SecurityContext};

use crate::{error::SpecError, input::HostFacts};

/// What a container has that asks for nothing: the fourteen that Docker chose and every runtime kept.
pub const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

const FIELD: &str = "config.linux.security_context.capabilities";
const ALL: &str = "ALL";

/// `net_admin`, `NET_ADMIN`, `CAP_NET_ADMIN` to the last of these; `None` for `ALL`.
fn canonical(list: &str, i: usize, name: &str) -> Result<Option<String>, SpecError> {
    let upper = name.to_ascii_uppercase();
    if upper == ALL {
        return Ok(None);
    }
    let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
    if CAPABILITIES.contains(&full.as_str()) {
        return Ok(Some(full));
    }
    Err(SpecError::invalid(format!("{FIELD}.{list}[{i}]"), format!("{name:?} is not a capability of Linux")))
}

/// A list of the request: whether it has `ALL`, and the names.
fn list(kind: &str, names: &[String]) -> Result<(bool, Vec<String>), SpecError> {
    let mut all = false;
    let mut found = Vec::new();
    for (i, name) in names.iter().enumerate() {
        match canonical(kind, i, name)? {
            Some(name) => found.push(name),
            None => all = true,
        }
    }
    Ok((all, found))
}

fn add(set: &mut Vec<String>, names: &[String]) {
    for name in names {
        if !set.contains(name) {
            set.push(name.clone());
        }
    }
}

/// The five sets of a container's process. `ALL` goes before single names, and dropping goes after adding, so that
/// "drop ALL, add X" leaves X. What the daemon does not have itself cannot be given: a warning.
pub(crate) fn capabilities(
    security: &SecurityContext,
    host: &HostFacts,
    warnings: &mut Vec<String>,
) -> Result<CapabilitySets, SpecError> {
    let asked = &security.capabilities;
    let (add_all, added) = list("add_capabilities", &asked.add)?;
    let (drop_all, dropped) = list("drop_capabilities", &asked.drop)?;
    let (ambient_all, mut ambient) = list("add_ambient_capabilities", &asked.add_ambient)?;
    if ambient_all {
        ambient.clone_from(&host.capabilities);
    }
    let mut set = if security.privileged || add_all {
        host.capabilities.clone()
    } else if let Some(configured) = &host.defaults.capabilities {
        configured.clone()
    } else {
        DEFAULT_CAPABILITIES.map(str::to_owned).to_vec()
    };
    if !security.privileged {
        if drop_all {
            set.clear();
        }
        add(&mut set, &added);
        add(&mut set, &ambient);
        set.retain(|name| !dropped.contains(name));
        ambient.retain(|name| !dropped.contains(name));
    }
    for name in
        added.iter().chain(&ambient).filter(|name| set.contains(name) && !host.capabilities.contains(name))
    {
        let warning = format!("{FIELD}: {name} was asked for, but the runtime itself does not have it");
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
    set.retain(|name| host.capabilities.contains(name));
    ambient.retain(|name| set.contains(name));
    set.sort();
    ambient.sort();
    ambient.dedup();
    Ok(CapabilitySets {
        bounding: set.clone(),
        effective: set.clone(),
        permitted: set,
        // Inheritable ones survive the execve of a file with inheritable bits, so nobody gets them unasked
        // (CVE-2022-24769); ambient ones must be inheritable too.
        inheritable: ambient.clone(),
        ambient,
    })
}

#[cfg(test)]
mod tests {
    use crisp_model::security::Capabilities;

    use super::*;

    fn host() -> HostFacts {
        let all = CAPABILITIES.iter().filter(|c| **c != "CAP_SYS_RESOURCE").map(|c| (*c).to_owned());
        HostFacts { capabilities: all.collect(), ..Default::default() }
    }

    fn sets(
        privileged: bool,
        add: &[&str],
        drop: &[&str],
        ambient: &[&str],
    ) -> (CapabilitySets, Vec<String>) {
        let strings = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        let capabilities =
            Capabilities { add: strings(add), drop: strings(drop), add_ambient: strings(ambient) };
        let security = SecurityContext { privileged, capabilities, ..Default::default() };
        let mut warnings = vec![];
        (super::capabilities(&security, &host(), &mut warnings).unwrap(), warnings)
    }

    #[test]
    fn defaults_add_drop_and_all() {
        let (plain, _) = sets(false, &[], &[], &[]);
        assert_eq!(plain.bounding, DEFAULT_CAPABILITIES);
        assert_eq!(plain.effective, plain.permitted);
        assert!(plain.inheritable.is_empty() && plain.ambient.is_empty());

        let (more, _) = sets(false, &["net_admin"], &["CAP_KILL", "CHOWN"], &[]);
        assert_eq!(more.bounding.len(), 13);
        assert!(
            more.bounding.contains(&"CAP_NET_ADMIN".into()) && !more.bounding.contains(&"CAP_KILL".into())
        );

        assert_eq!(sets(false, &["NET_RAW"], &["ALL"], &[]).0.bounding, ["CAP_NET_RAW"]);
        assert_eq!(sets(false, &["ALL"], &["SYS_ADMIN"], &[]).0.bounding.len(), 39);
        assert_eq!(sets(false, &["ALL"], &["ALL"], &[]).0.bounding.len(), 0);
        assert_eq!(sets(true, &[], &["ALL"], &[]).0.bounding.len(), 40);
    }

    #[test]
    fn ambient_ones_are_in_all_sets() {
        let (set, _) = sets(false, &[], &["ALL"], &["NET_BIND_SERVICE"]);
        for names in [&set.ambient, &set.inheritable, &set.permitted, &set.effective, &set.bounding] {
            assert_eq!(names, &["CAP_NET_BIND_SERVICE"]);
        }
    }

    #[test]
    fn what_the_daemon_lacks_is_a_warning() {
        let (set, warnings) = sets(false, &["SYS_RESOURCE"], &[], &[]);
        assert_eq!(set.bounding, DEFAULT_CAPABILITIES);
        assert_eq!(warnings.len(), 1);
        // Privileged and ALL mean "what there is".
        assert!(sets(true, &[], &[], &[]).1.is_empty());
        assert!(sets(false, &["ALL"], &[], &[]).1.is_empty());
    }

    #[test]
    fn unknown_names_are_refused() {
        let capabilities = Capabilities { add: vec!["NET_RAW".into(), "FLY".into()], ..Default::default() };
        let security = SecurityContext { capabilities, ..Default::default() };
        let error = super::capabilities(&security, &host(), &mut vec![]).unwrap_err();
        assert_eq!(error.field(), "config.linux.security_context.capabilities.add_capabilities[1]");
    }
}
