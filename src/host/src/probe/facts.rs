//! What the kernel says of itself.
#![allow(unsafe_code)]

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::errno::Errno;
use serde::Serialize;

use super::Ability;
use crate::{capability, cgroup::Layout};

/// The kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kernel {
    /// As it says itself.
    pub release: String,
    /// Number.
    pub major: u32,
    /// Number.
    pub minor: u32,
    /// `x86_64`, `aarch64`.
    pub machine: String,
}

/// Who makes cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CgroupDriver {
    /// The runtime, in the cgroup file systems.
    Cgroupfs,
    /// systemd, as slices and scopes.
    Systemd,
}

/// SELinux' mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Selinux {
    /// Rules are kept.
    Enforcing,
    /// What breaks them is only logged.
    Permissive,
}

pub(super) const SECCOMP_RET_ERRNO: u32 = 0x0005_0000;
pub(super) const SECCOMP_RET_USER_NOTIF: u32 = 0x7fc0_0000;
const SECCOMP_GET_ACTION_AVAIL: libc::c_uint = 2;

pub(super) fn kernel() -> Kernel {
    let (release, machine) = match nix::sys::utsname::uname() {
        Ok(names) => {
            (names.release().to_string_lossy().into_owned(), names.machine().to_string_lossy().into_owned())
        }
        Err(_) => Default::default(),
    };
    let (major, minor) = version(&release);
    Kernel { release, major, minor, machine }
}

fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// The test of `sd_booted(3)`.
pub(super) fn systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// systemd wants to be the only one who makes cgroups on v2; on v1 the kubelet's default is cgroupfs.
pub(super) fn driver(systemd: bool, layout: Option<&Layout>) -> CgroupDriver {
    match systemd && layout.is_some_and(Layout::is_v2) {
        true => CgroupDriver::Systemd,
        false => CgroupDriver::Cgroupfs,
    }
}

pub(super) fn swap_accounting(layout: &Layout) -> bool {
    match layout {
        Layout::V1(v1) | Layout::Hybrid { v1, .. } => {
            let memory = v1.controllers.get("memory");
            memory.is_some_and(|root| root.join("memory.memsw.limit_in_bytes").exists())
        }
        // The root has no limits; any cgroup below it that has memory limits shows whether swap is one of them.
        Layout::V2 { root, .. } => {
            let children = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
            let limited = children.filter(|dir| dir.join("memory.max").exists());
            let shown: Vec<bool> = limited.take(1).map(|dir| dir.join("memory.swap.max").exists()).collect();
            shown.first().copied().unwrap_or_else(|| Path::new("/proc/swaps").exists())
        }
    }
}

pub(super) fn hugepage_sizes(layout: &Layout) -> Vec<String> {
    if layout.controller("hugetlb").is_none() {
        return Vec::new();
    }
    let names = fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let mut sizes: Vec<String> =
        names.filter_map(|entry| hugepage_size(entry.file_name().to_str()?)).collect();
    sizes.sort_unstable();
    sizes
}

/// `hugepages-2048kB` is `2MB` in the names of cgroup files.
fn hugepage_size(name: &str) -> Option<String> {
    let kib: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
    Some(match kib {
        k if k >= 1 << 20 => format!("{}GB", k >> 20),
        k if k >= 1 << 10 => format!("{}MB", k >> 10),
        k => format!("{k}KB"),
    })
}

pub(super) fn capabilities() -> Vec<String> {
    let effective = capability::get().unwrap_or_default().effective;
    effective.names().map(str::to_owned).collect()
}

/// Whether filters may return this action (`seccomp(2)`, `SECCOMP_GET_ACTION_AVAIL`).
pub(super) fn seccomp_action(action: u32) -> Ability {
    // SAFETY: the kernel reads one u32, which lives over the call.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) };
    Ability::of(Errno::result(result).map_err(io::Error::from))
}

/// AppArmor is in the kernel, switched on, and its interface mounted.
pub(super) fn apparmor() -> Ability {
    match fs::read_to_string("/sys/module/apparmor/parameters/enabled") {
        Ok(text) if text.trim() == "Y" => {}
        Ok(_) => return Ability::no("switched off"),
        Err(error) => return Ability::no(format!("not in the kernel ({error})")),
    }
    Ability::of(fs::metadata("/sys/kernel/security/apparmor/profiles"))
}

pub(super) fn selinux() -> Option<Selinux> {
    let text = fs::read_to_string("/sys/fs/selinux/enforce").ok()?;
    Some(if text.trim() == "1" { Selinux::Enforcing } else { Selinux::Permissive })
}

pub(super) fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (release, expected) in [
            ("6.18.44-fc-v669", (6, 18)),
            ("5.10.0-28-amd64", (5, 10)),
            ("4", (4, 0)),
            ("", (0, 0)),
            ("x.y", (0, 0)),
        ] {
            assert_eq!(version(release), expected, "{release}");
        }
    }

    #[test]
    fn page_sizes() {
        let table = [
            ("hugepages-2048kB", Some("2MB")),
            ("hugepages-1048576kB", Some("1GB")),
            ("hugepages-64kB", Some("64KB")),
            ("hugepages-", None),
            ("x", None),
        ];
        for (name, size) in table {
            assert_eq!(hugepage_size(name).as_deref(), size);
        }
    }

    #[test]
    fn an_unknown_action_is_refused_by_name_of_the_error() {
        assert!(seccomp_action(SECCOMP_RET_ERRNO).yes());
        assert!(!seccomp_action(0x0123_0000).yes());
    }

    #[test]
    fn programs() {
        assert!(in_path("sh").is_some());
        assert_eq!(in_path("no-such-program-here"), None);
    }
}
