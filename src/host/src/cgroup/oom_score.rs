//! The OOM score of all processes of a cgroup (`proc(5)`, `/proc/pid/oom_score_adj`): it belongs to a process, so a change of a
//! container's has to reach each of them; children inherit it.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
};

use super::{CgroupError, CgroupFs, files};
use crate::at::open_at;

/// How often the list of processes is looked at again, for those that were forked in the meantime.
const ROUNDS: usize = 3;

impl CgroupFs {
    /// Sets it for every process of the cgroup and of those below it. All are tried; the first failure is told.
    pub fn set_oom_score(&self, cgroup: &str, score: i64) -> Result<(), CgroupError> {
        let (mut done, mut first) = (Vec::new(), None);
        for _ in 0..ROUNDS {
            let new: Vec<i32> = self.procs(cgroup)?.into_iter().filter(|pid| !done.contains(pid)).collect();
            if new.is_empty() {
                break;
            }
            for pid in new {
                done.push(pid);
                if let Err(source) = set(pid, cgroup, score) {
                    let file = format!("/proc/{pid}/oom_score_adj").into();
                    let (value, hint) = (score.to_string(), String::new());
                    first.get_or_insert(CgroupError::Refused { file, value, hint, source });
                }
            }
        }
        first.map_or(Ok(()), Err)
    }
}

/// The open folder is of one process for good. Its number may have been given away since the list was read: then another's cgroup
/// is read in it, and it is left alone.
fn set(pid: i32, cgroup: &str, score: i64) -> io::Result<()> {
    let open = || File::options().read(true).custom_flags(libc::O_DIRECTORY).open(format!("/proc/{pid}"));
    let write = || {
        let folder = OwnedFd::from(open()?);
        let mut text = String::new();
        File::from(open_at(&folder, b"cgroup", libc::O_RDONLY, 0)?).read_to_string(&mut text)?;
        let own = |line: &str| line.splitn(3, ':').nth(2).is_some_and(|own| own.starts_with(cgroup));
        if !text.lines().any(own) {
            return Ok(());
        }
        File::from(open_at(&folder, b"oom_score_adj", libc::O_WRONLY, 0)?)
            .write_all(score.to_string().as_bytes())
    };
    let ended = |error: &io::Error| files::is_gone(error) || error.raw_os_error() == Some(libc::ESRCH);
    write().or_else(|error| if ended(&error) { Ok(()) } else { Err(error) })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn only_of_a_process_in_that_cgroup() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let score = || std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
        let before = score();
        set(pid, "/crisp-no-such-cgroup", 777).unwrap();
        assert_eq!(score(), before);
        // Raising is allowed to everybody.
        set(pid, "/", 777).unwrap();
        assert_eq!(score(), "777\n");
        child.kill().unwrap();
        child.wait().unwrap();
        // One that has ended is no failure.
        set(pid, "/", 778).unwrap();
    }
}
