//! Which sysctls a pod may have: those of its own namespaces.

use crisp_model::security::{NamespaceMode, NamespaceOptions};

use super::{
    error::{At, Invalid},
    text,
};

/// Longest value; the kernel reads one page.
const VALUE_MAX: usize = 4096;

/// Sysctls of the IPC namespace (`ipc/ipc_sysctl.c`); `fs.mqueue.*` belongs to it too.
const IPC: [&str; 12] = [
    "kernel.auto_msgmni",
    "kernel.msg_next_id",
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.sem_next_id",
    "kernel.shm_next_id",
    "kernel.shm_rmid_forced",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
];

/// Checks a sysctl and returns its dotted name.
///
/// The name may be given with slashes (`net/ipv4/conf/eth0.1/forwarding`) as `sysctl(8)` allows; then its dots are
/// part of a component, and so they are slashes in the dotted name.
pub fn check(at: &At<'_>, name: &str, value: &str, namespaces: &NamespaceOptions) -> Result<String, Invalid> {
    let dotted = dotted(name);
    let component = |part: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'/' | b'@' | b':');
        !part.is_empty() && part.bytes().all(plain) && !is_dots(part)
    };
    if !dotted.contains('.') || !dotted.split('.').all(component) {
        return Err(at.invalid("is not the name of a sysctl such as net.core.somaxconn"));
    }
    text::no_nul(at, value)?;
    if value.len() > VALUE_MAX || value.contains('\n') {
        return Err(at.invalid(format!("the value is not one line of at most {VALUE_MAX} bytes")));
    }
    if dotted.starts_with("net.") {
        return own(at, &namespaces.network, "network").map(|()| dotted);
    }
    if dotted.starts_with("fs.mqueue.") || IPC.contains(&dotted.as_str()) {
        return own(at, &namespaces.ipc, "IPC").map(|()| dotted);
    }
    if dotted == "kernel.domainname" {
        return own(at, &namespaces.network, "UTS").map(|()| dotted);
    }
    if dotted == "kernel.hostname" {
        return Err(at.invalid("is the host name").hint("set config.hostname instead"));
    }
    Err(at.invalid("belongs to the whole host, not to a namespace of the pod"))
}

/// In the file's path slashes stand for dots and dots for slashes: a component of slashes is one of dots.
fn is_dots(part: &str) -> bool {
    part == "/" || part == "//"
}

fn dotted(name: &str) -> String {
    let slashes = name.find('/').is_some_and(|slash| name.find('.').is_none_or(|dot| slash < dot));
    if !slashes {
        return name.to_owned();
    }
    let swap = |c: char| match c {
        '/' => '.',
        '.' => '/',
        other => other,
    };
    name.chars().map(swap).collect()
}

fn own(at: &At<'_>, mode: &NamespaceMode, which: &str) -> Result<(), Invalid> {
    if *mode == NamespaceMode::Node {
        return Err(at.invalid(format!("belongs to the {which} namespace, which is the host's for this pod")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name_of(name: &str) -> Result<String, Invalid> {
        check(&At::root("s"), name, "1", &NamespaceOptions::default())
    }

    #[test]
    fn names_of_the_pods_namespaces_pass() {
        for (given, dotted) in [
            ("net.ipv4.ip_forward", "net.ipv4.ip_forward"),
            ("net/ipv4/ip_forward", "net.ipv4.ip_forward"),
            ("net/ipv4/conf/eth0.1/forwarding", "net.ipv4.conf.eth0/1.forwarding"),
            ("net.ipv4.conf.eth0/1.forwarding", "net.ipv4.conf.eth0/1.forwarding"),
            ("kernel.shm_rmid_forced", "kernel.shm_rmid_forced"),
            ("fs.mqueue.msg_max", "fs.mqueue.msg_max"),
            ("kernel.domainname", "kernel.domainname"),
        ] {
            assert_eq!(name_of(given).as_deref(), Ok(dotted), "{given}");
        }
    }

    #[test]
    fn the_hosts_and_escapes_are_refused() {
        for bad in [
            "",
            "net",
            "kernel.panic",
            "vm.swappiness",
            "kernel.hostname",
            "net..x",
            "net.",
            ".net.x",
            "net.//.x",
            "net/../../x",
            "net/./x",
            "../net.x",
            "net.x\0",
            "net.x y",
            "net.ipv4.//.//.kernel.panic",
            "fs.mqueue.",
        ] {
            assert!(name_of(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn values_are_one_line() {
        let options = NamespaceOptions::default();
        assert!(check(&At::root("s"), "kernel.sem", "250\t32000 32 128", &options).is_ok());
        for bad in ["1\n2", "1\0", &"1".repeat(5000)] {
            assert!(check(&At::root("s"), "kernel.sem", bad, &options).is_err());
        }
    }

    #[test]
    fn a_namespace_of_the_host_keeps_its_sysctls() {
        let network = NamespaceOptions { network: NamespaceMode::Node, ..Default::default() };
        assert!(check(&At::root("s"), "net.core.somaxconn", "1", &network).is_err());
        assert!(check(&At::root("s"), "kernel.sem", "1", &network).is_ok());
        let ipc = NamespaceOptions { ipc: NamespaceMode::Node, ..Default::default() };
        assert!(check(&At::root("s"), "fs.mqueue.msg_max", "1", &ipc).is_err());
        assert!(check(&At::root("s"), "net.core.somaxconn", "1", &ipc).is_ok());
    }
}
