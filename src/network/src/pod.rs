//! What a pod asks of its network, and what it gets.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use crisp_model::{
    SandboxId,
    sandbox::{DnsConfig, PortMapping},
};
use serde::{Deserialize, Serialize};

/// Name of the pod's interface inside its namespace, as every runtime names it.
pub const INTERFACE: &str = "eth0";

/// A pod that is to be attached.
#[derive(Debug, Clone)]
pub struct PodAttachment {
    /// Its sandbox.
    pub sandbox: SandboxId,
    /// Pod name.
    pub name: String,
    /// Pod namespace.
    pub namespace: String,
    /// Pod UID.
    pub uid: String,
    /// The pod's network namespace as a file that stays until after [`crate::Network::detach`]: a bind mount, as a
    /// path through /proc would name another namespace when its process has gone.
    pub netns: PathBuf,
    /// Host ports.
    pub port_mappings: Vec<PortMapping>,
    /// DNS settings of the pod, for plugins that want them.
    pub dns: Option<DnsConfig>,
    /// Further DNS names.
    pub aliases: Vec<String>,
    /// cgroup of the pod, for plugins that want it.
    pub cgroup_parent: String,
    /// The pod's annotations. `kubernetes.io/ingress-bandwidth` and `.../egress-bandwidth` limit its traffic.
    pub annotations: BTreeMap<String, String>,
}

/// An attached pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attached {
    /// Addresses inside the pod, the primary one first.
    pub ips: Vec<IpAddr>,
    /// DNS settings that the network asks for.
    pub dns: Option<DnsConfig>,
    /// Interfaces inside the pod and their counterparts on the host.
    pub interfaces: Vec<Interface>,
}

/// An interface that was made for a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Interface {
    /// Name.
    pub name: String,
    /// Hardware address as text.
    pub mac: String,
    /// Path of the network namespace; empty: the host's.
    pub sandbox: String,
}

/// Bits per second that a pod may receive and send.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bandwidth {
    /// Into the pod.
    pub ingress: Option<u64>,
    /// Out of it.
    pub egress: Option<u64>,
}

/// The annotation did not hold a quantity between 1 kbit/s and 1 Pbit/s.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("annotation {name}: {value:?} is not a bandwidth between 1k and 1P bits per second")]
pub struct InvalidBandwidth {
    name: &'static str,
    value: String,
}

impl Bandwidth {
    /// Reads the annotations that Kubernetes defines (resource quantities in bits per second).
    pub fn from_annotations(annotations: &BTreeMap<String, String>) -> Result<Self, InvalidBandwidth> {
        let read = |name: &'static str| match annotations.get(name) {
            None => Ok(None),
            Some(value) => match quantity(value) {
                Some(bits) if (1_000..=1_000_000_000_000_000).contains(&bits) => Ok(Some(bits)),
                _ => Err(InvalidBandwidth { name, value: value.chars().take(80).collect() }),
            },
        };
        Ok(Self {
            ingress: read("kubernetes.io/ingress-bandwidth")?,
            egress: read("kubernetes.io/egress-bandwidth")?,
        })
    }

    /// Whether nothing is limited.
    pub fn is_unlimited(&self) -> bool {
        self.ingress.is_none() && self.egress.is_none()
    }
}

/// A Kubernetes quantity as a whole number: digits with an optional fraction, then a decimal (k, M, G, T, P, E) or
/// binary (Ki, Mi, ...) suffix or none.
fn quantity(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, suffix) = text.split_at(end);
    let factor = match suffix {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "P" => 1_000_000_000_000_000,
        "E" => 1_000_000_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        "Ei" => 1 << 60,
        _ => return None,
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if fraction.len() > 9 || fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let number = |t: &str| if t.is_empty() { Some(0) } else { t.parse::<u128>().ok() };
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let value = number(whole)?.checked_mul(factor)? + number(fraction)? * factor / scale;
    u64::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        for (text, bits) in [
            ("10M", Some(10_000_000)),
            ("1.5G", Some(1_500_000_000)),
            ("1Ki", Some(1024)),
            ("5", Some(5)),
            ("", None),
            (".", None),
            ("M", None),
            ("-1M", None),
            ("1.2.3", None),
            ("1m", None),
            ("99999999999999999999999999E", None),
        ] {
            assert_eq!(quantity(text), bits, "{text}");
        }
    }

    #[test]
    fn annotations_are_checked() {
        let with = |value: &str| {
            let name = "kubernetes.io/ingress-bandwidth".to_owned();
            Bandwidth::from_annotations(&BTreeMap::from([(name, value.to_owned())]))
        };
        assert_eq!(with("10M").unwrap(), Bandwidth { ingress: Some(10_000_000), egress: None });
        assert!(with("10").unwrap_err().to_string().contains("ingress-bandwidth"));
        assert!(Bandwidth::from_annotations(&BTreeMap::new()).unwrap().is_unlimited());
    }
}
