//! The files of a pod that its containers share: resolv.conf, hostname, /dev/shm.
//!
//! They live in the pod's folder under the state directory and die with the machine. The folder is 0711 and the files 0644: a process
//! mapped by a user namespace has to reach them by name.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
};

use crisp_host::{mountpoint, selinux};
use crisp_model::{SandboxConfig, sandbox::DnsConfig, security::NamespaceMode};
use crisp_spec::selinux::Label;

use crate::error::PodError;

/// Size of a pod's /dev/shm, as every runtime's.
const SHM_BYTES: u64 = 64 << 20;

/// The text of `/etc/resolv.conf` (`resolv.conf(5)`).
pub(crate) fn resolv_conf(dns: &DnsConfig) -> String {
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text += &format!("search {}\n", dns.searches.join(" "));
    }
    for server in &dns.servers {
        text += &format!("nameserver {server}\n");
    }
    if !dns.options.is_empty() {
        text += &format!("options {}\n", dns.options.join(" "));
    }
    text
}

/// Makes the pod's folder and everything in it, with the SELinux label of the pod's files. May be repeated.
pub(crate) fn make(dir: &Path, config: &SandboxConfig, label: Option<&Label>) -> Result<(), PodError> {
    let failed = |what: &str| {
        let object = format!("make {}", dir.join(what).display());
        move |e: io::Error| PodError::host(object, e)
    };
    fs::DirBuilder::new().recursive(true).mode(0o711).create(dir).map_err(failed(""))?;
    let dns = match &config.dns {
        Some(dns) if *dns != DnsConfig::default() => resolv_conf(dns),
        // No wish: the host's, or none where the host has none.
        _ => fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
    };
    write(&dir.join("resolv.conf"), &dns).map_err(failed("resolv.conf"))?;
    write(&dir.join("hostname"), &format!("{}\n", hostname(config))).map_err(failed("hostname"))?;
    for name in ["resolv.conf", "hostname"] {
        let labelled = label.map(|label| selinux::label(&dir.join(name), &label.to_string()));
        labelled.unwrap_or(Ok(())).map_err(failed(name))?;
    }
    if config.security.namespaces.ipc == NamespaceMode::Pod {
        let shm = dir.join("shm");
        fs::create_dir_all(&shm).map_err(failed("shm"))?;
        // Quoted, since a level has a comma.
        let context = label.map(|label| format!(",context=\"{label}\"")).unwrap_or_default();
        let options = format!("mode=1777,size={SHM_BYTES}{context}");
        mountpoint::tmpfs(&shm, &options)
            .map_err(|e| PodError::host(format!("mount {}", shm.display()), e))?;
    }
    Ok(())
}

/// The host name inside: the request's, or the host's own.
pub(crate) fn hostname(config: &SandboxConfig) -> String {
    match config.hostname.as_str() {
        "" => nix::unistd::gethostname().map(|h| h.to_string_lossy().into_owned()).unwrap_or_default(),
        name => name.to_owned(),
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}

/// Removes the pod's folder. None there is fine.
pub(crate) fn remove(dir: &Path) -> Result<(), PodError> {
    let shm = dir.join("shm");
    mountpoint::unmount_if_mounted(&shm)
        .map_err(|e| PodError::host(format!("unmount {}", shm.display()), e))?;
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(PodError::host(format!("remove {}", dir.display()), e))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_has_its_lines() {
        let dns = DnsConfig {
            servers: vec!["10.0.0.10".into(), "fd00::a".into()],
            searches: vec!["a.svc".into(), "svc".into()],
            options: vec!["ndots:5".into()],
        };
        let expected = "search a.svc svc\nnameserver 10.0.0.10\nnameserver fd00::a\noptions ndots:5\n";
        assert_eq!(resolv_conf(&dns), expected);
        assert_eq!(resolv_conf(&DnsConfig::default()), "");
    }
}
