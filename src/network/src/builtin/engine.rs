//! The built-in network's one owner: pools, leases, bridge, packet filter. Runs on a thread of its own.
//!
//! ```text
//!   attach:  lease written -> pair made -> addresses and routes inside -> host ports      (any failure: taken back)
//!   detach:  host ports removed -> lease removed -> addresses free
//! ```
//!
//! A detach never deletes the pair and never waits for a namespace: the pair goes with the pod's namespace, which the
//! caller drops, in the kernel's own time (deleting it here would take 15 to 27 ms). Until then the name of the
//! host's end, made of the address, is taken, so the kernel refuses to make the address's next pair: the engine sees
//! `EEXIST`, passes that address over and takes the next one. So an address is never given out while its former
//! interface lives, without timers, and after a restart too.
//!
//! After a crash at any point the lease file says what may exist; [`Engine::open`] takes it up again, and `detach` or
//! `gc` take it back.

use std::{
    collections::HashMap,
    net::IpAddr,
    path::{Path, PathBuf},
};

use crisp_model::{SandboxId, sandbox::Protocol};
use ipnet::IpNet;
use nix::errno::Errno;

use super::{
    firewall::{self, Firewall, Layout},
    lease::{self, Forward, ForwardKey, Lease},
    netns::Netns,
    pool::Pool,
    sysctl::Sysctls,
};
use crate::{
    Attached, Bandwidth, BuiltinConfig, Interface, NetworkError, PodAttachment, files,
    netlink::{NetlinkError, Socket, message::Batch, route},
    pod::INTERFACE,
};

/// How many addresses of dying interfaces are passed over in one attach. More than this many pods cannot end within
/// the fraction of a second that the kernel takes to clean up after them.
const MAX_PASSED_OVER: u32 = 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Engine {
    config: BuiltinConfig,
    boot: String,
    home: Netns,
    route: Socket,
    pools: Vec<Pool>,
    leases: HashMap<SandboxId, Lease>,
    ports: HashMap<ForwardKey, SandboxId>,
    sequence: u64,
    bridge: Option<u32>,
    firewall: Option<Box<dyn Firewall>>,
    sysctls: Sysctls,
    host_has_ipv6: bool,
}

impl Engine {
    /// Reads what an earlier run left. Touches nothing else of the host.
    pub(crate) fn open(config: BuiltinConfig) -> Result<Self, NetworkError> {
        files::make_folder(&config.state_dir.join("pods"))?;
        let subnets = super::cidr::load(&config)?;
        let mut engine = Self {
            boot: files::boot_id()?,
            home: Netns::current()?,
            route: Socket::route().map_err(|e| NetworkError::host("open", "rtnetlink", e))?,
            pools: pools(&subnets)?,
            leases: HashMap::new(),
            ports: HashMap::new(),
            sequence: 0,
            bridge: None,
            firewall: None,
            sysctls: Sysctls::load(&config.state_dir)?,
            host_has_ipv6: Path::new("/proc/sys/net/ipv6").is_dir(),
            config,
        };
        engine.recover()?;
        Ok(engine)
    }

    fn recover(&mut self) -> Result<(), NetworkError> {
        let mut leases: Vec<Lease> = files::read_all(&self.config.state_dir.join("pods"))?;
        leases.sort_by_key(|l| l.sequence);
        for lease in leases {
            if lease.version != lease::VERSION || lease.boot != self.boot {
                files::remove(&self.path(&lease.sandbox))?;
                continue;
            }
            self.sequence = lease.sequence + 1;
            self.take_in(lease);
        }
        Ok(())
    }

    fn take_in(&mut self, lease: Lease) {
        for ip in lease.ips() {
            self.pools.iter_mut().for_each(|pool| pool.reserve(ip));
        }
        for forward in lease.forwards() {
            self.ports.insert(forward.key, lease.sandbox.clone());
        }
        self.leases.insert(lease.sandbox.clone(), lease);
    }

    fn path(&self, sandbox: &SandboxId) -> PathBuf {
        self.config.state_dir.join("pods").join(format!("{sandbox}.json"))
    }

    fn layout(&self) -> Layout {
        Layout {
            bridge: self.config.bridge.clone(),
            subnets: self.pools.iter().map(Pool::subnet).collect(),
            masquerade: self.config.masquerade,
        }
    }

    /// Bridge, sysctls and rules, unless they have been made by this run.
    pub(crate) fn prepare(&mut self) -> Result<u32, NetworkError> {
        if let (Some(bridge), Some(_)) = (self.bridge, &self.firewall) {
            return Ok(bridge);
        }
        let gateways: Vec<IpNet> = self.pools.iter().map(Pool::gateway).collect();
        let bridge = super::bridge::ensure(&mut self.route, &self.config, &gateways)?;
        self.sysctls.forward(&self.config.bridge, &gateways)?;
        let forwards: Vec<Forward> = self.leases.values().flat_map(Lease::forwards).collect();
        self.firewall = Some(firewall::install(self.config.firewall, &self.layout(), &forwards)?);
        self.bridge = Some(bridge);
        Ok(bridge)
    }

    /// The packet filter in use.
    pub(crate) fn firewall_kind(&self) -> &'static str {
        self.firewall.as_ref().map_or("none", |f| f.kind())
    }

    /// Subnet, addresses in use, addresses in all; for the status.
    pub(crate) fn usage(&self) -> Vec<(IpNet, usize, u64)> {
        self.pools.iter().map(|p| (p.subnet(), p.in_use(), p.size())).collect()
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

    fn release(&mut self, addresses: &[IpNet]) {
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
                    mtu: self.config.mtu,
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
        let gateways: Vec<IpAddr> = self.pools.iter().map(|p| p.gateway().addr()).collect();
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
            if let Some(firewall) = &mut self.firewall {
                firewall.add(&forwards)?;
            }
            self.forget_udp(&forwards);
        }
        Ok(index)
    }

    fn forget_udp(&self, forwards: &[Forward]) {
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

    /// Takes everything back that the sandbox has; nothing if it has nothing.
    pub(crate) fn detach(&mut self, sandbox: &SandboxId) -> Result<(), NetworkError> {
        let Some(lease) = self.leases.get(sandbox) else { return Ok(()) };
        let forwards: Vec<Forward> =
            lease.forwards().into_iter().filter(|f| self.ports.get(&f.key) == Some(sandbox)).collect();
        if !forwards.is_empty() {
            // After a restart: the rules that are to be taken back are installed by the run before.
            self.prepare()?;
            if let Some(firewall) = &mut self.firewall {
                firewall.remove(&forwards)?;
            }
            self.forget_udp(&forwards);
        }
        files::remove(&self.path(sandbox))?;
        if let Some(lease) = self.leases.remove(sandbox) {
            self.release(&lease.addresses);
            forwards.iter().for_each(|f| {
                self.ports.remove(&f.key);
            });
        }
        Ok(())
    }

    /// Brings the loopback interface of a pod's namespace up; it is the first of every namespace.
    pub(crate) fn loopback_up(&mut self, netns: &Path) -> Result<(), NetworkError> {
        let netns = Netns::open(netns, &self.home)?;
        let fail = |e: NetlinkError| NetworkError::host("set up", "lo of the pod", e);
        let mut socket = netns.within(&self.home, Socket::route)?.map_err(fail)?;
        let mut batch = Batch::new();
        route::set_up(&mut batch, 1);
        socket.run(batch).map_err(fail)
    }

    /// Whether what was made for the sandbox is still there.
    pub(crate) fn check(&mut self, sandbox: &SandboxId) -> Result<(), NetworkError> {
        let Some(lease) = self.leases.get(sandbox) else {
            return Err(NetworkError::host("check", sandbox, Errno::ENOENT));
        };
        let link = lease.link.clone();
        match route::link(&mut self.route, &link) {
            Ok(Some(found)) if found.up && Some(found.master) == self.bridge.or(Some(found.master)) => Ok(()),
            Ok(_) => Err(NetworkError::host("check interface", link, Errno::ENODEV)),
            Err(e) => Err(NetworkError::host("check interface", link, e)),
        }
    }

    /// Takes back what belongs to no live sandbox; returns how many had something.
    pub(crate) fn gc(&mut self, live: &[SandboxId]) -> Result<usize, NetworkError> {
        let dead: Vec<SandboxId> = self.leases.keys().filter(|id| !live.contains(id)).cloned().collect();
        let errors: Vec<_> = dead.iter().filter_map(|sandbox| self.detach(sandbox).err()).collect();
        NetworkError::collected(errors).map(|()| dead.len())
    }

    /// New subnets from the kubelet. Pods keep the addresses that they have.
    pub(crate) fn set_subnets(&mut self, subnets: &[IpNet]) -> Result<(), NetworkError> {
        if self.pools.iter().map(Pool::subnet).eq(subnets.iter().map(IpNet::trunc)) {
            return Ok(());
        }
        let mut pools = pools(subnets)?;
        super::cidr::save(&self.config, subnets)?;
        for lease in self.leases.values() {
            pools.iter_mut().for_each(|pool| lease.ips().into_iter().for_each(|ip| pool.reserve(ip)));
        }
        self.pools = pools;
        if self.bridge.take().is_some() {
            self.prepare()?;
        }
        Ok(())
    }

    /// Removes bridge and rules and puts the sysctls back, if no pod is left.
    pub(crate) fn uninstall(&mut self) -> Result<(), NetworkError> {
        if !self.leases.is_empty() {
            let problem = format!("{} pods still use the built-in network", self.leases.len());
            return Err(NetworkError::Invalid { field: "builtin", problem });
        }
        let mut errors = Vec::new();
        if let Some(mut firewall) = self.firewall.take() {
            errors.extend(firewall.uninstall().err());
        }
        errors.extend(super::bridge::remove(&mut self.route, &self.config.bridge).err());
        self.bridge = None;
        errors.extend(self.sysctls.restore().err());
        NetworkError::collected(errors)
    }
}

fn eth0_is_there() -> NetworkError {
    NetworkError::Invalid { field: "netns", problem: format!("it already has an interface {INTERFACE}") }
}

fn pools(subnets: &[IpNet]) -> Result<Vec<Pool>, NetworkError> {
    let bad = |problem: String| NetworkError::Invalid { field: "builtin.subnets", problem };
    if subnets.is_empty() {
        return Err(bad("none is given".to_owned()));
    }
    let v6 = subnets.iter().filter(|s| s.addr().is_ipv6()).count();
    if v6 > 1 || subnets.len() - v6 > 1 {
        return Err(bad("at most one of each address family".to_owned()));
    }
    let small = |net: &IpNet| bad(format!("{net} has no room for a gateway and a pod"));
    subnets.iter().map(|net| Pool::new(*net).ok_or_else(|| small(net))).collect()
}
