//! Compiling system call filters to the kernel's bytecode, once per distinct filter.
//!
//! libseccomp needs 10 to 30 ms for the default profile, loading the result half a millisecond; so the daemon compiles
//! and keeps, and the monitor only loads ([`crate::seccomp_load`]). Owns the cache; calls libseccomp (this is why it
//! hides behind the feature `seccomp-compile`: the static monitor does not link it). The programs live in memory
//! files: a crash leaves nothing.

use std::{
    fs::File,
    io::{self, Seek},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
};

use crisp_model::seccomp::{Action, Compare, Filter, Rule};
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::memfd::{MemFdCreateFlag, memfd_create},
};

/// Bytes of a `struct sock_filter`.
const INSTRUCTION: u64 = 8;
/// `BPF_MAXINSNS`: longer programs are refused by the kernel.
const MAX_INSTRUCTIONS: u64 = 4096;
/// Filters that are kept. A node has the default profile with a few sets of capabilities and a handful of profiles of
/// its own; a filter and its program take about 100 KiB.
const KEPT: usize = 64;

/// Calls that are younger than the libseccomp of long-lived distributions: it does not know their names. Their numbers
/// are the same on every machine.
const YOUNG: [(&str, i32); 19] = [
    ("cachestat", 451),
    ("fchmodat2", 452),
    ("map_shadow_stack", 453),
    ("futex_wake", 454),
    ("futex_wait", 455),
    ("futex_requeue", 456),
    ("statmount", 457),
    ("listmount", 458),
    ("lsm_get_self_attr", 459),
    ("lsm_set_self_attr", 460),
    ("lsm_list_modules", 461),
    ("mseal", 462),
    ("setxattrat", 463),
    ("getxattrat", 464),
    ("listxattrat", 465),
    ("removexattrat", 466),
    ("open_tree_attr", 467),
    ("file_getattr", 468),
    ("file_setattr", 469),
];

/// Why a filter has no program.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// The profile asks for something impossible: choose another.
    #[error("seccomp profile: {rule}: {reason}")]
    Rule {
        /// Which rule (or other part) of it.
        rule: String,
        /// libseccomp's answer.
        reason: String,
    },
    /// The program is longer than the kernel takes: shorten the profile.
    #[error("seccomp profile: its program has {0} instructions, the kernel takes {MAX_INSTRUCTIONS}")]
    TooLong(u64),
    /// The host has no room for it.
    #[error("seccomp program: {operation}: {source}")]
    Host {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// A compiled filter: an array of `struct sock_filter` in a sealed memory file.
#[derive(Debug)]
pub struct Program {
    file: OwnedFd,
    /// Length, bytes.
    pub length: u64,
    /// Names that neither libseccomp nor this module knows; their calls get the filter's default action.
    pub unknown: Vec<String>,
}

impl Program {
    /// A read-only descriptor at offset 0, to give away: reading it moves nobody else's offset.
    pub fn open(&self) -> io::Result<OwnedFd> {
        File::open(format!("/proc/self/fd/{}", self.file.as_raw_fd())).map(OwnedFd::from)
    }
}

/// Compiles a filter. Takes milliseconds of processor time: not for an async task.
pub fn compile(filter: &Filter) -> Result<Program, SeccompError> {
    let mut unknown = Vec::new();
    let context = build(filter, &mut unknown)?;
    let host = |operation| move |source: io::Error| SeccompError::Host { operation, source };
    let flags = MemFdCreateFlag::MFD_CLOEXEC | MemFdCreateFlag::MFD_ALLOW_SEALING;
    let file = memfd_create(c"seccomp", flags).map_err(io::Error::from).map_err(host("memfd_create"))?;
    context.export_bpf(file.as_fd()).map_err(|error| part("export", &error))?;
    let mut file = File::from(file);
    let length = file.stream_position().map_err(host("lseek"))?;
    if length / INSTRUCTION > MAX_INSTRUCTIONS {
        return Err(SeccompError::TooLong(length / INSTRUCTION));
    }
    let seals =
        SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    fcntl(file.as_raw_fd(), FcntlArg::F_ADD_SEALS(seals)).map_err(io::Error::from).map_err(host("seal"))?;
    Ok(Program { file: file.into(), length, unknown })
}

fn part(rule: impl Into<String>, error: &libseccomp::error::SeccompError) -> SeccompError {
    SeccompError::Rule { rule: rule.into(), reason: error.to_string() }
}

fn build(filter: &Filter, unknown: &mut Vec<String>) -> Result<ScmpFilterContext, SeccompError> {
    let default = action(filter.default_action, filter.default_errno_ret);
    let mut context = ScmpFilterContext::new(default).map_err(|e| part("defaultAction", &e))?;
    // A binary tree instead of a list: a call is judged in some ten comparisons, not in hundreds. Older libseccomps
    // do not have it, and their filters work as well.
    let _ = context.set_ctl_optimize(2);
    // Calls by number go in while the machine's own architecture is the only one: libseccomp could not translate them.
    for (i, rule) in filter.syscalls.iter().enumerate() {
        for (name, number) in YOUNG.iter().filter(|(name, _)| rule.names.iter().any(|n| n == name)) {
            if ScmpSyscall::from_name(name).is_err() && action(rule.action, rule.errno_ret) != default {
                add(&mut context, rule, ScmpSyscall::from_raw_syscall(*number))
                    .map_err(|e| at(i, name, &e))?;
            }
        }
    }
    for name in &filter.architectures {
        let arch: ScmpArch = name.parse().map_err(|e| part(name, &e))?;
        context.add_arch(arch).map_err(|e| part(name, &e))?;
    }
    for (i, rule) in filter.syscalls.iter().enumerate() {
        if action(rule.action, rule.errno_ret) == default {
            continue;
        }
        for name in &rule.names {
            match ScmpSyscall::from_name(name) {
                Ok(call) => add(&mut context, rule, call).map_err(|e| at(i, name, &e))?,
                Err(_) if YOUNG.iter().any(|(young, _)| young == name) => {}
                Err(_) => unknown.push(name.clone()),
            }
        }
    }
    Ok(context)
}

fn at(i: usize, name: &str, error: &libseccomp::error::SeccompError) -> SeccompError {
    part(format!("syscalls[{i}], {name}"), error)
}

fn add(
    context: &mut ScmpFilterContext,
    rule: &Rule,
    call: ScmpSyscall,
) -> Result<(), libseccomp::error::SeccompError> {
    let action = action(rule.action, rule.errno_ret);
    let conditions: Vec<ScmpArgCompare> = rule.args.iter().map(condition).collect();
    let repeated = (0..6).any(|index| rule.args.iter().filter(|arg| arg.index == index).count() > 1);
    if repeated {
        // Several conditions on one argument are alternatives: one rule each.
        for condition in conditions {
            context.add_rule_conditional(action, call, &[condition])?;
        }
    } else {
        context.add_rule_conditional(action, call, &conditions)?;
    }
    Ok(())
}

fn condition(arg: &crisp_model::seccomp::Argument) -> ScmpArgCompare {
    let (op, value) = match arg.op {
        Compare::NotEqual => (ScmpCompareOp::NotEqual, arg.value),
        Compare::Less => (ScmpCompareOp::Less, arg.value),
        Compare::LessOrEqual => (ScmpCompareOp::LessOrEqual, arg.value),
        Compare::Equal => (ScmpCompareOp::Equal, arg.value),
        Compare::GreaterOrEqual => (ScmpCompareOp::GreaterEqual, arg.value),
        Compare::Greater => (ScmpCompareOp::Greater, arg.value),
        Compare::MaskedEqual => (ScmpCompareOp::MaskedEqual(arg.value), arg.value_two),
    };
    ScmpArgCompare::new(arg.index, op, value)
}

fn action(action: Action, errno: Option<u16>) -> ScmpAction {
    let errno = errno.unwrap_or(libc::EPERM as u16);
    match action {
        Action::Allow => ScmpAction::Allow,
        Action::Errno => ScmpAction::Errno(i32::from(errno)),
        Action::Kill => ScmpAction::KillThread,
        Action::KillProcess => ScmpAction::KillProcess,
        Action::Trap => ScmpAction::Trap,
        Action::Trace => ScmpAction::Trace(errno),
        Action::Log => ScmpAction::Log,
    }
}

/// A program that is being made or is made.
type Slot = Arc<Mutex<Option<Arc<Program>>>>;

/// Programs by their filter, the most recently used first. Cheap to share; one filter is compiled by one caller while
/// the others wait for it, different filters at the same time.
#[derive(Debug, Default)]
pub struct SeccompCache {
    slots: Mutex<Vec<(Arc<Filter>, Slot)>>,
}

impl SeccompCache {
    /// The program of a filter. Failures are not kept.
    pub fn compile(&self, filter: &Filter) -> Result<Arc<Program>, SeccompError> {
        let slot = self.slot(filter);
        let mut program = slot.lock().unwrap_or_else(PoisonError::into_inner);
        match &*program {
            Some(program) => Ok(Arc::clone(program)),
            None => Ok(Arc::clone(program.insert(Arc::new(compile(filter)?)))),
        }
    }

    fn slot(&self, filter: &Filter) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let found = match slots.iter().position(|(kept, _)| **kept == *filter) {
            Some(i) => slots.remove(i),
            None => (Arc::new(filter.clone()), Slot::default()),
        };
        let slot = Arc::clone(&found.1);
        slots.insert(0, found);
        slots.truncate(KEPT);
        slot
    }
}

#[cfg(test)]
mod tests;
