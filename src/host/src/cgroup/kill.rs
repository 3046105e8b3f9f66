//! Ending every process of a cgroup.
#![allow(unsafe_code)]

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{CgroupError, CgroupFs, Layout, files, freeze::wait_for_event};

/// How long a round waits for the killed to go before it looks for ones that were forked meanwhile.
const ROUND: Duration = Duration::from_millis(50);

impl CgroupFs {
    /// Kills every process in the cgroup and below it, again and again until none is left, for at most `within`.
    /// Nothing is left if the cgroup is gone. The caller must not be in it.
    pub fn kill_all(&self, cgroup: &str, within: Duration) -> Result<(), CgroupError> {
        let start = Instant::now();
        let until = start + within;
        if let Layout::V2 { .. } = self.layout
            && let Some(done) = self.kill_v2(cgroup, until)?
        {
            return if done { Ok(()) } else { Err(self.survivors(cgroup, start.elapsed())) };
        }
        let mut first = true;
        loop {
            // The first round mostly suffices. A process that forks faster than it is found is stopped first.
            let frozen =
                !first && self.freezer_state(cgroup).is_ok_and(|f| files::write(&f, "FROZEN").is_ok());
            let signalled = self.signal_members(cgroup, libc::SIGKILL);
            if frozen {
                self.thaw(cgroup).or_else(ignore_gone)?;
            }
            let Some(pidfds) = signalled? else { return Ok(()) };
            if pidfds.is_empty() {
                // Members that were gone before they could be opened: the kernel is about to drop them.
                thread::sleep(Duration::from_millis(1));
            }
            wait_for_exit(&pidfds, until.min(Instant::now() + ROUND));
            if Instant::now() >= until {
                return match self.procs(cgroup)?.is_empty() {
                    true => Ok(()),
                    false => Err(self.survivors(cgroup, start.elapsed())),
                };
            }
            first = false;
        }
    }

    /// Sends a signal to every process in the cgroup and below it, once; returns how many got it.
    pub fn signal_all(&self, cgroup: &str, signal: i32) -> Result<usize, CgroupError> {
        Ok(self.signal_members(cgroup, signal)?.map_or(0, |sent| sent.len()))
    }

    /// `cgroup.kill` (Linux 5.14) reaches forks in flight too; `None`: the kernel does not have it.
    fn kill_v2(&self, cgroup: &str, until: Instant) -> Result<Option<bool>, CgroupError> {
        let dir = self.paths(cgroup)?.remove(0);
        if !dir.is_dir() {
            return Ok(Some(true));
        }
        let kill = dir.join("cgroup.kill");
        if !kill.exists() {
            return Ok(None);
        }
        files::write(&kill, "1").or_else(ignore_gone)?;
        match wait_for_event(&dir.join("cgroup.events"), "populated 0", until) {
            Err(CgroupError::Host { source, .. }) if files::is_gone(&source) => Ok(Some(true)),
            other => other.map(Some),
        }
    }

    /// Signals the members through pidfds. A pid may be another process's by the time it is signalled, so each is
    /// opened first and then looked for in the cgroup again: whoever has the pid now is a member. `None`: there are no members.
    fn signal_members(&self, cgroup: &str, signal: i32) -> Result<Option<Vec<OwnedFd>>, CgroupError> {
        let mut open: BTreeMap<i32, OwnedFd> = BTreeMap::new();
        let members = self.procs(cgroup)?;
        if members.is_empty() {
            return Ok(None);
        }
        for pid in members {
            match pidfd_open(pid) {
                Ok(fd) => drop(open.insert(pid, fd)),
                Err(e) if e.raw_os_error() == Some(libc::ESRCH) => {}
                Err(source) => return Err(CgroupError::host("pidfd_open", format!("process {pid}"), source)),
            }
        }
        if open.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let still = self.procs(cgroup)?;
        let mut sent = Vec::with_capacity(open.len());
        for (pid, fd) in open {
            if still.binary_search(&pid).is_ok() {
                match pidfd_send_signal(&fd, signal) {
                    Ok(()) => sent.push(fd),
                    Err(e) if e.raw_os_error() == Some(libc::ESRCH) => {}
                    Err(source) => return Err(CgroupError::host("kill", format!("process {pid}"), source)),
                }
            }
        }
        Ok(Some(sent))
    }

    fn survivors(&self, cgroup: &str, waited: Duration) -> CgroupError {
        let pids = self.procs(cgroup).unwrap_or_default();
        let what = format!("processes {:?} do not end", &pids[..pids.len().min(10)]);
        CgroupError::Busy { cgroup: cgroup.to_owned(), what, waited }
    }
}

fn ignore_gone(error: CgroupError) -> Result<(), CgroupError> {
    match error {
        CgroupError::Refused { ref source, .. } if files::is_gone(source) => Ok(()),
        error => Err(error),
    }
}

fn wait_for_exit(pidfds: &[OwnedFd], until: Instant) {
    for fd in pidfds {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
        // An interrupted wait only means that the next round comes sooner.
        let _ = poll(&mut fds, timeout);
    }
}

fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes two integers, touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    match i32::try_from(fd) {
        // SAFETY: a descriptor that the kernel made for us and that nobody else knows of (it sets close-on-exec).
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

fn pidfd_send_signal(fd: &OwnedFd, signal: i32) -> io::Result<()> {
    let info: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: the descriptor is open for the call, and a null siginfo means "as kill(2) would".
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd.as_raw_fd(), signal, info, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
