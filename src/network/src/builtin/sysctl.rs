//! Kernel settings that the built-in network needs. What they were before is remembered, so they can be put back.
//!
//! `ip_forward` and its IPv6 sibling (all traffic of pods is forwarded), and `route_localnet` of the bridge alone, which lets packets that
//! this host sends to 127.0.0.1 leave towards a pod; the packet filter keeps pods from using it the other way.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use ipnet::IpNet;

use crate::{NetworkError, files};

/// The settings that were changed: path below /proc/sys and former value.
#[derive(Debug)]
pub(super) struct Sysctls {
    record: PathBuf,
    before: BTreeMap<String, String>,
}

impl Sysctls {
    /// What earlier runs changed.
    pub(super) fn load(state_dir: &Path) -> Result<Self, NetworkError> {
        let record = state_dir.join("sysctls.json");
        Ok(Self { before: files::read(&record)?.unwrap_or_default(), record })
    }

    /// Turns forwarding on for the families in use.
    pub(super) fn forward(&mut self, bridge: &str, gateways: &[IpNet]) -> Result<(), NetworkError> {
        if gateways.iter().any(|g| g.addr().is_ipv4()) {
            self.set("net/ipv4/ip_forward", "1")?;
            // Gone with the bridge: nothing to remember.
            write(&format!("net/ipv4/conf/{bridge}/route_localnet"), "1")?;
        }
        if gateways.iter().any(|g| g.addr().is_ipv6()) {
            // The bridge's link-local address is what it asks for pods with. Looking for duplicates of it, which
            // cannot be, would keep pods from being reached for their first two seconds.
            write(&format!("net/ipv6/conf/{bridge}/accept_dad"), "0")?;
            self.keep_router_advertisements()?;
            self.set("net/ipv6/conf/all/forwarding", "1")?;
        }
        Ok(())
    }

    /// A host that forwards ignores router advertisements, and with them its own way out, unless it is told
    /// otherwise (`accept_ra` 2).
    fn keep_router_advertisements(&mut self) -> Result<(), NetworkError> {
        let folder = "/proc/sys/net/ipv6/conf";
        if fs::read_to_string(format!("{folder}/all/forwarding")).is_ok_and(|now| now.trim() == "1") {
            return Ok(());
        }
        for entry in fs::read_dir(folder).map_err(|e| NetworkError::host("read", folder, e))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let now = fs::read_to_string(entry.path().join("accept_ra")).unwrap_or_default();
            if now.trim() == "1" && !matches!(name.as_str(), "all" | "default" | "lo") {
                self.set(&format!("net/ipv6/conf/{name}/accept_ra"), "2")?;
            }
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), NetworkError> {
        let path = format!("/proc/sys/{name}");
        let now = fs::read_to_string(&path).map_err(|e| NetworkError::host("read", &path, e))?;
        if now.trim() == value {
            return Ok(());
        }
        self.before.entry(name.to_owned()).or_insert_with(|| now.trim().to_owned());
        files::write(&self.record, &self.before, false)?;
        tracing::info!(name, value, before = now.trim(), "sysctl set for the built-in network");
        write(name, value)
    }

    /// Puts back what was changed.
    pub(super) fn restore(&mut self) -> Result<(), NetworkError> {
        // An interface that has gone took its settings along.
        let there = self.before.iter().filter(|(name, _)| Path::new("/proc/sys").join(name).exists());
        let errors = there.filter_map(|(name, value)| write(name, value).err()).collect();
        NetworkError::collected(errors)?;
        self.before.clear();
        files::remove(&self.record)
    }
}

fn write(name: &str, value: &str) -> Result<(), NetworkError> {
    let path = format!("/proc/sys/{name}");
    match fs::read_to_string(&path) {
        // Also where /proc/sys is read-only: what holds already needs no writing.
        Ok(now) if now.trim() == value => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound && name.contains("ipv6") => {
            return Err(NetworkError::host("set (is IPv6 disabled?)", path, e));
        }
        _ => {}
    }
    fs::write(&path, value).map_err(|e| NetworkError::host("write", path, e))
}
