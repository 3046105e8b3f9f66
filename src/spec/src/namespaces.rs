//! Which namespaces a container joins, has of its own, or shares with the host.

use crisp_model::security::NamespaceMode;
use serde_json::{Value, json};

use crate::{error::SpecError, input::Input};

const FIELD: &str = "config.linux.security_context.namespace_options";

/// What the pod's and the container's options come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sharing {
    /// The pod has the host's network (and so its UTS namespace).
    pub host_network: bool,
    /// The pod has the host's IPC namespace.
    pub host_ipc: bool,
    /// The pod has a user namespace.
    pub user: bool,
}

/// `linux.namespaces`. Network, IPC, UTS and user namespace are the pod's, whatever the container says: a container
/// may repeat the pod's mode or leave the field at its zero value, but not ask for more of the host than its pod has.
pub(crate) fn namespaces(input: &Input<'_>) -> Result<(Vec<Value>, Sharing), SpecError> {
    let pod = &input.sandbox.security.namespaces;
    let own = &input.container.security.namespaces;
    let host_network = shared(&pod.network, &own.network, "network")?;
    let host_ipc = shared(&pod.ipc, &own.ipc, "ipc")?;
    let sharing = Sharing { host_network, host_ipc, user: pod.user.is_some() };
    if own.user.is_some() && own.user != pod.user {
        let reason = "differs from the pod's: all containers of a pod are in one user namespace";
        return Err(SpecError::invalid(format!("{FIELD}.userns_options"), reason));
    }
    if sharing.user {
        let wrong = |name: &str| {
            let reason =
                "NODE is impossible in a pod with a user namespace: the kernel would refuse its mounts";
            Err(SpecError::invalid(format!("{FIELD}.{name}"), reason))
        };
        if host_ipc {
            return wrong("ipc");
        }
        if pod.pid == NamespaceMode::Node {
            return wrong("pid");
        }
    }

    let infra = input.sandbox_facts.infra_pid;
    let join = |kind: &str, name: &str| json!({"type": kind, "path": format!("/proc/{infra}/ns/{name}")});
    let mut list = vec![json!({"type": "mount"})];
    if sharing.user {
        list.push(join("user", "user"));
    }
    if !host_network {
        list.push(join("network", "net"));
        list.push(join("uts", "uts"));
    }
    if !host_ipc {
        list.push(join("ipc", "ipc"));
    }
    list.extend(pid(input)?);
    // Version 1 has no use for it: its controllers are bound in one by one, read-only.
    if input.host.cgroup.unified() && !input.container.security.privileged {
        list.push(json!({"type": "cgroup"}));
    }
    Ok((list, sharing))
}

/// Whether a namespace of the pod is the host's.
fn shared(pod: &NamespaceMode, own: &NamespaceMode, name: &str) -> Result<bool, SpecError> {
    let wrong = |reason: String| Err(SpecError::invalid(format!("{FIELD}.{name}"), reason));
    let host = match pod {
        NamespaceMode::Node => true,
        NamespaceMode::Pod => false,
        other => return wrong(format!("{other:?} is no mode of a pod's {name} namespace")),
    };
    match own {
        NamespaceMode::Pod => Ok(host),
        NamespaceMode::Node if host => Ok(true),
        NamespaceMode::Node => wrong(format!("NODE, but the pod has a {name} namespace of its own")),
        _ => wrong(format!("a container's {name} namespace is POD or NODE, as its pod's")),
    }
}

fn pid(input: &Input<'_>) -> Result<Option<Value>, SpecError> {
    let pod = &input.sandbox.security.namespaces.pid;
    let wrong = |reason: &str| Err(SpecError::invalid(format!("{FIELD}.pid"), reason));
    match (&input.container.security.namespaces.pid, pod) {
        (NamespaceMode::Container, _) => Ok(Some(json!({"type": "pid"}))),
        (NamespaceMode::Pod | NamespaceMode::Node, NamespaceMode::Node) => Ok(None),
        (NamespaceMode::Pod, NamespaceMode::Pod) => {
            let path = format!("/proc/{}/ns/pid", input.sandbox_facts.infra_pid);
            Ok(Some(json!({"type": "pid", "path": path})))
        }
        (NamespaceMode::Pod, _) => {
            wrong("POD, but the pod shares no pid namespace: run the sandbox with pid mode POD too")
        }
        (NamespaceMode::Node, _) => wrong("NODE, but the pod does not have the host's pid namespace"),
        (NamespaceMode::Target(target), _) => match input.target_pid {
            Some(pid) => Ok(Some(json!({"type": "pid", "path": format!("/proc/{pid}/ns/pid")}))),
            None => Err(SpecError::not_found(
                format!("{FIELD}.target_id"),
                format!("running container {target}"),
                "a target must be a running container of the same pod",
            )),
        },
    }
}
