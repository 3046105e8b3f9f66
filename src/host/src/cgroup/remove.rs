//! Taking cgroups away, with everything below them.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::{CgroupError, CgroupFs, files};

/// First and longest pause between two tries. The kernel tells nobody when a cgroup can be removed: a killed process
/// keeps it busy until it has given its memory back.
const PAUSE: (Duration, Duration) = (Duration::from_micros(200), Duration::from_millis(20));

impl CgroupFs {
    /// Removes the cgroup if nothing is in it or below it, at once; whether it is gone. A false may leave it in some hierarchies
    /// only, as an interrupted [`Self::remove`] does. The kernel refuses to remove what has members, so nobody has to look for them.
    pub fn remove_empty(&self, cgroup: &str) -> Result<bool, CgroupError> {
        for dir in self.paths(cgroup)? {
            if !rmdir(&dir)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Removes the cgroup and all cgroups below it in every hierarchy, trying again for at most `within` while
    /// something keeps them busy. What is gone already is no error. Goes on past an error and returns the first.
    pub fn remove(&self, cgroup: &str, within: Duration) -> Result<(), CgroupError> {
        let start = Instant::now();
        let mut pause = PAUSE.0;
        let mut left = self.paths(cgroup)?;
        loop {
            let mut failed = None;
            left.retain(|dir| match remove_tree(dir) {
                Ok(done) => !done,
                Err(error) => {
                    failed.get_or_insert(error);
                    true
                }
            });
            if left.is_empty() {
                return Ok(());
            }
            if start.elapsed() >= within {
                return Err(failed.unwrap_or_else(|| self.still_busy(cgroup, &left, start.elapsed())));
            }
            thread::sleep(pause);
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    fn still_busy(&self, cgroup: &str, left: &[PathBuf], waited: Duration) -> CgroupError {
        let pids = self.procs(cgroup).unwrap_or_default();
        let what = match (pids.as_slice(), left.first()) {
            ([], Some(dir)) => format!("{} cannot be removed", dir.display()),
            (pids, _) => format!("processes {:?} are in it", &pids[..pids.len().min(10)]),
        };
        CgroupError::Busy { cgroup: cgroup.to_owned(), what, waited }
    }
}

/// Tries once; false: something is busy.
fn remove_tree(top: &Path) -> Result<bool, CgroupError> {
    // Mostly there is nothing below.
    if rmdir(top)? {
        return Ok(true);
    }
    let mut all = true;
    for dir in subtree(top)?.iter().rev() {
        all &= rmdir(dir)?;
    }
    Ok(all)
}

fn rmdir(dir: &Path) -> Result<bool, CgroupError> {
    match fs::remove_dir(dir) {
        Ok(()) => Ok(true),
        Err(e) if files::is_gone(&e) => Ok(true),
        Err(e) if matches!(e.raw_os_error(), Some(libc::EBUSY | libc::ENOTEMPTY)) => Ok(false),
        Err(source) => Err(CgroupError::host("rmdir", dir, source)),
    }
}

/// The folder and all folders below it, parents before their children; empty if it is gone.
pub(super) fn subtree(top: &Path) -> Result<Vec<PathBuf>, CgroupError> {
    let Ok(about) = fs::metadata(top) else { return Ok(Vec::new()) };
    if !about.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = vec![top.to_path_buf()];
    if about.nlink() == 2 {
        // The name and `.`; a folder below would add its `..`. Reading the folder means to go through some thirty files.
        return Ok(found);
    }
    let mut next = 0;
    while let Some(dir) = found.get(next).cloned() {
        next += 1;
        let gone_or = |source: io::Error| match files::is_gone(&source) {
            true => Ok(()),
            false => Err(CgroupError::host("read", &dir, source)),
        };
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(source) => {
                gone_or(source)?;
                continue;
            }
        };
        for entry in entries {
            match entry.and_then(|entry| Ok((entry.file_type()?.is_dir(), entry.path()))) {
                Ok((true, path)) => found.push(path),
                Ok((false, _)) => {}
                Err(source) => gone_or(source)?,
            }
        }
    }
    Ok(found)
}
