//! The fork.
//!
//! A worker is a copy of the monitor that does one thing and ends: it may block, change its folder, its namespaces and its
//! limits, leak and crash. Processes that it makes with `CLONE_PARENT` are the monitor's children.
//!
//! The only unsafe code of the monitor: forking without exec, and closing what was inherited, are right because the monitor has one
//! thread and a worker never returns into the loop.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
    panic::{AssertUnwindSafe, catch_unwind},
};

use crisp_host::process::{clone3, close_others, exit_now};
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::socket::{AddressFamily, SockFlag, SockType, socketpair},
    unistd::Pid,
};

use super::Failure;
use super::report::{Report, Reporter};

/// A worker seen from the loop.
pub(super) struct Worker {
    pub(super) pid: Pid,
    /// Its reports; non-blocking.
    pub(super) reports: OwnedFd,
}

/// Forks a worker that keeps the standard descriptors and those in `keep`, does `work` and ends.
pub(super) fn fork(
    keep: &[RawFd],
    work: impl FnOnce(&Reporter) -> Result<(), Failure>,
) -> io::Result<Worker> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    // SAFETY: one thread, and no memory is shared; the child ends in this block.
    match unsafe { clone3(0, None) }? {
        Some(pid) => {
            drop(theirs);
            fcntl(ours.as_raw_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            Ok(Worker { pid, reports: ours })
        }
        None => {
            crate::MEMORY.never_free();
            let mut keep = keep.to_vec();
            keep.push(theirs.as_raw_fd());
            // SAFETY: the worker touches no owner of what is closed here, and ends without dropping any.
            let closed = unsafe { close_others(&keep) };
            std::mem::forget(ours);
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                let reporter = Reporter(theirs);
                let worked = closed.map_err(super::host("close descriptors")).and_then(|()| work(&reporter));
                if let Err(failure) = worked {
                    reporter.fail(failure);
                }
            }));
            exit_now(i32::from(outcome.is_err()))
        }
    }
}

/// Forks a process that is the monitor's child, in these new namespaces and (v2) this cgroup. `None` in the child.
pub(super) fn fork_sibling(
    namespaces: libc::c_int,
    cgroup: Option<BorrowedFd<'_>>,
) -> io::Result<Option<Pid>> {
    // SAFETY: only called in workers, which have one thread; no memory is shared. The child ends by execve or `exit_now`.
    unsafe { clone3(namespaces | libc::CLONE_PARENT, cgroup) }
}

/// Closes everything but the standard descriptors and `keep`, in a process that is about to become its program.
pub(super) fn keep_only(keep: &[RawFd]) -> io::Result<()> {
    // SAFETY: what follows is a few system calls with the kept descriptors, then execve or `exit_now`.
    unsafe { close_others(keep) }
}

/// Tells that it is done, for workers that make no process.
pub(super) fn done(reporter: &Reporter) -> Result<(), Failure> {
    reporter.tell(&Report::Done);
    Ok(())
}
