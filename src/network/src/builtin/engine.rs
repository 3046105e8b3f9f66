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
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
};

use crisp_model::SandboxId;
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
    BuiltinConfig, NetworkError, files,
    netlink::{Socket, route},
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Engine {
    config: BuiltinConfig,
    pub(super) boot: String,
    pub(super) home: Netns,
    pub(super) route: Socket,
    pub(super) pools: Vec<Pool>,
    pub(super) leases: HashMap<SandboxId, Lease>,
    pub(super) ports: HashMap<ForwardKey, SandboxId>,
    pub(super) sequence: u64,
    /// Leases from here on were made by this run.
    first_sequence: u64,
    pub(super) bridge: Option<u32>,
    pub(super) firewall: Option<Box<dyn Firewall>>,
    sysctls: Sysctls,
    pub(super) host_has_ipv6: bool,
    /// In force: configured, or that of the way out of this host.
    pub(super) mtu: u32,
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
            first_sequence: 0,
            bridge: None,
            firewall: None,
            sysctls: Sysctls::load(&config.state_dir)?,
            mtu: config.mtu,
            host_has_ipv6: Path::new("/proc/sys/net/ipv6").is_dir(),
            config,
        };
        engine.recover()?;
        engine.first_sequence = engine.sequence;
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

    pub(super) fn take_in(&mut self, lease: Lease) {
        for ip in lease.ips() {
            self.pools.iter_mut().for_each(|pool| pool.reserve(ip));
        }
        for forward in lease.forwards() {
            self.ports.insert(forward.key, lease.sandbox.clone());
        }
        self.leases.insert(lease.sandbox.clone(), lease);
    }

    pub(super) fn path(&self, sandbox: &SandboxId) -> PathBuf {
        self.config.state_dir.join("pods").join(format!("{sandbox}.json"))
    }

    fn layout(&self) -> Layout {
        // Pods that were attached before the kubelet changed the subnets keep theirs.
        let kept = self.leases.values().flat_map(|l| l.addresses.iter().map(IpNet::trunc));
        let subnets: BTreeSet<IpNet> = self.pools.iter().map(Pool::subnet).chain(kept).collect();
        Layout {
            bridge: self.config.bridge.clone(),
            subnets: subnets.into_iter().collect(),
            masquerade: self.config.masquerade,
        }
    }

    /// Bridge, sysctls and rules, unless they have been made by this run. Returns the bridge's index.
    pub(super) fn prepare(&mut self) -> Result<u32, NetworkError> {
        if let (Some(bridge), Some(_)) = (self.bridge, &self.firewall) {
            return Ok(bridge);
        }
        let gateways = self.gateways();
        self.mtu = match self.config.mtu {
            // Larger packets than the way out takes would have to be split or refused.
            0 => route::default_route_mtu(&mut self.route).unwrap_or_default(),
            mtu => mtu,
        };
        let bridge = super::bridge::ensure(&mut self.route, &self.config.bridge, self.mtu, &gateways)?;
        self.sysctls.forward(&self.config.bridge, &gateways)?;
        self.install()?;
        self.bridge = Some(bridge);
        Ok(bridge)
    }

    /// The same, but first looks whether what was made is still there: others flush rules, delete links and load
    /// sysctls. What is missing is made anew.
    pub(crate) fn verify(&mut self) -> Result<(), NetworkError> {
        let bridge = self.prepare()?;
        let found = route::link(&mut self.route, &self.config.bridge)
            .map_err(|e| NetworkError::host("look at", &self.config.bridge, e))?;
        if !found.is_some_and(|l| l.index == bridge && l.up) {
            tracing::warn!(
                bridge = self.config.bridge,
                "the bridge was deleted or taken down: it is made anew"
            );
            self.bridge = None;
            return self.prepare().map(|_| ());
        }
        self.sysctls.forward(&self.config.bridge, &self.gateways())?;
        if !self.firewall.as_mut().is_some_and(|f| f.is_there()) {
            tracing::warn!("somebody removed the rules for pods: they are installed anew");
            self.install()?;
        }
        Ok(())
    }

    /// All rules with all host ports, in the place of whatever there is.
    pub(super) fn install(&mut self) -> Result<(), NetworkError> {
        let forwards: Vec<Forward> = self.leases.values().flat_map(Lease::forwards).collect();
        self.firewall = Some(firewall::install(self.config.firewall, &self.layout(), &forwards)?);
        Ok(())
    }

    pub(super) fn gateways(&self) -> Vec<IpNet> {
        self.pools.iter().map(Pool::gateway).collect()
    }

    /// The packet filter in use.
    pub(crate) fn firewall_kind(&self) -> &'static str {
        self.firewall.as_ref().map_or("none", |f| f.kind())
    }

    /// Subnet, addresses in use, addresses in all; for the status.
    pub(crate) fn usage(&self) -> Vec<(IpNet, usize, u64)> {
        self.pools.iter().map(|p| (p.subnet(), p.in_use(), p.size())).collect()
    }

    /// Takes everything back that the sandbox has; nothing if it has nothing.
    pub(crate) fn detach(&mut self, sandbox: &SandboxId) -> Result<(), NetworkError> {
        let Some(lease) = self.leases.get(sandbox) else { return Ok(()) };
        let forwards: Vec<Forward> =
            lease.forwards().into_iter().filter(|f| self.ports.get(&f.key) == Some(sandbox)).collect();
        if !forwards.is_empty() {
            // After a restart with another kind of network the rules are those of the run before.
            if self.firewall.is_none() {
                self.install()?;
            }
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

    /// Takes back what earlier runs gave to sandboxes that do not live; returns how many there were. What this run
    /// gave is left: its pods may be newer than the list.
    pub(crate) fn gc(&mut self, live: &[SandboxId]) -> Result<usize, NetworkError> {
        let dead = |l: &&Lease| l.sequence < self.first_sequence && !live.contains(&l.sandbox);
        let dead: Vec<SandboxId> = self.leases.values().filter(dead).map(|l| l.sandbox.clone()).collect();
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
        match self.firewall.take() {
            Some(mut firewall) => errors.extend(firewall.uninstall().err()),
            // Not used by this run: there may be the rules of an earlier one.
            None => errors.extend(firewall::uninstall(self.config.firewall, &self.layout()).err()),
        }
        errors.extend(super::bridge::remove(&mut self.route, &self.config.bridge).err());
        self.bridge = None;
        errors.extend(self.sysctls.restore().err());
        NetworkError::collected(errors)
    }
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
