//! The bridge: the host's interface in the pods' subnets.

use std::net::IpAddr;

use ipnet::IpNet;
use nix::errno::Errno;

use crate::{
    NetworkError,
    netlink::{NetlinkError, Socket, message::Batch, route},
};

/// Makes the bridge, or takes up the one of an earlier run, and gives it the gateways' addresses. Returns its index.
pub(super) fn ensure(
    socket: &mut Socket,
    name: &str,
    mtu: u32,
    gateways: &[IpNet],
) -> Result<u32, NetworkError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > 15 || !name.bytes().all(plain) || name.starts_with('.') {
        let problem = format!("{name:?} is not a name of an interface: 1 to 15 letters, digits, -, _ or .");
        return Err(NetworkError::Invalid { field: "builtin.bridge", problem });
    }
    let fail = |operation| move |e: NetlinkError| NetworkError::host(operation, name, e);
    overlap(socket, name, gateways)?;
    let mut batch = Batch::new();
    route::add_bridge(&mut batch, name, mac(gateways), mtu);
    match socket.run(batch) {
        Err(e) if e.errno != Errno::EEXIST => return Err(fail("make bridge")(e)),
        _ => {}
    }
    let bridge = route::link(socket, name).map_err(fail("find bridge"))?;
    let bridge = bridge.ok_or_else(|| NetworkError::host("find bridge", name, Errno::ENODEV))?;
    if bridge.kind != "bridge" {
        let problem = format!("{name} exists and is not a bridge");
        return Err(NetworkError::Invalid { field: "builtin.bridge", problem });
    }
    let mut batch = Batch::new();
    route::set_up(&mut batch, bridge.index);
    for gateway in gateways {
        route::add_address(&mut batch, bridge.index, *gateway);
    }
    socket.run(batch).map_err(fail("set up bridge"))?;
    Ok(bridge.index)
}

/// Removes it.
pub(super) fn remove(socket: &mut Socket, name: &str) -> Result<(), NetworkError> {
    let fail = |e: NetlinkError| NetworkError::host("remove bridge", name, e);
    match route::link(socket, name).map_err(fail)? {
        Some(link) if link.kind == "bridge" => {
            let mut batch = Batch::new();
            route::delete_link(&mut batch, link.index);
            socket.run(batch).map_err(fail)
        }
        _ => Ok(()),
    }
}

/// A fixed hardware address: that of a pod with the gateway's address, but of a kind of its own.
fn mac(gateways: &[IpNet]) -> route::Mac {
    let mut mac = super::lease::pod_mac(gateways.first().map_or(IpAddr::from([0; 4]), IpNet::addr));
    mac[1] |= 1;
    mac
}

/// A subnet that is also behind another interface would make one of the two unreachable: refuse it.
fn overlap(socket: &mut Socket, bridge: &str, gateways: &[IpNet]) -> Result<(), NetworkError> {
    let fail = |e: NetlinkError| NetworkError::host("list", "addresses", e);
    let own = route::link(socket, bridge).map_err(fail)?.map(|l| l.index);
    for (index, net) in route::addresses(socket).map_err(fail)? {
        let loopback = net.addr().is_loopback();
        let clash = |g: &&IpNet| g.trunc().contains(&net.trunc()) || net.trunc().contains(&g.trunc());
        if Some(index) == own || loopback {
            continue;
        }
        if let Some(gateway) = gateways.iter().find(clash) {
            let problem = format!(
                "{} overlaps with {net} of interface number {index}. Hint: set builtin.subnets to a free one",
                gateway.trunc()
            );
            return Err(NetworkError::Invalid { field: "builtin.subnets", problem });
        }
    }
    Ok(())
}
