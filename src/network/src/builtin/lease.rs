//! What the built-in network gave to a pod, as one file a pod in the state folder.
//!
//! Written before anything is made for the pod and removed when all was taken back, so a crash in between leaves a
//! record from which it can be taken back. It is not synced to disk: neither the interfaces nor the rules survive a
//! reboot, and records of another boot are thrown away.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use crisp_model::{
    SandboxId,
    sandbox::{PortMapping, Protocol},
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Version of the record's form.
pub(crate) const VERSION: u32 = 1;

/// One pod's part of the built-in network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    /// [`VERSION`].
    pub version: u32,
    /// Boot that it belongs to.
    pub boot: String,
    /// Counts up; the highest one tells where the address search goes on after a restart.
    pub sequence: u64,
    /// Whose it is.
    pub sandbox: SandboxId,
    /// Pod namespace and name, for whoever reads the file.
    pub pod: String,
    /// The pod's network namespace.
    pub netns: PathBuf,
    /// Name of the host's end of the pair.
    pub link: String,
    /// Addresses with prefix length, the primary one first.
    pub addresses: Vec<IpNet>,
    /// Host ports.
    pub ports: Vec<PortMapping>,
}

/// A host port as the packet filter sees it: one address family, one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Forward {
    /// Where packets go to.
    pub key: ForwardKey,
    /// Where they are sent instead.
    pub target: SocketAddr,
}

/// Where packets go to that are forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ForwardKey {
    /// Transport.
    pub protocol: Protocol,
    /// Only to this address of the host; `None`: to all of the family.
    pub host_ip: Option<IpAddr>,
    /// Whether the family is IPv6.
    pub v6: bool,
    /// Port of the host.
    pub host_port: u16,
}

/// The forwards that a pod's ports make. A port on an address whose family the pod has not leads nowhere and is
/// left out, as the CNI plugin does.
pub(crate) fn forwards(ports: &[PortMapping], addresses: &[IpAddr]) -> Vec<Forward> {
    let mut found: Vec<Forward> = Vec::new();
    for port in ports.iter().filter(|p| p.host_port != 0 && p.container_port != 0) {
        for pod in addresses {
            let host_ip = port.host_ip.filter(|ip| !ip.is_unspecified());
            if port.host_ip.is_some_and(|ip| ip.is_ipv6() != pod.is_ipv6()) {
                continue;
            }
            let key =
                ForwardKey { protocol: port.protocol, host_ip, v6: pod.is_ipv6(), host_port: port.host_port };
            // One target a key: a pod has one address of a family here, and the first of equal ports counts.
            if found.iter().all(|f| f.key != key) {
                found.push(Forward { key, target: SocketAddr::new(*pod, port.container_port) });
            }
        }
    }
    found
}

impl Lease {
    /// The addresses alone.
    pub(crate) fn ips(&self) -> Vec<IpAddr> {
        self.addresses.iter().map(IpNet::addr).collect()
    }

    /// Its host ports as the packet filter sees them.
    pub(crate) fn forwards(&self) -> Vec<Forward> {
        forwards(&self.ports, &self.ips())
    }
}

/// Name of the host's end: made of the primary address, so the kernel itself refuses a second pair for an address
/// while the first one is there.
pub(crate) fn link_name(primary: IpAddr) -> String {
    match primary {
        IpAddr::V4(ip) => format!("cr{:08x}", u32::from(ip)),
        IpAddr::V6(ip) => format!("cr6{:08x}", u128::from(ip) as u32),
    }
}

/// Hardware address of the pod's end: made of the primary address too, so what others have in their neighbour tables
/// stays right when an address gets a new holder.
pub(crate) fn pod_mac(primary: IpAddr) -> [u8; 6] {
    let (marker, low) = match primary {
        IpAddr::V4(ip) => (0x58, u32::from(ip)),
        IpAddr::V6(ip) => (0x5a, u128::from(ip) as u32),
    };
    let [a, b, c, d] = low.to_be_bytes();
    // 0x0a: locally administered, one receiver.
    [0x0a, marker, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(protocol: Protocol, host_port: u16, host_ip: Option<&str>) -> PortMapping {
        PortMapping { protocol, container_port: 80, host_port, host_ip: host_ip.map(|t| t.parse().unwrap()) }
    }

    #[test]
    fn ports_become_forwards_of_the_families_that_the_pod_has() {
        let ips: Vec<IpAddr> = vec!["10.88.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        let table = [
            (None, vec!["10.88.0.2:80", "[fd00::2]:80"]),
            (Some("0.0.0.0"), vec!["10.88.0.2:80"]),
            (Some("::"), vec!["[fd00::2]:80"]),
            (Some("192.0.2.1"), vec!["10.88.0.2:80"]),
            (Some("2001:db8::1"), vec!["[fd00::2]:80"]),
        ];
        for (host_ip, targets) in table {
            let got = forwards(&[port(Protocol::Tcp, 8080, host_ip)], &ips);
            assert_eq!(got.iter().map(|f| f.target.to_string()).collect::<Vec<_>>(), targets, "{host_ip:?}");
        }
        assert!(forwards(&[port(Protocol::Tcp, 8080, Some("::1"))], &ips[..1]).is_empty());
        assert!(forwards(&[port(Protocol::Tcp, 0, None)], &ips).is_empty());
        let same = [port(Protocol::Udp, 53, None), port(Protocol::Udp, 53, Some("0.0.0.0"))];
        assert_eq!(forwards(&same, &ips[..1]).len(), 1);
    }

    #[test]
    fn names_fit_and_differ() {
        let v4 = link_name("10.88.255.254".parse().unwrap());
        let v6 = link_name("fd00::ffff:ffff".parse().unwrap());
        assert_eq!((v4.as_str(), v6.as_str()), ("cr0a58fffe", "cr6ffffffff"));
        assert_eq!(pod_mac("10.88.0.2".parse().unwrap()), [0x0a, 0x58, 10, 88, 0, 2]);
    }
}
