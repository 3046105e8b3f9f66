//! Stopping every process of a cgroup at once.

use std::{
    fs::File,
    io::{Read, Seek},
    os::fd::AsFd,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{CgroupError, CgroupFs, files};

/// Pause between two looks at a v1 freezer, which tells nobody when it is done.
const LOOK_AGAIN: Duration = Duration::from_micros(500);

impl CgroupFs {
    /// Stops every process in the cgroup and below, waiting at most `within` until all stand still. When they do not
    /// (one is in an uninterruptible sleep) the cgroup is thawed again and the error says so.
    pub fn freeze(&self, cgroup: &str, within: Duration) -> Result<(), CgroupError> {
        let start = Instant::now();
        let frozen = match &self.layout {
            super::Layout::V2 { .. } => {
                let dir = self.paths(cgroup)?.remove(0);
                files::write(&dir.join("cgroup.freeze"), "1")?;
                wait_for_event(&dir.join("cgroup.events"), "frozen 1", start + within)?
            }
            _ => {
                let file = self.freezer_state(cgroup)?;
                loop {
                    // Written again each time: a process forked meanwhile makes the kernel start over.
                    files::write(&file, "FROZEN")?;
                    if files::read(&file)?.trim() == "FROZEN" {
                        break true;
                    }
                    if start.elapsed() >= within {
                        break false;
                    }
                    thread::sleep(LOOK_AGAIN);
                }
            }
        };
        if frozen {
            return Ok(());
        }
        self.thaw(cgroup)?;
        let what = "not all of its processes could be stopped".to_owned();
        Err(CgroupError::Busy { cgroup: cgroup.to_owned(), what, waited: start.elapsed() })
    }

    /// Lets them go on.
    pub fn thaw(&self, cgroup: &str) -> Result<(), CgroupError> {
        if self.layout.is_v2() {
            files::write(&self.paths(cgroup)?.remove(0).join("cgroup.freeze"), "0")
        } else {
            files::write(&self.freezer_state(cgroup)?, "THAWED")
        }
    }

    pub(super) fn freezer_state(&self, cgroup: &str) -> Result<std::path::PathBuf, CgroupError> {
        let dir = self
            .path("freezer", cgroup)?
            .ok_or(CgroupError::NoController { controller: "freezer", setting: "freezer.state".into() })?;
        Ok(dir.join("freezer.state"))
    }
}

/// Waits until `cgroup.events` has the line; the kernel announces each change of it as POLLPRI. False: too late.
pub(super) fn wait_for_event(file: &Path, line: &str, until: Instant) -> Result<bool, CgroupError> {
    let fail = |source| CgroupError::host("read", file, source);
    let mut events = File::open(file).map_err(fail)?;
    let mut text = String::new();
    loop {
        text.clear();
        events.rewind().map_err(fail)?;
        if let Err(error) = events.read_to_string(&mut text) {
            // The cgroup was removed under us: nothing of it runs.
            return if files::is_gone(&error) { Ok(true) } else { Err(fail(error)) };
        }
        if text.lines().any(|l| l == line) {
            return Ok(true);
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        // At least a millisecond, so that the rest of one does not spin.
        let timeout = PollTimeout::try_from(left.max(Duration::from_millis(1))).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(fail(errno.into())),
        }
    }
}
