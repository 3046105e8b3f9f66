//! Host ports and masquerading, by whatever packet filter the host has.

use ipnet::IpNet;

use super::{iptables::Iptables, lease::Forward, nft::Nftables};
use crate::{FirewallChoice, NetworkError};

/// What the rules are made of beside the host ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Name of the bridge.
    pub bridge: String,
    /// Subnets of the pods.
    pub subnets: Vec<IpNet>,
    /// Whether packets that leave the host get its address.
    pub masquerade: bool,
}

/// A packet filter. Every change is applied whole or not at all.
pub(crate) trait Firewall: Send + std::fmt::Debug {
    /// `nftables` or `iptables`.
    fn kind(&self) -> &'static str;
    /// Puts the rules and these host ports in the place of whatever an earlier run left.
    fn install(&mut self, layout: &Layout, forwards: &[Forward]) -> Result<(), NetworkError>;
    /// Whether the rules are still there, as far as can be seen cheaply.
    fn is_there(&mut self) -> bool;
    /// Adds host ports.
    fn add(&mut self, forwards: &[Forward]) -> Result<(), NetworkError>;
    /// Removes host ports; absent ones are fine.
    fn remove(&mut self, forwards: &[Forward]) -> Result<(), NetworkError>;
    /// Removes everything.
    fn uninstall(&mut self) -> Result<(), NetworkError>;
}

/// The packet filter that was chosen, or the first that takes the rules.
pub(crate) fn install(
    choice: FirewallChoice,
    layout: &Layout,
    forwards: &[Forward],
) -> Result<Box<dyn Firewall>, NetworkError> {
    let nftables = || -> Result<Box<dyn Firewall>, NetworkError> {
        let nft = Nftables::open(&layout.bridge).map_err(|e| NetworkError::host("open", "nftables", e))?;
        ready(nft, layout, forwards)
    };
    let iptables = || ready(Iptables::open(layout)?, layout, forwards);
    match choice {
        FirewallChoice::Nftables => nftables(),
        FirewallChoice::Iptables => iptables(),
        FirewallChoice::Auto => nftables().or_else(|first| {
            tracing::info!(reason = %first, "nftables does not take the rules: trying iptables");
            iptables().map_err(|second| NetworkError::Several(vec![first, second]))
        }),
    }
}

fn ready(
    mut firewall: impl Firewall + 'static,
    layout: &Layout,
    forwards: &[Forward],
) -> Result<Box<dyn Firewall>, NetworkError> {
    firewall.install(layout, forwards)?;
    Ok(Box::new(firewall))
}

/// Removes what an earlier run left. Leftovers in iptables are not looked for unless it was chosen: that would start
/// half a dozen programs for nothing.
pub(crate) fn uninstall(choice: FirewallChoice, layout: &Layout) -> Result<(), NetworkError> {
    match choice {
        FirewallChoice::Iptables => Iptables::open(layout)?.uninstall(),
        FirewallChoice::Auto | FirewallChoice::Nftables => {
            Nftables::open(&layout.bridge).map_err(|e| NetworkError::host("open", "nftables", e))?.uninstall()
        }
    }
}
