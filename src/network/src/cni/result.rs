//! What a plugin answers to ADD: read strictly and within bounds, written in any version. Pure.
//!
//! CNI specification, section 5. A plugin is a program of somebody else's: nothing of its answer is believed until
//! it was checked here.

use std::net::IpAddr;

use crisp_model::sandbox::DnsConfig;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::version::Version;
use crate::{Attached, Interface};

/// Longest answer that is read from a plugin.
pub const MAX_ANSWER: usize = 1 << 20;
/// Entries of each list; a pod with more addresses, routes or interfaces is a mistake.
const MAX_ENTRIES: usize = 1024;
/// Length of any text within.
const MAX_TEXT: usize = 4096;

/// Why an answer is not a result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadResult {
    /// Not JSON, or JSON of another form.
    #[error("{0}")]
    Form(String),
    /// A version that was not asked for and is not known.
    #[error("cniVersion {0:?} is not supported")]
    Version(String),
    /// Too much of something.
    #[error("{0} has more than it may: at most {1}")]
    TooMuch(&'static str, usize),
    /// An address refers to an interface that is not there.
    #[error("address {0} belongs to interface number {1}, and there are {2}")]
    NoInterface(IpNet, i64, usize),
}

/// An interface that a plugin made or found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ResultInterface {
    /// Name.
    pub name: String,
    /// Hardware address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// Largest packet (1.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u64>,
    /// Path of its namespace; empty: the host's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
    /// Socket of a virtual interface (1.1).
    #[serde(default, rename = "socketPath", skip_serializing_if = "String::is_empty")]
    pub socket_path: String,
    /// PCI address (1.1).
    #[serde(default, rename = "pciID", skip_serializing_if = "String::is_empty")]
    pub pci_id: String,
}

/// An address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResultIp {
    /// Address with prefix length.
    pub address: IpNet,
    /// Its gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Index into the interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<i64>,
}

/// A route. Its further keys (1.1: mtu, advmss, priority, table, scope) are handed on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResultRoute {
    /// Destination.
    pub dst: IpNet,
    /// Next hop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
    /// The other keys.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// DNS settings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResultDns {
    /// Servers.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub nameservers: Vec<String>,
    /// Local domain.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Search list.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub search: Vec<String>,
    /// Options.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub options: Vec<String>,
}

/// The result of ADD, whatever its version.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CniResult {
    /// Interfaces.
    #[serde(deserialize_with = "null_is_empty")]
    pub interfaces: Vec<ResultInterface>,
    /// Addresses.
    #[serde(deserialize_with = "null_is_empty")]
    pub ips: Vec<ResultIp>,
    /// Routes.
    #[serde(deserialize_with = "null_is_empty")]
    pub routes: Vec<ResultRoute>,
    /// DNS settings.
    pub dns: ResultDns,
}

/// Go programs write an absent list as `null`.
fn null_is_empty<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::<Vec<T>>::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl CniResult {
    /// Reads a plugin's answer.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadResult> {
        if bytes.len() > MAX_ANSWER {
            return Err(BadResult::TooMuch("the answer", MAX_ANSWER));
        }
        let value: Value = serde_json::from_slice(bytes).map_err(|e| BadResult::Form(e.to_string()))?;
        let version = value.get("cniVersion").and_then(Value::as_str).unwrap_or("0.3.1");
        version.parse::<Version>().map_err(|()| BadResult::Version(version.chars().take(80).collect()))?;
        Self::from_value(value)
    }

    /// The same for a result that was kept.
    pub fn from_value(value: Value) -> Result<Self, BadResult> {
        let result: Self = serde_json::from_value(value).map_err(|e| BadResult::Form(e.to_string()))?;
        result.check()?;
        Ok(result)
    }

    fn check(&self) -> Result<(), BadResult> {
        let counts = [
            ("interfaces", self.interfaces.len()),
            ("ips", self.ips.len()),
            ("routes", self.routes.len()),
            ("dns.nameservers", self.dns.nameservers.len()),
            ("dns.search", self.dns.search.len()),
            ("dns.options", self.dns.options.len()),
        ];
        if let Some((what, _)) = counts.into_iter().find(|(_, count)| *count > MAX_ENTRIES) {
            return Err(BadResult::TooMuch(what, MAX_ENTRIES));
        }
        let dns = &self.dns;
        let texts =
            self.interfaces.iter().flat_map(|i| [&i.name, &i.mac, &i.sandbox, &i.socket_path, &i.pci_id]);
        let texts = texts.chain([&dns.domain]).chain(&dns.nameservers).chain(&dns.search).chain(&dns.options);
        if texts.into_iter().any(|t| t.len() > MAX_TEXT) {
            return Err(BadResult::TooMuch("a text", MAX_TEXT));
        }
        for ip in &self.ips {
            let Some(index) = ip.interface else { continue };
            // Some plugins write -1 for "none".
            if index >= 0 && usize::try_from(index).is_ok_and(|i| i >= self.interfaces.len()) {
                return Err(BadResult::NoInterface(ip.address, index, self.interfaces.len()));
            }
        }
        Ok(())
    }

    /// In the form of a version, as the next plugin or DEL wants it.
    pub fn to_value(&self, version: Version) -> Value {
        let ips: Vec<Value> = self
            .ips
            .iter()
            .map(|ip| {
                let mut value = json!(ip);
                if version < Version::V1_0_0
                    && let Some(map) = value.as_object_mut()
                {
                    let family = if ip.address.addr().is_ipv4() { "4" } else { "6" };
                    map.insert("version".to_owned(), json!(family));
                }
                value
            })
            .collect();
        let mut interfaces = json!(self.interfaces);
        if version < Version::V1_1_0
            && let Some(list) = interfaces.as_array_mut()
        {
            for key in ["mtu", "socketPath", "pciID"] {
                list.iter_mut().filter_map(Value::as_object_mut).for_each(|i| {
                    i.remove(key);
                });
            }
        }
        json!({
            "cniVersion": version.text(),
            "interfaces": interfaces,
            "ips": ips,
            "routes": self.routes,
            "dns": self.dns,
        })
    }

    /// What the pod got. Addresses of interfaces on the host's side (a bridge's own) are not the pod's.
    pub fn attached(&self, interface: &str) -> Attached {
        let of = |ip: &ResultIp| {
            ip.interface.and_then(|i| usize::try_from(i).ok()).and_then(|i| self.interfaces.get(i))
        };
        let inside = |ip: &&ResultIp| of(ip).is_none_or(|i| !i.sandbox.is_empty());
        let mut ips: Vec<&ResultIp> = self.ips.iter().filter(inside).collect();
        // The pod's main interface first; among its addresses the plugin's order holds.
        ips.sort_by_key(|ip| of(ip).is_some_and(|i| i.name != interface));
        let dns = &self.dns;
        let any = !dns.nameservers.is_empty() || !dns.search.is_empty() || !dns.options.is_empty();
        Attached {
            ips: ips.into_iter().map(|ip| ip.address.addr()).collect(),
            dns: any.then(|| DnsConfig {
                servers: dns.nameservers.clone(),
                searches: dns.search.clone(),
                options: dns.options.clone(),
            }),
            interfaces: self
                .interfaces
                .iter()
                .map(|i| Interface { name: i.name.clone(), mac: i.mac.clone(), sandbox: i.sandbox.clone() })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BRIDGE: &str = r#"{"cniVersion":"0.4.0",
        "interfaces":[{"name":"cni0","mac":"aa:bb:cc:dd:ee:ff"},{"name":"veth1"},
                      {"name":"eth0","mac":"aa:bb:cc:dd:ee:00","sandbox":"/run/netns/x"}],
        "ips":[{"version":"6","interface":2,"address":"fd00::5/64","gateway":"fd00::1"},
               {"version":"4","interface":2,"address":"10.22.0.5/16","gateway":"10.22.0.1"},
               {"version":"4","interface":0,"address":"10.22.0.1/16"}],
        "routes":[{"dst":"0.0.0.0/0","gw":"10.22.0.1","mtu":1400}],
        "dns":{"nameservers":["10.0.0.10"],"search":null}}"#;

    #[test]
    fn a_result_is_read_and_written_in_another_version() {
        let result = CniResult::parse(BRIDGE.as_bytes()).unwrap();
        let got = result.attached("eth0");
        assert_eq!(got.ips.iter().map(ToString::to_string).collect::<Vec<_>>(), ["fd00::5", "10.22.0.5"]);
        assert_eq!(got.dns.unwrap().servers, ["10.0.0.10"]);
        let new = result.to_value(Version::V1_1_0);
        assert_eq!(new["ips"][0].get("version"), None);
        assert_eq!(new["routes"][0]["mtu"], 1400);
        let old = result.to_value(Version::V0_3_1);
        assert_eq!(old["ips"][0]["version"], "6");
        assert_eq!(old["cniVersion"], "0.3.1");
        assert_eq!(CniResult::from_value(old).unwrap(), result);
    }

    #[test]
    fn the_main_interface_comes_first() {
        let text = r#"{"cniVersion":"1.0.0","interfaces":[{"name":"net1","sandbox":"/n"},{"name":"eth0","sandbox":"/n"}],
            "ips":[{"address":"10.9.0.2/24","interface":0},{"address":"10.1.0.2/24","interface":1}]}"#;
        let got = CniResult::parse(text.as_bytes()).unwrap().attached("eth0");
        assert_eq!(got.ips[0].to_string(), "10.1.0.2");
    }

    #[test]
    fn bad_answers_are_refused() {
        let many = format!(
            r#"{{"cniVersion":"1.0.0","ips":[{}]}}"#,
            vec![r#"{"address":"10.0.0.1/8"}"#; 2000].join(",")
        );
        for (text, problem) in [
            ("", "EOF"),
            ("null", "invalid type"),
            (r#"{"cniVersion":"2.0.0"}"#, "not supported"),
            (r#"{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.1"}]}"#, "invalid IP address syntax"),
            (r#"{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.1/33"}]}"#, "invalid IP address syntax"),
            (
                r#"{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.1/8","interface":3}]}"#,
                "interface number 3",
            ),
            (r#"{"cniVersion":"1.0.0","ips":"x"}"#, "invalid type"),
            (many.as_str(), "ips has more"),
        ] {
            let error = CniResult::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(problem), "{}: {error}", &text[..text.len().min(80)]);
        }
        assert_eq!(CniResult::parse(b"{}").unwrap(), CniResult::default());
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = CniResult::parse(&bytes);
        }
    }
}
