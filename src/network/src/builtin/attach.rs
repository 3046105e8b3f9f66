//! Attaching a pod: the engine's part that works for one pod at a time.

use std::{net::IpAddr, path::Path};

use crisp_model::{SandboxId, sandbox::Protocol};
use ipnet::IpNet;
use nix::errno::Errno;

use super::{
    engine::Engine,
    lease::{self, Forward, Lease},
    netns::Netns,
};
use crate::{
    Attached, Bandwidth, Interface, NetworkError, PodAttachment, files,
    netlink::{NetlinkError, Socket, message::Batch, route},
    pod::INTERFACE,
};

/// How many addresses of dying interfaces are passed over in one attach. More than this many pods cannot end within
/// the fraction of a second that the kernel takes to clean up after them.
const MAX_PASSED_OVER: u32 = 1024;

impl Engine {
    /// Brings the loopback interface of a pod's namespace up; it is the first of every namespace.
    pub(crate) fn loopback_up(&mut self, netns: &Path) -> Result<(), NetworkError> {
        let netns = Netns::open(netns, &self.home)?;
        let fail = |e: NetlinkError| NetworkError::host("set up", "lo of the pod", e);
        let mut socket = netns.within(&self.home, Socket::route)?.map_err(fail)?;
        let mut batch = Batch::new();
        route::set_up(&mut batch, 1);
        socket.run(batch).map_err(fail)
    }

    /// Gives the pod an interface, addresses, routes and host ports.
    pub(crate) fn attach(
        &mut self,
        pod: &PodAttachment,
        bandwidth: Bandwidth,
    ) -> Result<Attached, NetworkError> {
        self.prepare()?;
        let netns = Netns::open(&pod.netns, &self.home)?;
        // A former attach of this sandbox that did not come to its end.
        self.detach(&pod.sandbox)?;
        let mut inside = netns
            .within(&self.home, Socket::route)?
            .map_err(|e| NetworkError::host("open", "rtnetlink of the pod", e))?;
        let made = self.pair(pod, &netns)?;
        let done = self.finish(pod, &mut inside, bandwidth);
        if done.is_err() {
            self.undo(&pod.sandbox);
        }
        done.map(|pod_index| {
            tracing::debug!(sandbox = %pod.sandbox, addresses = ?made.addresses, pod_index, "attached");
            let mac = lease::pod_mac(made.addresses[0].addr());
            Attached {
                ips: made.ips(),
                dns: None,
                interfaces: vec![
                    Interface { name: made.link.clone(), ..Interface::default() },
                    Interface {
                        name: INTERFACE.to_owned(),
                        mac: mac.map(|b| format!("{b:02x}")).join(":"),
                        sandbox: pod.netns.display().to_string(),
                    },
                ],
            }
        })
    }

    fn undo(&mut self, sandbox: &SandboxId) {
        if let Err(error) = self.detach(sandbox) {
            tracing::warn!(%sandbox, %error, "what a failed attach had taken is not all given back");
        }
    }

    /// Addresses, their lease, and the pair. Passes over addresses whose former interface still lives.
    fn pair(&mut self, pod: &PodAttachment, netns: &Netns) -> Result<Lease, NetworkError> {
        for _ in 0..MAX_PASSED_OVER {
            let lease = self.lease(pod)?;
            let made = self.make_pair(&lease, netns);
            match made {
                Ok(()) => return Ok(lease),
                Err(error) => {
                    self.undo(&pod.sandbox);
                    match error {
                        Some(error) => return Err(error),
                        None => tracing::debug!(
                            link = lease.link,
                            "passed over: its former interface still lives"
                        ),
                    }
                }
            }
        }
        let subnet = self.pools[0].subnet();
        Err(NetworkError::Exhausted { subnet, size: self.pools[0].size() })
    }

    fn lease(&mut self, pod: &PodAttachment) -> Result<Lease, NetworkError> {
        let mut addresses = Vec::with_capacity(self.pools.len());
        for at in 0..self.pools.len() {
            match self.pools[at].allocate() {
                Some(net) => addresses.push(net),
                None => {
                    let (subnet, size) = (self.pools[at].subnet(), self.pools[at].size());
                    self.release(&addresses);
                    return Err(NetworkError::Exhausted { subnet, size });
                }
            }
        }
        let lease = Lease {
            version: lease::VERSION,
            boot: self.boot.clone(),
            sequence: self.sequence,
            sandbox: pod.sandbox.clone(),
            pod: format!("{}/{}", pod.namespace, pod.name),
            netns: pod.netns.clone(),
            link: lease::link_name(addresses[0].addr()),
            addresses,
            ports: pod.port_mappings.clone(),
        };
        let put =
            self.check_ports(&lease).and_then(|()| files::write(&self.path(&lease.sandbox), &lease, false));
        if let Err(error) = put {
            self.release(&lease.addresses);
            return Err(error);
        }
        self.sequence += 1;
        self.take_in(lease.clone());
        Ok(lease)
    }

    pub(super) fn release(&mut self, addresses: &[IpNet]) {
        for net in addresses {
            self.pools.iter_mut().for_each(|pool| pool.release(net.addr()));
        }
    }

    fn check_ports(&self, lease: &Lease) -> Result<(), NetworkError> {
        for forward in lease.forwards() {
            if let Some(holder) = self.ports.get(&forward.key) {
                return Err(NetworkError::PortTaken {
                    protocol: forward.key.protocol.name(),
                    port: forward.key.host_port,
                    host_ip: forward.key.host_ip,
                    holder: holder.clone(),
                });
            }
        }
        Ok(())
    }

    /// `Err(None)`: the address's former interface still lives.
    fn make_pair(&mut self, lease: &Lease, netns: &Netns) -> Result<(), Option<NetworkError>> {
        let fail = |e| Some(NetworkError::host("make interface", &lease.link, e));
        let mut again = true;
        loop {
            let bridge = self.prepare().map_err(Some)?;
            let mut batch = Batch::new();
            route::add_veth(
                &mut batch,
                &route::VethPair {
                    name: &lease.link,
                    master: bridge,
                    mtu: self.mtu,
                    peer_name: INTERFACE,
                    peer_mac: lease::pod_mac(lease.addresses[0].addr()),
                    peer_netns: netns.as_fd(),
                },
            );
            route::set_up_port(&mut batch, &lease.link, self.host_has_ipv6);
            match self.route.run(batch) {
                Ok(()) => return Ok(()),
                Err(e) if e.errno == Errno::EEXIST => {
                    let there = route::link(&mut self.route, &lease.link).map_err(fail)?;
                    return Err(if there.is_some() { None } else { Some(eth0_is_there()) });
                }
                // The bridge has gone: somebody deleted it. Make it anew, once.
                Err(e) if again && matches!(e.errno, Errno::ENODEV | Errno::EINVAL | Errno::ENXIO) => {
                    again = false;
                    self.bridge = None;
                }
                Err(e) => return Err(fail(e)),
            }
        }
    }

    /// What is done within the pod's namespace, then the host ports.
    fn finish(
        &mut self,
        pod: &PodAttachment,
        inside: &mut Socket,
        bandwidth: Bandwidth,
    ) -> Result<u32, NetworkError> {
        let lease = &self.leases[&pod.sandbox];
        let gateways: Vec<IpAddr> = self.gateways().iter().map(IpNet::addr).collect();
        let fail = |operation| move |e: NetlinkError| NetworkError::host(operation, "eth0 of the pod", e);
        let link = route::link(inside, INTERFACE).map_err(fail("find"))?;
        let index = link.ok_or(Errno::ENODEV.into()).map_err(fail("find"))?.index;
        let mut batch = Batch::new();
        route::set_up(&mut batch, index);
        for net in &lease.addresses {
            route::add_address(&mut batch, index, *net);
        }
        for gateway in gateways {
            route::add_default_route(&mut batch, index, gateway);
        }
        // The loopback interface is the first of every namespace.
        route::set_up(&mut batch, 1);
        inside.run(batch).map_err(fail("set up"))?;
        if !bandwidth.is_unlimited() {
            super::bandwidth::limit(&mut self.route, inside, &lease.link, index, bandwidth)?;
        }
        let forwards = lease.forwards();
        if !forwards.is_empty() {
            let added = self.firewall.as_mut().map(|f| f.add(&forwards));
            if !matches!(added, Some(Ok(()))) {
                // Somebody has removed the rules, as reloading a host's own rules does. All anew; the pod's lease is
                // there already.
                tracing::warn!(reason = ?added, "the rules for pods are installed anew");
                self.install()?;
            }
            self.forget_udp(&forwards);
        }
        Ok(index)
    }

    pub(super) fn forget_udp(&self, forwards: &[Forward]) {
        let udp = forwards.iter().filter(|f| f.key.protocol == Protocol::Udp);
        let ports: Vec<u16> = udp.map(|f| f.key.host_port).collect();
        if ports.is_empty() {
            return;
        }
        let forgotten =
            Socket::netfilter().and_then(|mut s| crate::netlink::conntrack::forget_udp(&mut s, &ports));
        match forgotten {
            Ok(count) => tracing::debug!(count, ?ports, "forgot UDP connections"),
            Err(error) => tracing::warn!(%error, ?ports, "cannot forget UDP connections of host ports"),
        }
    }
}

fn eth0_is_there() -> NetworkError {
    NetworkError::Invalid { field: "netns", problem: format!("it already has an interface {INTERFACE}") }
}
