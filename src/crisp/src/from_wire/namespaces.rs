//! `NamespaceOption` and id mappings.

use crisp_model::security::{IdMapping, NamespaceMode, NamespaceOptions, UserNamespace};
use crisp_proto::v1;

use super::error::{At, Invalid, Shown};

/// Whose options they are: a sandbox has no other container to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The pod.
    Sandbox,
    /// One of its containers.
    Container,
}

/// Checks the namespaces; an absent message is the wire's zero value: all of them the pod's, no user namespace.
pub fn namespaces(
    at: &At<'_>,
    wire: Option<&v1::NamespaceOption>,
    owner: Owner,
) -> Result<NamespaceOptions, Invalid> {
    let Some(wire) = wire else { return Ok(NamespaceOptions::default()) };
    let options = NamespaceOptions {
        network: pod_or_node(&at.field("network"), wire.network)?,
        pid: pid(at, wire, owner)?,
        ipc: pod_or_node(&at.field("ipc"), wire.ipc)?,
        user: user(&at.field("userns_options"), wire.userns_options.as_ref())?,
    };
    if options.user.is_some() {
        let shared = [("pid", &options.pid), ("ipc", &options.ipc)];
        if let Some((name, _)) = shared.into_iter().find(|(_, mode)| **mode == NamespaceMode::Node) {
            let at = at.field(name);
            return Err(at.invalid("is the host's, which a pod with a user namespace of its own cannot use"));
        }
    }
    Ok(options)
}

fn mode(at: &At<'_>, value: i32) -> Result<v1::NamespaceMode, Invalid> {
    v1::NamespaceMode::try_from(value).map_err(|_| at.invalid(format!("{value} is not a NamespaceMode")))
}

fn pod_or_node(at: &At<'_>, value: i32) -> Result<NamespaceMode, Invalid> {
    match mode(at, value)? {
        v1::NamespaceMode::Pod => Ok(NamespaceMode::Pod),
        v1::NamespaceMode::Node => Ok(NamespaceMode::Node),
        other => {
            let reason = format!("{} is not possible for this namespace", other.as_str_name());
            Err(at.invalid(reason).hint("POD or NODE"))
        }
    }
}

fn pid(at: &At<'_>, wire: &v1::NamespaceOption, owner: Owner) -> Result<NamespaceMode, Invalid> {
    let mode = mode(&at.field("pid"), wire.pid)?;
    let target = at.field("target_id");
    if mode != v1::NamespaceMode::Target && !wire.target_id.is_empty() {
        return Err(target.invalid("is set, but pid is not TARGET"));
    }
    match mode {
        v1::NamespaceMode::Pod => Ok(NamespaceMode::Pod),
        v1::NamespaceMode::Container => Ok(NamespaceMode::Container),
        v1::NamespaceMode::Node => Ok(NamespaceMode::Node),
        v1::NamespaceMode::Target if owner == Owner::Sandbox => {
            Err(at.field("pid").invalid("TARGET is possible for containers only"))
        }
        v1::NamespaceMode::Target if wire.target_id.is_empty() => {
            Err(target.invalid("must name a container of the pod when pid is TARGET"))
        }
        v1::NamespaceMode::Target => match wire.target_id.parse() {
            Ok(id) => Ok(NamespaceMode::Target(id)),
            Err(_) => Err(target.invalid(format!("{} is not a container id", Shown(&wire.target_id)))),
        },
    }
}

fn user(at: &At<'_>, wire: Option<&v1::UserNamespace>) -> Result<Option<UserNamespace>, Invalid> {
    let Some(wire) = wire else { return Ok(None) };
    match mode(&at.field("mode"), wire.mode)? {
        v1::NamespaceMode::Node if wire.uids.is_empty() && wire.gids.is_empty() => Ok(None),
        v1::NamespaceMode::Node => Err(at.field("mode").invalid("is NODE, but ids are mapped")),
        v1::NamespaceMode::Pod => {
            let uids = one_mapping(&at.field("uids"), &wire.uids)?;
            let gids = one_mapping(&at.field("gids"), &wire.gids)?;
            if uids != gids {
                return Err(at.field("gids").invalid("differ from uids"));
            }
            Ok(Some(UserNamespace { uids: vec![uids], gids: vec![gids] }))
        }
        other => {
            let reason = format!("{} is not possible for the user namespace", other.as_str_name());
            Err(at.field("mode").invalid(reason).hint("POD or NODE"))
        }
    }
}

fn one_mapping(at: &At<'_>, list: &[v1::IdMapping]) -> Result<IdMapping, Invalid> {
    match list {
        [one] => mapping(&at.index(0), one),
        other => Err(at.invalid(format!("has {} mappings; exactly one is supported", other.len()))),
    }
}

/// Ranges may not be empty, nor reach beyond the last id (2^32-1 itself means "no id").
fn mapping(at: &At<'_>, wire: &v1::IdMapping) -> Result<IdMapping, Invalid> {
    if wire.length == 0 {
        return Err(at.field("length").invalid("must not be 0"));
    }
    for (name, first) in [("host_id", wire.host_id), ("container_id", wire.container_id)] {
        if u64::from(first) + u64::from(wire.length) > u64::from(u32::MAX) {
            let reason = format!("{first} and {} ids from there reach beyond the last id", wire.length);
            return Err(at.field(name).invalid(reason));
        }
    }
    Ok(IdMapping { host_id: wire.host_id, container_id: wire.container_id, length: wire.length })
}

/// The mappings of a mount: none, or those of the pod, users and groups alike.
pub fn mount_mappings(at: &At<'_>, wire: &v1::Mount) -> Result<(Vec<IdMapping>, Vec<IdMapping>), Invalid> {
    if wire.uid_mappings.is_empty() && wire.gid_mappings.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let uids = one_mapping(&at.field("uidMappings"), &wire.uid_mappings)?;
    let gids = one_mapping(&at.field("gidMappings"), &wire.gid_mappings)?;
    Ok((vec![uids], vec![gids]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use v1::NamespaceMode as Wire;

    fn convert(wire: v1::NamespaceOption, owner: Owner) -> Result<NamespaceOptions, Invalid> {
        namespaces(&At::root("ns"), Some(&wire), owner)
    }

    fn with_user(mode: Wire, uids: &[(u32, u32, u32)], gids: &[(u32, u32, u32)]) -> v1::NamespaceOption {
        let list = |l: &[(u32, u32, u32)]| {
            l.iter()
                .map(|&(host_id, container_id, length)| v1::IdMapping { host_id, container_id, length })
                .collect()
        };
        let user = v1::UserNamespace { mode: mode.into(), uids: list(uids), gids: list(gids) };
        v1::NamespaceOption { userns_options: Some(user), ..Default::default() }
    }

    #[test]
    fn absent_options_are_the_pods() {
        assert_eq!(namespaces(&At::root("ns"), None, Owner::Container), Ok(NamespaceOptions::default()));
        assert_eq!(convert(v1::NamespaceOption::default(), Owner::Sandbox), Ok(NamespaceOptions::default()));
    }

    #[test]
    fn each_namespace_has_its_modes() {
        for (mode, network, pid_sandbox, pid_container) in [
            (Wire::Pod, true, true, true),
            (Wire::Container, false, true, true),
            (Wire::Node, true, true, true),
            (Wire::Target, false, false, false),
        ] {
            let mode = mode.into();
            let net = v1::NamespaceOption { network: mode, ..Default::default() };
            let ipc = v1::NamespaceOption { ipc: mode, ..Default::default() };
            let pid = v1::NamespaceOption { pid: mode, ..Default::default() };
            assert_eq!(convert(net, Owner::Sandbox).is_ok(), network, "network {mode}");
            assert_eq!(convert(ipc, Owner::Sandbox).is_ok(), network, "ipc {mode}");
            assert_eq!(convert(pid.clone(), Owner::Sandbox).is_ok(), pid_sandbox, "pid {mode}");
            assert_eq!(convert(pid, Owner::Container).is_ok(), pid_container, "pid {mode}");
        }
        let unknown = v1::NamespaceOption { pid: 9, ..Default::default() };
        assert_eq!(convert(unknown, Owner::Container).expect_err("9").field, "ns.pid");
    }

    #[test]
    fn a_target_is_a_container_id() {
        let target = |pid: Wire, target_id: &str| {
            let wire =
                v1::NamespaceOption { pid: pid.into(), target_id: target_id.into(), ..Default::default() };
            convert(wire, Owner::Container)
        };
        let id = "a".repeat(64);
        assert_eq!(
            target(Wire::Target, &id).map(|o| o.pid),
            Ok(NamespaceMode::Target(id.parse().expect("id")))
        );
        for (mode, text) in [(Wire::Target, ""), (Wire::Target, "../x"), (Wire::Pod, id.as_str())] {
            assert_eq!(target(mode, text).expect_err(text).field, "ns.target_id");
        }
    }

    #[test]
    fn user_namespaces_have_one_mapping_for_both() {
        let ok = convert(with_user(Wire::Pod, &[(65536, 0, 65536)], &[(65536, 0, 65536)]), Owner::Sandbox);
        assert_eq!(ok.expect("valid").user.expect("own").uids[0].host_id, 65536);
        assert_eq!(convert(with_user(Wire::Node, &[], &[]), Owner::Sandbox).map(|o| o.user), Ok(None));
        let (m, n) = ((65536, 0, 65536), (131_072, 0, 65536));
        for (mode, uids, gids) in [
            (Wire::Pod, vec![], vec![]),
            (Wire::Pod, vec![m], vec![]),
            (Wire::Pod, vec![m], vec![n]),
            (Wire::Pod, vec![m, n], vec![m, n]),
            (Wire::Pod, vec![(1, 0, 0)], vec![(1, 0, 0)]),
            (Wire::Pod, vec![(u32::MAX, 0, 1)], vec![(u32::MAX, 0, 1)]),
            (Wire::Pod, vec![(0, u32::MAX, 1)], vec![(0, u32::MAX, 1)]),
            (Wire::Node, vec![m], vec![m]),
            (Wire::Container, vec![m], vec![m]),
            (Wire::Target, vec![m], vec![m]),
        ] {
            assert!(
                convert(with_user(mode, &uids, &gids), Owner::Sandbox).is_err(),
                "{mode:?} {uids:?} {gids:?}"
            );
        }
    }

    #[test]
    fn a_user_namespace_excludes_the_hosts_pid_and_ipc_but_not_its_network() {
        let mapped = || with_user(Wire::Pod, &[(1, 0, 1)], &[(1, 0, 1)]);
        let node = Wire::Node.into();
        assert!(convert(v1::NamespaceOption { pid: node, ..mapped() }, Owner::Sandbox).is_err());
        assert!(convert(v1::NamespaceOption { ipc: node, ..mapped() }, Owner::Sandbox).is_err());
        assert!(convert(v1::NamespaceOption { network: node, ..mapped() }, Owner::Sandbox).is_ok());
    }
}
