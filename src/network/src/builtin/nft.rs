//! The packet filter's part in nftables: one table of crisp's own, named after the bridge.
//!
//! ```text
//!   guard        raw      from the bridge to 127.0.0.0/8: dropped (route_localnet would let it in)
//!   prerouting   dstnat   to an address of this host: -> ports
//!   output       dstnat   the same for what this host sends itself
//!   ports                 by host address, else by port alone: destination becomes what the map says
//!   postrouting  srcnat   what must come back through this host gets its address:
//!                           - from 127.0.0.0/8 to a pod
//!                           - from a pod over a host port to a pod (itself too)
//!                           - from a pod to the world, if masquerading
//! ```
//!
//! `::1` is left alone: IPv6 has no route_localnet, so the answers could not come back. A program that tries `localhost`
//! is refused there at once and goes on to 127.0.0.1.
//!
//! The rules never change while the daemon runs; a pod's host ports are map elements, added and removed together in
//! one transaction. `install` replaces the table as a whole, also in one transaction: no packet sees it half made.

use std::net::{IpAddr, SocketAddr};

use crisp_model::sandbox::Protocol;
use ipnet::IpNet;
use nix::errno::Errno;

use super::{
    firewall::{Firewall, Layout},
    lease::{Forward, ForwardKey},
};
use crate::{
    NetworkError,
    netlink::{
        NetlinkError, Socket,
        nftables::{self, Expression as E, Hook, KeyType, Register, Transaction},
    },
};

const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;
const KIND_LOCAL: u32 = 2;
/// `IPS_DST_NAT`, a connection status bit, in the machine's order as `ct status` has it.
const STATUS_DNAT: u32 = 1 << 5;
const R: Register = Register::FIRST;

/// The table, over a socket of its own.
#[derive(Debug)]
pub(super) struct Nftables {
    socket: Socket,
    table: String,
}

/// What differs between the families.
struct Family {
    number: u8,
    source: u32,
    destination: u32,
    len: u32,
    address: KeyType,
    any: &'static str,
    one: &'static str,
}

const V4: Family = Family {
    number: 2,
    source: 12,
    destination: 16,
    len: 4,
    address: KeyType::Ipv4,
    any: "ports4",
    one: "ports4-address",
};
const V6: Family = Family {
    number: 10,
    source: 8,
    destination: 24,
    len: 16,
    address: KeyType::Ipv6,
    any: "ports6",
    one: "ports6-address",
};

impl Family {
    fn of(v6: bool) -> &'static Family {
        if v6 { &V6 } else { &V4 }
    }

    fn is_it(&self) -> [E<'static>; 2] {
        [E::Meta(META_NFPROTO, R), E::Equal(R, vec![self.number])]
    }

    fn within(&self, offset: u32, net: IpNet, inside: bool) -> Vec<E<'static>> {
        let value = octets(net.trunc().network());
        let compare = if inside { E::Equal(R, value) } else { E::Differs(R, value) };
        vec![E::Payload(NETWORK, offset, self.len, R), E::Mask(R, octets(net.netmask())), compare]
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

fn interface(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn key(key: &ForwardKey) -> (&'static str, Vec<u8>) {
    let protocol = match key.protocol {
        Protocol::Tcp => libc::IPPROTO_TCP,
        Protocol::Udp => libc::IPPROTO_UDP,
        Protocol::Sctp => libc::IPPROTO_SCTP,
    };
    let family = Family::of(key.v6);
    let mut bytes = key.host_ip.map(octets).unwrap_or_default();
    bytes.extend(padded(&[protocol as u8]));
    bytes.extend(padded(&key.host_port.to_be_bytes()));
    (if key.host_ip.is_some() { family.one } else { family.any }, bytes)
}

fn value(target: SocketAddr) -> Vec<u8> {
    let mut bytes = octets(target.ip());
    bytes.extend(padded(&target.port().to_be_bytes()));
    bytes
}

fn loopback6() -> IpNet {
    IpNet::new(std::net::Ipv6Addr::LOCALHOST.into(), 128).expect("128 is at most 128")
}

fn maps() -> [&'static str; 4] {
    [V4.any, V4.one, V6.any, V6.one]
}

impl Nftables {
    pub(super) fn open(table: &str) -> Result<Self, NetlinkError> {
        Ok(Self { socket: Socket::netfilter()?, table: table.to_owned() })
    }

    fn rules(&self, t: &mut Transaction<'_>, layout: &Layout) {
        let bridge = interface(&layout.bridge);
        let loopback: IpNet = IpNet::new([127, 0, 0, 0].into(), 8).expect("8 is at most 32");
        let guard = Hook { kind: "filter", number: 0, priority: -300 };
        t.chain("guard", Some(guard));
        let mut rule = vec![E::Meta(META_IIFNAME, R), E::Equal(R, bridge.clone())];
        rule.extend(V4.is_it());
        rule.extend(V4.within(V4.destination, loopback, true));
        rule.push(E::Drop);
        t.rule("guard", &rule);

        t.chain("ports", None);
        for family in [&V4, &V6] {
            let addresses = [family.address, KeyType::Protocol, KeyType::Service];
            t.map(family.any, &addresses[1..], &[family.address, KeyType::Service]);
            t.map(family.one, &addresses, &[family.address, KeyType::Service]);
            for (map, with_address) in [(family.one, true), (family.any, false)] {
                let mut rule = family.is_it().to_vec();
                let mut at = R;
                if with_address {
                    rule.push(E::Payload(NETWORK, family.destination, family.len, at));
                    at = at.after(family.len);
                }
                rule.push(E::Meta(META_L4PROTO, at));
                rule.push(E::Payload(TRANSPORT, 2, 2, at.after(4)));
                rule.push(E::Lookup(map, R, R));
                rule.push(E::DestinationNat(family.number.into(), R, R.after(family.len)));
                t.rule("ports", &rule);
            }
        }

        for (chain, number) in [("prerouting", 0), ("output", 3)] {
            t.chain(chain, Some(Hook { kind: "nat", number, priority: -100 }));
            if chain == "output" {
                let mut rule = V6.is_it().to_vec();
                rule.extend(V6.within(V6.destination, loopback6(), true));
                rule.push(E::Return);
                t.rule(chain, &rule);
            }
            let local = E::Equal(R, KIND_LOCAL.to_ne_bytes().to_vec());
            t.rule(chain, &[E::DestinationKind(R), local, E::Jump("ports")]);
        }
        self.postrouting(t, layout, &bridge, loopback);
    }

    fn postrouting(&self, t: &mut Transaction<'_>, layout: &Layout, bridge: &[u8], loopback: IpNet) {
        t.chain("postrouting", Some(Hook { kind: "nat", number: 4, priority: 100 }));
        let to_bridge = [E::Meta(META_OIFNAME, R), E::Equal(R, bridge.to_vec())];
        let translated = [
            E::ConnectionStatus(R),
            E::Mask(R, STATUS_DNAT.to_ne_bytes().to_vec()),
            E::Differs(R, vec![0; 4]),
        ];
        let subnets = layout.subnets.iter().copied();
        for source in subnets.chain([loopback]) {
            let family = Family::of(source.addr().is_ipv6());
            let mut rule = to_bridge.to_vec();
            rule.extend(family.is_it());
            rule.extend(family.within(family.source, source, true));
            rule.extend(translated.clone());
            rule.push(E::Masquerade);
            t.rule("postrouting", &rule);
        }
        if !layout.masquerade {
            return;
        }
        for subnet in &layout.subnets {
            let v6 = subnet.addr().is_ipv6();
            let family = Family::of(v6);
            let multicast: IpNet = if v6 { "ff00::/8" } else { "224.0.0.0/4" }.parse().expect("a constant");
            let mut rule = vec![E::Meta(META_OIFNAME, R), E::Differs(R, bridge.to_vec())];
            rule.extend(family.is_it());
            rule.extend(family.within(family.source, *subnet, true));
            rule.extend(family.within(family.destination, *subnet, false));
            rule.extend(family.within(family.destination, multicast, false));
            rule.push(E::Masquerade);
            t.rule("postrouting", &rule);
        }
    }

    fn put(t: &mut Transaction<'_>, forwards: &[Forward]) {
        for map in maps() {
            let elements: Vec<_> = forwards
                .iter()
                .map(|f| (key(&f.key), value(f.target)))
                .filter(|((m, _), _)| *m == map)
                .map(|((_, key), value)| (key, value))
                .collect();
            t.add_elements(map, &elements);
        }
    }

    fn take(t: &mut Transaction<'_>, forwards: &[Forward]) {
        for map in maps() {
            let keys: Vec<_> =
                forwards.iter().map(|f| key(&f.key)).filter(|(m, _)| *m == map).map(|(_, key)| key).collect();
            t.delete_elements(map, &keys);
        }
    }

    fn fail(&self, operation: &'static str, error: NetlinkError) -> NetworkError {
        NetworkError::host(operation, format!("nftables table inet {} ({error})", self.table), error)
    }
}

impl Firewall for Nftables {
    fn kind(&self) -> &'static str {
        "nftables"
    }

    fn install(&mut self, layout: &Layout, forwards: &[Forward]) -> Result<(), NetworkError> {
        let table = self.table.clone();
        let mut t = Transaction::new(&table);
        t.table();
        t.delete_table();
        t.table();
        self.rules(&mut t, layout);
        Self::put(&mut t, forwards);
        t.commit(&mut self.socket).map_err(|e| self.fail("install", e))
    }

    fn is_there(&mut self) -> bool {
        nftables::has_chain(&mut self.socket, &self.table, "postrouting")
    }

    fn add(&mut self, forwards: &[Forward]) -> Result<(), NetworkError> {
        let table = self.table.clone();
        let mut t = Transaction::new(&table);
        Self::put(&mut t, forwards);
        t.commit(&mut self.socket).map_err(|e| self.fail("add host ports to", e))
    }

    fn remove(&mut self, forwards: &[Forward]) -> Result<(), NetworkError> {
        let table = self.table.clone();
        let mut t = Transaction::new(&table);
        Self::take(&mut t, forwards);
        match t.commit(&mut self.socket) {
            Err(e) if e.errno == Errno::ENOENT => {}
            other => return other.map_err(|e| self.fail("remove host ports from", e)),
        }
        // Somebody else has taken some of them (or the table) away: remove the others one by one.
        for forward in forwards {
            let mut t = Transaction::new(&table);
            Self::take(&mut t, std::slice::from_ref(forward));
            match t.commit(&mut self.socket) {
                Err(e) if e.errno == Errno::ENOENT => {}
                other => other.map_err(|e| self.fail("remove a host port from", e))?,
            }
        }
        Ok(())
    }

    fn uninstall(&mut self) -> Result<(), NetworkError> {
        let table = self.table.clone();
        let mut t = Transaction::new(&table);
        t.table();
        t.delete_table();
        t.commit(&mut self.socket).map_err(|e| self.fail("remove", e))
    }
}
