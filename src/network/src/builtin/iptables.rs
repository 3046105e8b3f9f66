//! The packet filter's part in iptables, for kernels whose nftables has no IP families.
//!
//! The same rules as in [`super::nft`], in chains of crisp's own that end in the bridge's name. A change writes the
//! chain with the host ports anew, in one `iptables-restore`, which the kernel takes as a whole: it is right whatever
//! was there before, and a crash leaves either the old or the new rules.

use std::{
    io::{self, Write},
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{
    firewall::{Firewall, Layout},
    lease::Forward,
};
use crate::NetworkError;

/// Where the programs are looked for.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/usr/local/sbin"];
/// How long they wait for the lock that all of them share, in seconds.
const LOCK_WAIT: &str = "5";

/// The rules of one address family.
#[derive(Debug)]
struct Family {
    v6: bool,
    iptables: PathBuf,
    restore: PathBuf,
}

/// The chains, and the host ports that are in them.
#[derive(Debug)]
pub(super) struct Iptables {
    layout: Layout,
    families: Vec<Family>,
    forwards: Vec<Forward>,
}

fn program(names: [&str; 2]) -> Result<PathBuf, NetworkError> {
    let candidates = names.iter().flat_map(|name| FOLDERS.iter().map(move |f| Path::new(f).join(name)));
    let missing = || NetworkError::host("find", names.join(" or "), io::ErrorKind::NotFound);
    candidates.into_iter().find(|path| path.exists()).ok_or_else(missing)
}

impl Family {
    fn find(v6: bool) -> Result<Self, NetworkError> {
        // The legacy ones first: where nftables did not work, its iptables will not either.
        let (iptables, restore) = if v6 {
            (["ip6tables-legacy", "ip6tables"], ["ip6tables-legacy-restore", "ip6tables-restore"])
        } else {
            (["iptables-legacy", "iptables"], ["iptables-legacy-restore", "iptables-restore"])
        };
        Ok(Self { v6, iptables: program(iptables)?, restore: program(restore)? })
    }

    fn run(&self, arguments: &[&str]) -> Result<(), NetworkError> {
        let mut command = Command::new(&self.iptables);
        command.args(["-w", LOCK_WAIT]).args(arguments);
        finish(command, &format!("{} {}", self.iptables.display(), arguments.join(" ")), "")
    }

    fn restore(&self, input: &str) -> Result<(), NetworkError> {
        let mut command = Command::new(&self.restore);
        command.args(["--noflush", "-w", LOCK_WAIT]);
        finish(command, &self.restore.display().to_string(), input)
    }
}

fn finish(mut command: Command, name: &str, input: &str) -> Result<(), NetworkError> {
    let fail = |cause: io::Error| NetworkError::host("run", name, cause);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(fail)?;
    if let Some(mut stdin) = child.stdin.take() {
        // If it does not read, its own complaint says more.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(fail)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(fail(io::Error::other(said.trim().chars().take(500).collect::<String>())))
}

/// The rules of the host ports: those on one address before those on all.
fn port_rules(chain: &str, forwards: &[Forward], v6: bool) -> String {
    let mut ours: Vec<&Forward> = forwards.iter().filter(|f| f.key.v6 == v6).collect();
    ours.sort_by_key(|f| (f.key.host_ip.is_none(), f.key.host_ip, f.key.host_port));
    let rule = |f: &&Forward| {
        let on = f.key.host_ip.map(|ip: IpAddr| format!(" -d {ip}")).unwrap_or_default();
        let (protocol, port) = (f.key.protocol.name(), f.key.host_port);
        format!("-A {chain}{on} -p {protocol} --dport {port} -j DNAT --to-destination {}\n", f.target)
    };
    ours.iter().map(rule).collect()
}

impl Iptables {
    /// Finds the programs that the layout needs.
    pub(super) fn open(layout: &Layout) -> Result<Self, NetworkError> {
        let has = |v6: bool| layout.subnets.iter().any(|s| s.addr().is_ipv6() == v6);
        let families = [false, true].into_iter().filter(|v6| has(*v6));
        let families = families.map(Family::find).collect::<Result<_, _>>()?;
        Ok(Self { layout: layout.clone(), families, forwards: Vec::new() })
    }

    fn chain(&self, part: &str) -> String {
        format!("CRISP-{part}-{}", self.layout.bridge)
    }

    fn ports(&self, family: &Family) -> String {
        let chain = self.chain("PORTS");
        format!("*nat\n:{chain} - [0:0]\n{}COMMIT\n", port_rules(&chain, &self.forwards, family.v6))
    }

    fn fixed(&self, family: &Family) -> String {
        let (post, guard, bridge) = (self.chain("POST"), self.chain("GUARD"), &self.layout.bridge);
        let mut rules = format!("*nat\n:{post} - [0:0]\n");
        let translated = "-m conntrack --ctstate DNAT -j MASQUERADE";
        if !family.v6 {
            rules.push_str(&format!("-A {post} -s 127.0.0.0/8 -o {bridge} {translated}\n"));
        }
        for subnet in self.layout.subnets.iter().filter(|s| s.addr().is_ipv6() == family.v6) {
            rules.push_str(&format!("-A {post} -s {subnet} -o {bridge} {translated}\n"));
            if self.layout.masquerade {
                let multicast = if family.v6 { "ff00::/8" } else { "224.0.0.0/4" };
                rules.push_str(&format!("-A {post} -s {subnet} -d {subnet} -j RETURN\n"));
                rules.push_str(&format!("-A {post} -s {subnet} -d {multicast} -j RETURN\n"));
                rules.push_str(&format!("-A {post} -s {subnet} ! -o {bridge} -j MASQUERADE\n"));
            }
        }
        rules.push_str("COMMIT\n");
        if !family.v6 {
            // mangle sees packets before their destination is translated, as raw does, and more kernels have it.
            rules.push_str(&format!(
                "*mangle\n:{guard} - [0:0]\n-A {guard} -i {bridge} -d 127.0.0.0/8 -j DROP\nCOMMIT\n"
            ));
        }
        rules
    }

    /// Table, built-in chain, and the rule that leads from there to a chain of ours.
    fn jumps(&self, family: &Family) -> Vec<(&'static str, &'static str, Vec<String>)> {
        let words = |text: &str, chain: String| -> Vec<String> {
            text.split_whitespace().map(str::to_owned).chain(["-j".to_owned(), chain]).collect()
        };
        let local = "-m addrtype --dst-type LOCAL";
        let output = if family.v6 { "! -d ::1 -m addrtype --dst-type LOCAL" } else { local };
        let mut jumps = vec![
            ("nat", "PREROUTING", words(local, self.chain("PORTS"))),
            ("nat", "OUTPUT", words(output, self.chain("PORTS"))),
            ("nat", "POSTROUTING", words("", self.chain("POST"))),
        ];
        if !family.v6 {
            jumps.push(("mangle", "PREROUTING", words("", self.chain("GUARD"))));
        }
        jumps
    }

    fn jump(
        &self,
        family: &Family,
        verb: &str,
        jump: &(&str, &str, Vec<String>),
    ) -> Result<(), NetworkError> {
        let mut arguments = vec!["-t", jump.0, verb, jump.1];
        arguments.extend(jump.2.iter().map(String::as_str));
        family.run(&arguments)
    }

    fn write_ports(&self) -> Result<(), NetworkError> {
        self.families.iter().try_for_each(|family| family.restore(&self.ports(family)))
    }
}

impl Firewall for Iptables {
    fn kind(&self) -> &'static str {
        "iptables"
    }

    fn install(&mut self, layout: &Layout, forwards: &[Forward]) -> Result<(), NetworkError> {
        self.layout = layout.clone();
        self.forwards = forwards.to_vec();
        self.write_ports()?;
        for family in &self.families {
            family.restore(&self.fixed(family))?;
            for jump in self.jumps(family) {
                if self.jump(family, "-C", &jump).is_err() {
                    self.jump(family, "-A", &jump)?;
                }
            }
        }
        Ok(())
    }

    fn is_there(&mut self) -> bool {
        // Would take a program; the next host port writes them anew.
        true
    }

    fn add(&mut self, forwards: &[Forward]) -> Result<(), NetworkError> {
        let before = self.forwards.len();
        self.forwards.extend_from_slice(forwards);
        self.write_ports().inspect_err(|_| self.forwards.truncate(before))
    }

    fn remove(&mut self, forwards: &[Forward]) -> Result<(), NetworkError> {
        self.forwards.retain(|f| !forwards.contains(f));
        self.write_ports()
    }

    fn uninstall(&mut self) -> Result<(), NetworkError> {
        let mut errors = Vec::new();
        for family in &self.families {
            for jump in self.jumps(family) {
                errors.extend(self.jump(family, "-D", &jump).err());
            }
            let chains = [("nat", "PORTS"), ("nat", "POST"), ("mangle", "GUARD")];
            for (table, part) in chains.into_iter().take(if family.v6 { 2 } else { 3 }) {
                let chain = self.chain(part);
                errors.extend(family.run(&["-t", table, "-F", &chain]).err());
                errors.extend(family.run(&["-t", table, "-X", &chain]).err());
            }
        }
        NetworkError::collected(errors)
    }
}

#[cfg(test)]
mod tests {
    use crisp_model::sandbox::Protocol;

    use super::*;
    use crate::builtin::lease::ForwardKey;

    #[test]
    fn ports_on_one_address_come_first() {
        let forward = |host_ip: Option<&str>, v6: bool, target: &str| Forward {
            key: ForwardKey {
                protocol: Protocol::Tcp,
                host_ip: host_ip.map(|t| t.parse().unwrap()),
                v6,
                host_port: 8080,
            },
            target: target.parse().unwrap(),
        };
        let forwards = [
            forward(None, false, "10.88.0.2:80"),
            forward(Some("192.0.2.1"), false, "10.88.0.3:80"),
            forward(None, true, "[fd00::2]:80"),
        ];
        assert_eq!(
            port_rules("C", &forwards, false),
            "-A C -d 192.0.2.1 -p tcp --dport 8080 -j DNAT --to-destination 10.88.0.3:80\n\
             -A C -p tcp --dport 8080 -j DNAT --to-destination 10.88.0.2:80\n"
        );
        assert_eq!(
            port_rules("C", &forwards, true),
            "-A C -p tcp --dport 8080 -j DNAT --to-destination [fd00::2]:80\n"
        );
    }
}
