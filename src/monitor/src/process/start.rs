//! What the process makes of itself before it serves.

use std::{
    fs, io,
    os::{
        fd::{FromRawFd, OwnedFd},
        unix::net::UnixListener,
    },
};

use crisp_host::process;
use nix::{
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
        stat::{Mode, umask},
    },
    unistd::{dup2, setgroups, setsid},
};

/// As far below everything else as a process may go without being exempt: the pod's containers are to be killed before it.
const OOM_SCORE: i32 = -999;

/// What the loop begins with.
pub(super) struct Start {
    pub(super) listener: UnixListener,
    pub(super) signals: SignalFd,
    /// The OOM score that the process was started with, for its children.
    pub(super) oom_score: i32,
}

/// Leaves the daemon's session, groups, keys and folder; takes over orphans; from here on SIGCHLD is read, not delivered.
pub(super) fn start() -> io::Result<Start> {
    process::set_name(c"crisp-monitor");
    let listener = take_listener()?;
    // Fails only if the process leads a group already, as it does when it is started by hand.
    let _ = setsid();
    std::env::set_current_dir("/")?;
    setgroups(&[])?;
    // libcontainer makes folders with every permission that this leaves; for device nodes it sets its own.
    umask(Mode::from_bits_truncate(0o022));
    process::adopt_orphans()?;
    // Hosts without keys, or with no room for one more, are no reason not to run.
    let _ = process::new_session_keyring(None);
    let mut wanted = SigSet::empty();
    wanted.add(Signal::SIGCHLD);
    wanted.thread_block()?;
    let signals = SignalFd::with_flags(&wanted, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    Ok(Start { listener, signals, oom_score: protect() })
}

/// The listening socket, moved away from standard input; it is closed in every program that is executed.
#[allow(unsafe_code)] // the one descriptor that comes from outside
fn take_listener() -> io::Result<UnixListener> {
    // SAFETY: standard input was given to this process for good, and nothing has used it yet.
    let given = unsafe { OwnedFd::from_raw_fd(0) };
    let moved = given.try_clone()?;
    let null = fs::File::options().read(true).write(true).open("/dev/null")?;
    std::mem::forget(given); // 0 stays open, as another file
    dup2(std::os::fd::AsRawFd::as_raw_fd(&null), 0)?;
    let listener = UnixListener::from(moved);
    listener.set_nonblocking(true)?;
    listener.local_addr()?; // not a socket: say so now
    Ok(listener)
}

fn protect() -> i32 {
    let own = "/proc/self/oom_score_adj";
    let before = fs::read_to_string(own).ok().and_then(|s| s.trim().parse().ok()).unwrap_or(0);
    // Only CAP_SYS_RESOURCE may go below what it has; without it the process stays as it is.
    let _ = fs::write(own, OOM_SCORE.to_string());
    before
}
