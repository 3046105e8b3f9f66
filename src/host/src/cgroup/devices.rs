//! Which devices the processes of a cgroup may use. cgroup v1 has a controller for that; on v2 it is a BPF program
//! (`BPF_PROG_TYPE_CGROUP_DEVICE`) attached to the cgroup, which lives as long as the cgroup does.
//!
//! [`restrict`] makes the program of the OCI runtime spec's rules (`linux.resources.devices`), loads and attaches it, or
//! writes the rules to the controller's files. To be called after the cgroup was made and before the program of the container
//! runs.
#![allow(unsafe_code)]

mod program;
mod v1;

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::Path,
};

use nix::errno::Errno;
use serde::Deserialize;

use super::{CgroupError, CgroupFs};
use program::Instruction;

/// Most rules: a privileged container names every device of the host, and never gets near.
const MAX_RULES: usize = 16_384;

/// A rule of the OCI runtime spec (`config-linux.md`, allowed device list). Later rules win over earlier ones; what no rule
/// speaks of is denied.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct DeviceRule {
    /// Allow or deny.
    pub allow: bool,
    /// Which kind.
    #[serde(rename = "type", default)]
    pub kind: DeviceKind,
    /// Major number; `None` or negative: any.
    #[serde(default)]
    pub major: Option<i64>,
    /// Minor number; `None` or negative: any.
    #[serde(default)]
    pub minor: Option<i64>,
    /// Any of `r`, `w`, `m`; empty: all of them.
    #[serde(default)]
    pub access: String,
}

/// Kinds of devices.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum DeviceKind {
    /// Both.
    #[default]
    #[serde(rename = "a")]
    All,
    /// Block devices.
    #[serde(rename = "b")]
    Block,
    /// Character devices (`u` is another word for them).
    #[serde(rename = "c", alias = "u")]
    Char,
}

/// Restricts the processes of a cgroup, and of those below it, to these devices.
pub fn restrict(fs: &CgroupFs, cgroup: &str, rules: &[DeviceRule]) -> Result<(), CgroupError> {
    match fs.open(cgroup)? {
        Some(dir) => restrict_dir(&dir, rules)
            .map_err(|source| CgroupError::host("restrict the devices of", Path::new(cgroup), source)),
        None => v1::restrict(fs, cgroup, rules),
    }
}

fn restrict_dir(dir: &OwnedFd, rules: &[DeviceRule]) -> io::Result<()> {
    if rules.len() > MAX_RULES {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} device rules", rules.len())));
    }
    attach(dir, &load(&program::build(rules))?)
}

/// `BPF_PROG_LOAD` of `bpf(2)`, as far as it is used.
#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    expected_attach_type: u32,
}

/// `BPF_PROG_ATTACH`.
#[repr(C)]
#[derive(Default)]
struct AttachAttributes {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
/// Beside those of systemd and of the cgroups above: all have to allow.
const BPF_F_ALLOW_MULTI: u32 = 2;

fn load(instructions: &[Instruction]) -> io::Result<OwnedFd> {
    let license = c"Apache-2.0";
    let mut name = [0; 16];
    name[..13].copy_from_slice(b"crisp_devices");
    let attributes = LoadAttributes {
        program_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        instructions: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        name,
        expected_attach_type: BPF_CGROUP_DEVICE,
        ..LoadAttributes::default()
    };
    let fd = bpf(BPF_PROG_LOAD, &attributes)?;
    // SAFETY: a new descriptor (close-on-exec) that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn attach(cgroup: &OwnedFd, program: &OwnedFd) -> io::Result<()> {
    let number = |fd: &OwnedFd| u32::try_from(fd.as_raw_fd()).map_err(io::Error::other);
    let attributes = AttachAttributes {
        target: number(cgroup)?,
        program: number(program)?,
        attach_type: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    bpf(BPF_PROG_ATTACH, &attributes).map(drop)
}

fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_int> {
    loop {
        // SAFETY: T is one of the two structures above, laid out as the command's part of `union bpf_attr`, whose size is passed; what
        // they point to lives over the call and is only read.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
        match Errno::result(result) {
            // The verifier was interrupted by a signal.
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            result => return libc::c_int::try_from(result?).map_err(io::Error::other),
        }
    }
}

/// Whether the kernel takes such programs; for the probe.
pub(crate) fn supported() -> io::Result<()> {
    load(&program::build(&[])).map(drop)
}

#[cfg(test)]
fn restrict_path(dir: &Path, rules: &[DeviceRule]) -> io::Result<()> {
    restrict_dir(&std::fs::File::open(dir)?.into(), rules)
}

#[cfg(test)]
mod tests;
