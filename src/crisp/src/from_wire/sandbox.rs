//! `PodSandboxConfig`.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use crisp_model::{
    SandboxConfig,
    sandbox::{DnsConfig, PortMapping, Protocol, SandboxMetadata},
    security::{NamespaceMode, NamespaceOptions},
};
use crisp_proto::v1;

use super::{
    error::{At, Invalid, Shown},
    resources::linux_resources,
    security, sysctl, text,
};

/// Longest host name (`HOST_NAME_MAX`).
const HOSTNAME_MAX: usize = 64;
/// Most port mappings: every port of every protocol once would be 196608, and no pod comes near this.
const PORTS_MAX: usize = 16_384;

/// Checks a sandbox's configuration.
pub fn sandbox_config(
    at: &At<'_>,
    wire: Option<&v1::PodSandboxConfig>,
    runtime_handler: &str,
) -> Result<SandboxConfig, Invalid> {
    let Some(wire) = wire else { return Err(at.invalid("is missing")) };
    if wire.windows.is_some() {
        return Err(at.field("windows").invalid("is set, but this is Linux"));
    }
    let empty = v1::LinuxPodSandboxConfig::default();
    let linux = wire.linux.as_ref().unwrap_or(&empty);
    let linux_at = at.field("linux");
    let context = linux.security_context.as_ref();
    let security = security::of_sandbox(&linux_at.field("security_context"), context)?;
    let host_network = security.namespaces.network == NamespaceMode::Node;
    let hostname = hostname(&at.field("hostname"), &wire.hostname)?;
    let ports = port_mappings(&at.field("port_mappings"), &wire.port_mappings)?;
    let sysctls = sysctls(&linux_at.field("sysctls"), &linux.sysctls, &security.namespaces)?;
    Ok(SandboxConfig {
        metadata: sandbox_metadata(&at.field("metadata"), wire.metadata.as_ref())?,
        // With the host's network the pod has the host's name, and its ports are the host's already.
        hostname: if host_network { String::new() } else { hostname },
        port_mappings: if host_network { Vec::new() } else { ports },
        log_directory: match wire.log_directory.as_str() {
            "" => None,
            path => Some(text::host_path(&at.field("log_directory"), path)?),
        },
        dns: wire.dns_config.as_ref().map(|dns| dns_config(&at.field("dns_config"), dns)).transpose()?,
        labels: text::labels(&at.field("labels"), &wire.labels)?,
        annotations: text::annotations(&wire.annotations),
        cgroup_parent: text::cgroup_parent(&linux_at.field("cgroup_parent"), &linux.cgroup_parent)?,
        sysctls,
        security,
        overhead: linux_resources(&linux_at.field("overhead"), linux.overhead.as_ref())?,
        resources: linux_resources(&linux_at.field("resources"), linux.resources.as_ref())?,
        runtime_handler: handler(runtime_handler)?,
    })
}

/// Checks the name of a pod.
pub fn sandbox_metadata(
    at: &At<'_>,
    wire: Option<&v1::PodSandboxMetadata>,
) -> Result<SandboxMetadata, Invalid> {
    let Some(wire) = wire else { return Err(at.invalid("is missing")) };
    Ok(SandboxMetadata {
        name: text::name(&at.field("name"), &wire.name)?,
        uid: text::name(&at.field("uid"), &wire.uid)?,
        namespace: text::name(&at.field("namespace"), &wire.namespace)?,
        attempt: wire.attempt,
    })
}

/// The syntax of a runtime handler's name; whether there is one of that name is not decided here.
fn handler(name: &str) -> Result<String, Invalid> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.len() > 253 || !name.chars().all(plain) {
        return Err(At::root("runtime_handler").invalid(format!("{} is not a handler's name", Shown(name))));
    }
    Ok(name.to_owned())
}

fn hostname(at: &At<'_>, name: &str) -> Result<String, Invalid> {
    if name.len() > HOSTNAME_MAX {
        return Err(at.invalid(format!("has {} bytes; {HOSTNAME_MAX} are allowed", name.len())));
    }
    if !name.chars().all(|c| c.is_ascii_graphic() && c != '/') {
        return Err(at.invalid(format!("{} is not a host name", Shown(name))));
    }
    Ok(name.to_owned())
}

/// Each text becomes part of one line of resolv.conf, which a line break would leave.
fn dns_config(at: &At<'_>, wire: &v1::DnsConfig) -> Result<DnsConfig, Invalid> {
    let list = |at: At<'_>, list: &[String]| -> Result<Vec<String>, Invalid> {
        for (i, text) in list.iter().enumerate() {
            if text.is_empty() || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
                return Err(at.index(i).invalid(format!("{} is not one word", Shown(text))));
            }
        }
        Ok(list.to_vec())
    };
    let servers = list(at.field("servers"), &wire.servers)?;
    for (i, server) in servers.iter().enumerate() {
        let address = server.split_once('%').map_or(server.as_str(), |(address, _zone)| address);
        if address.parse::<IpAddr>().is_err() {
            let at = at.field("servers");
            return Err(at.index(i).invalid(format!("{} is not an IP address", Shown(server))));
        }
    }
    Ok(DnsConfig {
        servers,
        searches: list(at.field("searches"), &wire.searches)?,
        options: list(at.field("options"), &wire.options)?,
    })
}

/// Checks port mappings and leaves out those without a port of the host, and repetitions.
fn port_mappings(at: &At<'_>, list: &[v1::PortMapping]) -> Result<Vec<PortMapping>, Invalid> {
    if list.len() > PORTS_MAX {
        return Err(at.invalid(format!("has {} entries; {PORTS_MAX} are allowed", list.len())));
    }
    let mut taken = HashMap::new();
    let mut mappings = Vec::new();
    for (i, wire) in list.iter().enumerate() {
        let at = at.index(i);
        let mapping = port_mapping(&at, wire)?;
        if mapping.host_port == 0 {
            continue;
        }
        let key = (mapping.protocol, mapping.host_port, mapping.host_ip);
        match taken.insert(key, mapping.container_port) {
            None => mappings.push(mapping),
            Some(port) if port == mapping.container_port => {}
            Some(port) => {
                let reason = format!("{} leads to port {port} already", mapping.host_port);
                return Err(at.field("host_port").invalid(reason));
            }
        }
    }
    Ok(mappings)
}

fn port_mapping(at: &At<'_>, wire: &v1::PortMapping) -> Result<PortMapping, Invalid> {
    let port = |at: At<'_>, value: i32| {
        u16::try_from(value).map_err(|_| at.invalid(format!("{value} is not a port")))
    };
    let host_port = port(at.field("host_port"), wire.host_port)?;
    let container_port = port(at.field("container_port"), wire.container_port)?;
    if host_port != 0 && container_port == 0 {
        return Err(at.field("container_port").invalid("is 0, but host_port is not"));
    }
    let protocol = match v1::Protocol::try_from(wire.protocol) {
        Ok(v1::Protocol::Tcp) => Protocol::Tcp,
        Ok(v1::Protocol::Udp) => Protocol::Udp,
        Ok(v1::Protocol::Sctp) => Protocol::Sctp,
        Err(_) => {
            return Err(at.field("protocol").invalid(format!("{} is not a Protocol", wire.protocol)));
        }
    };
    let host_ip = match wire.host_ip.as_str() {
        "" => None,
        text => Some(
            text.parse::<IpAddr>()
                .map_err(|_| at.field("host_ip").invalid(format!("{} is not an IP address", Shown(text))))?,
        ),
    };
    Ok(PortMapping { protocol, container_port, host_port, host_ip })
}

fn sysctls(
    at: &At<'_>,
    map: &HashMap<String, String>,
    namespaces: &NamespaceOptions,
) -> Result<BTreeMap<String, String>, Invalid> {
    let mut sysctls = BTreeMap::new();
    for (name, value) in map {
        let at = at.key(name);
        let clean = sysctl::check(&at, name, value, namespaces)?;
        if sysctls.insert(clean, value.clone()).is_some() {
            return Err(at.invalid("is set twice, in two spellings"));
        }
    }
    Ok(sysctls)
}

#[cfg(test)]
mod tests;
