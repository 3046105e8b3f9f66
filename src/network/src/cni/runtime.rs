//! What the runtime tells plugins about a pod: `CNI_ARGS` and the values for capabilities. Pure.
//!
//! CNI specification, "Deriving runtimeConfig", and the CNI conventions document. A plugin gets only what its
//! configuration names under `capabilities`.

use serde_json::{Map, Value, json};

use super::config::Plugin;
use crate::{Bandwidth, NetworkError, PodAttachment};

/// Bits that may be sent at once. The kubelet's own choice for docker, and that of the peers since.
const BURST: u64 = i32::MAX as u64;
/// Asks the plugins for certain addresses: a list with commas, for the capability `ips`.
const IPS: &str = "crisp/ips";
/// Asks them for a hardware address, for the capability `mac`.
const MAC: &str = "crisp/mac";

/// `CNI_ARGS` as every Kubernetes runtime sets it.
pub(super) fn args(pod: &PodAttachment) -> Result<String, NetworkError> {
    let values = [
        ("sandbox namespace", "K8S_POD_NAMESPACE", pod.namespace.as_str()),
        ("sandbox name", "K8S_POD_NAME", pod.name.as_str()),
        ("sandbox id", "K8S_POD_INFRA_CONTAINER_ID", pod.sandbox.as_str()),
        ("sandbox uid", "K8S_POD_UID", pod.uid.as_str()),
    ];
    let mut args = "IgnoreUnknown=1".to_owned();
    for (field, key, value) in values {
        if value.contains([';', '=', '\0']) {
            return Err(NetworkError::Invalid {
                field,
                problem: format!("{value:?} has a ';' or '=' in it"),
            });
        }
        args.push_str(&format!(";{key}={value}"));
    }
    Ok(args)
}

/// Values of all capabilities that the pod has something for.
pub(super) fn values(pod: &PodAttachment) -> Result<Map<String, Value>, NetworkError> {
    let mut values = Map::new();
    let mut put = |name: &str, value: Value| values.insert(name.to_owned(), value);
    if !pod.port_mappings.is_empty() {
        let ports = pod.port_mappings.iter().map(|p| {
            json!({
                "hostPort": p.host_port,
                "containerPort": p.container_port,
                "protocol": p.protocol.name(),
                "hostIP": p.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
            })
        });
        put("portMappings", ports.collect());
    }
    let bandwidth = Bandwidth::from_annotations(&pod.annotations)?;
    if !bandwidth.is_unlimited() {
        let mut limits = Map::new();
        if let Some(rate) = bandwidth.ingress {
            limits
                .extend([("ingressRate".to_owned(), json!(rate)), ("ingressBurst".to_owned(), json!(BURST))]);
        }
        if let Some(rate) = bandwidth.egress {
            limits.extend([("egressRate".to_owned(), json!(rate)), ("egressBurst".to_owned(), json!(BURST))]);
        }
        put("bandwidth", Value::Object(limits));
    }
    if let Some(dns) = &pod.dns {
        put("dns", json!({"servers": dns.servers, "searches": dns.searches, "options": dns.options}));
    }
    if !pod.aliases.is_empty() {
        put("aliases", json!(pod.aliases));
    }
    if let Some(ips) = pod.annotations.get(IPS) {
        put("ips", ips.split(',').map(|ip| json!(ip.trim())).collect());
    }
    if let Some(mac) = pod.annotations.get(MAC) {
        put("mac", json!(mac));
    }
    if !pod.cgroup_parent.is_empty() {
        put("cgroupPath", json!(pod.cgroup_parent));
    }
    if !pod.annotations.is_empty() {
        // The name that Kubernetes runtimes use, and the plain one.
        put("io.kubernetes.cri.pod-annotations", json!(pod.annotations));
        put("podAnnotations", json!(pod.annotations));
    }
    Ok(values)
}

/// The part of the values that a plugin wants.
pub(super) fn for_plugin(values: &Map<String, Value>, plugin: &Plugin) -> Map<String, Value> {
    let wanted = values.iter().filter(|(name, _)| plugin.has_capability(name));
    wanted.map(|(name, value)| (name.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crisp_model::{
        SandboxId,
        sandbox::{PortMapping, Protocol},
    };

    use super::*;

    fn pod() -> PodAttachment {
        PodAttachment {
            sandbox: SandboxId::random(),
            name: "web".into(),
            namespace: "default".into(),
            uid: "u-1".into(),
            netns: "/n".into(),
            port_mappings: vec![PortMapping {
                protocol: Protocol::Udp,
                container_port: 53,
                host_port: 5353,
                host_ip: Some([127, 0, 0, 1].into()),
            }],
            dns: None,
            aliases: vec![],
            cgroup_parent: "/kubepods/x".into(),
            annotations: BTreeMap::from([
                ("kubernetes.io/egress-bandwidth".to_owned(), "1M".to_owned()),
                (IPS.to_owned(), "10.1.0.9/24, fd00::9/64".to_owned()),
            ]),
        }
    }

    #[test]
    fn a_plugin_gets_what_it_asks_for() {
        let values = values(&pod()).unwrap();
        let config =
            json!({"type": "x", "capabilities": {"portMappings": true, "bandwidth": true, "ips": false}});
        let plugin = Plugin { kind: "x".into(), config: config.as_object().unwrap().clone() };
        let got = Value::Object(for_plugin(&values, &plugin));
        let port = json!({"hostPort": 5353, "containerPort": 53, "protocol": "udp", "hostIP": "127.0.0.1"});
        let limits = json!({"egressRate": 1_000_000, "egressBurst": 2_147_483_647});
        assert_eq!(got, json!({"portMappings": [port], "bandwidth": limits}));
        assert_eq!(values["ips"], json!(["10.1.0.9/24", "fd00::9/64"]));
        assert_eq!(values["cgroupPath"], "/kubepods/x");
    }

    #[test]
    fn arguments_cannot_be_smuggled_in() {
        let mut pod = pod();
        let args = args(&pod).unwrap();
        assert!(args.starts_with("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;"));
        assert!(args.ends_with(";K8S_POD_UID=u-1"));
        pod.name = "web;IP=1.2.3.4".into();
        assert!(super::args(&pod).unwrap_err().to_string().contains("sandbox name"));
    }
}
