//! Links, addresses and routes over rtnetlink (rtnetlink(7)).

use std::{
    net::IpAddr,
    os::fd::{AsRawFd, BorrowedFd},
};

use ipnet::IpNet;
use nix::errno::Errno;

use super::{
    ACK, CREATE, DUMP, EXCLUSIVE, NetlinkError, REPLACE, REQUEST, Socket,
    message::{Batch, attribute, text},
};

const VETH_INFO_PEER: u16 = 1;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const UP: u32 = libc::IFF_UP as u32;

/// A hardware address.
pub type Mac = [u8; 6];

/// What is asked about links most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Index within its namespace.
    pub index: u32,
    /// Name.
    pub name: String,
    /// `bridge`, `veth`, ...; empty for hardware.
    pub kind: String,
    /// Index of the bridge it is a port of, or 0.
    pub master: u32,
    /// Whether it is up.
    pub up: bool,
    /// Hardware address.
    pub mac: Vec<u8>,
    /// Largest packet in bytes.
    pub mtu: u32,
}

/// A veth pair that is made in one go.
#[derive(Debug)]
pub struct VethPair<'a> {
    /// Name of the end in this namespace.
    pub name: &'a str,
    /// Bridge that this end becomes a port of.
    pub master: u32,
    /// Largest packet in bytes, of both ends; 0: the kernel's choice.
    pub mtu: u32,
    /// Name of the other end.
    pub peer_name: &'a str,
    /// Its hardware address.
    pub peer_mac: Mac,
    /// The network namespace it is made in.
    pub peer_netns: BorrowedFd<'a>,
}

fn ifinfomsg(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { libc::AF_INET as u8 } else { libc::AF_INET6 as u8 }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

/// Makes a bridge that is up. Its hardware address is fixed, as it would else change with its ports.
pub fn add_bridge(batch: &mut Batch, name: &str, mac: Mac, mtu: u32) {
    batch.message(libc::RTM_NEWLINK, REQUEST | ACK | CREATE | EXCLUSIVE, &ifinfomsg(0, UP, UP), |a| {
        a.text(libc::IFLA_IFNAME, name).bytes(libc::IFLA_ADDRESS, &mac);
        if mtu > 0 {
            a.u32(libc::IFLA_MTU, mtu);
        }
        a.nest(libc::IFLA_LINKINFO, |info| {
            info.text(libc::IFLA_INFO_KIND, "bridge");
        });
    });
}

/// Makes both ends, each in its namespace: this one up and on the bridge, the other one still down (the kernel cannot
/// bring it up while it makes the pair).
pub fn add_veth(batch: &mut Batch, pair: &VethPair<'_>) {
    let fd = u32::try_from(pair.peer_netns.as_raw_fd()).expect("an open descriptor is not negative");
    batch.message(libc::RTM_NEWLINK, REQUEST | ACK | CREATE | EXCLUSIVE, &ifinfomsg(0, UP, UP), |a| {
        a.text(libc::IFLA_IFNAME, pair.name).u32(libc::IFLA_MASTER, pair.master);
        if pair.mtu > 0 {
            a.u32(libc::IFLA_MTU, pair.mtu);
        }
        a.nest(libc::IFLA_LINKINFO, |info| {
            info.text(libc::IFLA_INFO_KIND, "veth").nest(libc::IFLA_INFO_DATA, |data| {
                data.nest_with(VETH_INFO_PEER, &ifinfomsg(0, 0, 0), |peer| {
                    peer.text(libc::IFLA_IFNAME, pair.peer_name)
                        .bytes(libc::IFLA_ADDRESS, &pair.peer_mac)
                        .u32(libc::IFLA_NET_NS_FD, fd);
                    if pair.mtu > 0 {
                        peer.u32(libc::IFLA_MTU, pair.mtu);
                    }
                });
            });
        });
    });
}

/// What a bridge port needs beside being one. No IPv6 of its own: no link-local address, no duplicate address
/// detection. And packets may go back where they came from (hairpin): with `bridge-nf-call-iptables`, which Kubernetes
/// asks for, the bridge itself delivers what a pod sends to its own host port or service.
pub fn set_up_port(batch: &mut Batch, name: &str, host_has_ipv6: bool) {
    batch.message(libc::RTM_NEWLINK, REQUEST | ACK, &ifinfomsg(0, 0, 0), |a| {
        a.text(libc::IFLA_IFNAME, name);
        a.nest(libc::IFLA_LINKINFO, |info| {
            info.nest(IFLA_INFO_SLAVE_DATA, |port| {
                port.u8(IFLA_BRPORT_MODE, 1);
            });
        });
        if host_has_ipv6 {
            a.nest(libc::IFLA_AF_SPEC, |spec| {
                spec.nest(libc::AF_INET6 as u16, |v6| {
                    v6.u8(IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
                });
            });
        }
    });
}

/// Brings a link up.
pub fn set_up(batch: &mut Batch, index: u32) {
    batch.message(libc::RTM_NEWLINK, REQUEST | ACK, &ifinfomsg(index, UP, UP), |_| {});
}

/// Removes a link. Slow for a veth: the kernel waits for everybody who might still look at it.
pub fn delete_link(batch: &mut Batch, index: u32) {
    batch.message(libc::RTM_DELLINK, REQUEST | ACK, &ifinfomsg(index, 0, 0), |_| {});
}

/// Gives a link an address with its prefix length; no duplicate address detection, since the pool is the authority.
pub fn add_address(batch: &mut Batch, index: u32, address: IpNet) {
    let ip = address.addr();
    let mut header = [family(ip), address.prefix_len(), 0, 0, 0, 0, 0, 0];
    if ip.is_ipv6() {
        header[2] = libc::IFA_F_NODAD as u8;
    }
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    batch.message(libc::RTM_NEWADDR, REQUEST | ACK | CREATE | REPLACE, &header, |a| {
        a.bytes(libc::IFA_LOCAL, &octets(ip)).bytes(libc::IFA_ADDRESS, &octets(ip));
        if let IpNet::V4(net) = address {
            a.bytes(libc::IFA_BROADCAST, &net.broadcast().octets());
        }
    });
}

/// Sends everything that no other route takes to `gateway`.
pub fn add_default_route(batch: &mut Batch, index: u32, gateway: IpAddr) {
    let mut header = [0; 12];
    header[0] = family(gateway);
    header[4] = libc::RT_TABLE_MAIN;
    header[5] = libc::RTPROT_BOOT;
    header[6] = libc::RT_SCOPE_UNIVERSE;
    header[7] = libc::RTN_UNICAST;
    batch.message(libc::RTM_NEWROUTE, REQUEST | ACK | CREATE | REPLACE, &header, |a| {
        a.bytes(libc::RTA_GATEWAY, &octets(gateway)).u32(libc::RTA_OIF, index);
    });
}

fn parse_link(body: &[u8]) -> Option<Link> {
    let word = |at: usize| body.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
    let (index, flags) = (word(4)?, word(8)?);
    let rest = body.get(16..)?;
    let number =
        |kind| attribute(rest, kind).and_then(|p| p.get(..4)?.try_into().ok()).map_or(0, u32::from_ne_bytes);
    Some(Link {
        index,
        name: text(attribute(rest, libc::IFLA_IFNAME)?),
        kind: attribute(rest, libc::IFLA_LINKINFO)
            .and_then(|info| attribute(info, libc::IFLA_INFO_KIND))
            .map(text)
            .unwrap_or_default(),
        master: number(libc::IFLA_MASTER),
        up: flags & UP != 0,
        mac: attribute(rest, libc::IFLA_ADDRESS).unwrap_or_default().to_vec(),
        mtu: number(libc::IFLA_MTU),
    })
}

/// The link of that name, if there is one.
pub fn link(socket: &mut Socket, name: &str) -> Result<Option<Link>, NetlinkError> {
    let mut batch = Batch::new();
    batch.message(libc::RTM_GETLINK, REQUEST, &ifinfomsg(0, 0, 0), |a| {
        a.text(libc::IFLA_IFNAME, name);
    });
    match socket.ask(batch) {
        Ok(found) => Ok(found.iter().find_map(|m| parse_link(&m.body))),
        Err(e) if e.errno == Errno::ENODEV => Ok(None),
        Err(e) => Err(e),
    }
}

/// Largest packet of the link that the default route leads through; `None` without one.
pub fn default_route_mtu(socket: &mut Socket) -> Option<u32> {
    let mut batch = Batch::new();
    let mut header = [0; 12];
    header[0] = libc::AF_INET as u8;
    batch.message(libc::RTM_GETROUTE, REQUEST | DUMP, &header, |_| {});
    let default = |body: &[u8]| {
        let main = body.get(4).is_some_and(|table| *table == libc::RT_TABLE_MAIN);
        let way =
            attribute(body.get(12..)?, libc::RTA_OIF)?.get(..4)?.try_into().ok().map(u32::from_ne_bytes);
        way.filter(|_| main && body[1] == 0)
    };
    let index = socket.ask(batch).ok()?.iter().find_map(|m| default(&m.body))?;
    let mut batch = Batch::new();
    batch.message(libc::RTM_GETLINK, REQUEST, &ifinfomsg(index, 0, 0), |_| {});
    let link = socket.ask(batch).ok()?.iter().find_map(|m| parse_link(&m.body))?;
    Some(link.mtu)
}

/// All addresses, each with the index of its link.
pub fn addresses(socket: &mut Socket) -> Result<Vec<(u32, IpNet)>, NetlinkError> {
    let mut batch = Batch::new();
    batch.message(libc::RTM_GETADDR, REQUEST | DUMP, &[0; 8], |_| {});
    let parse = |body: &[u8]| {
        let index = u32::from_ne_bytes(body.get(4..8)?.try_into().ok()?);
        let rest = body.get(8..)?;
        let payload = attribute(rest, libc::IFA_LOCAL).or_else(|| attribute(rest, libc::IFA_ADDRESS))?;
        let ip = match payload.len() {
            4 => IpAddr::from(<[u8; 4]>::try_from(payload).ok()?),
            16 => IpAddr::from(<[u8; 16]>::try_from(payload).ok()?),
            _ => return None,
        };
        Some((index, IpNet::new(ip, body[1]).ok()?))
    };
    Ok(socket.ask(batch)?.iter().filter_map(|m| parse(&m.body)).collect())
}

/// Limits what a link sends to `bits` per second (tc-tbf(8)), with a burst of 50 ms but at least 64 KiB, and a queue of
/// 25 ms on top.
pub fn add_token_bucket(batch: &mut Batch, index: u32, bits: u64) {
    const TCA_KIND: u16 = 1;
    const TCA_OPTIONS: u16 = 2;
    const TBF_PARMS: u16 = 1;
    const TBF_RATE64: u16 = 4;
    const TBF_BURST: u16 = 6;
    const ROOT: u32 = 0xffff_ffff;
    let bytes = bits / 8;
    let burst = u32::try_from((bytes / 20).clamp(64 << 10, 256 << 20)).unwrap_or(u32::MAX);
    let limit = u32::try_from(u64::from(burst) + bytes / 40).unwrap_or(u32::MAX);
    let mut tcmsg = [0; 20];
    tcmsg[4..8].copy_from_slice(&index.to_ne_bytes());
    tcmsg[12..16].copy_from_slice(&ROOT.to_ne_bytes());
    // struct tc_tbf_qopt: rate and peakrate (tc_ratespec, 12 bytes each), limit, buffer, mtu.
    let mut parameters = [0; 36];
    let rate = u32::try_from(bytes).unwrap_or(u32::MAX);
    // Link layer: ethernet; else the kernel would guess it from a rate table that is not sent.
    parameters[1] = 1;
    parameters[8..12].copy_from_slice(&rate.to_ne_bytes());
    parameters[24..28].copy_from_slice(&limit.to_ne_bytes());
    batch.message(libc::RTM_NEWQDISC, REQUEST | ACK | CREATE | REPLACE, &tcmsg, |a| {
        a.text(TCA_KIND, "tbf").nest(TCA_OPTIONS, |o| {
            o.bytes(TBF_PARMS, &parameters).u32(TBF_BURST, burst);
            if bytes > u64::from(u32::MAX) {
                o.bytes(TBF_RATE64, &bytes.to_ne_bytes());
            }
        });
    });
}
