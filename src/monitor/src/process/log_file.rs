//! A container's log file.
//!
//! A log that cannot be written never stops the container: what cannot be written is counted and lost, every later chunk is
//! tried again, and the monitor's own log says when it began and how much it was.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Least time between two words about the same log.
const QUIET: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: Option<File>,
    /// Bytes that could not be written since that was last said.
    lost: u64,
    /// When something was said; a disk that is full now and then would otherwise fill the monitor's own log.
    said: Option<Instant>,
}

impl LogFile {
    /// Opens it. Only a disk that is full or read-only is bound to be better later; everything else is an error.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = match open(path) {
            Ok(file) => Some(file),
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT | libc::EROFS)) => {
                complain(path, &e);
                None
            }
            Err(e) => return Err(e),
        };
        Ok(Self { path: path.to_owned(), file, lost: 0, said: None })
    }

    /// Closes it and opens its path anew. On an error the old file goes on being used.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        self.file = Some(open(&self.path)?);
        Ok(())
    }

    /// Appends whole entries.
    pub(super) fn write(&mut self, entries: &[u8]) {
        match self.attempt(entries) {
            Ok(()) if self.lost > 0 && self.may_speak() => {
                eprintln!("log {}: written again, {} bytes were lost", self.path.display(), self.lost);
                self.lost = 0;
            }
            Ok(()) => {}
            Err((error, written)) => {
                if self.lost == 0 && self.may_speak() {
                    complain(&self.path, &error);
                }
                self.lost += (entries.len() - written) as u64;
            }
        }
    }

    fn may_speak(&mut self) -> bool {
        let may = self.said.is_none_or(|at| at.elapsed() >= QUIET);
        if may {
            self.said = Some(Instant::now());
        }
        may
    }

    fn attempt(&mut self, entries: &[u8]) -> Result<(), (io::Error, usize)> {
        if self.file.is_none() {
            self.file = Some(open(&self.path).map_err(|e| (e, 0))?);
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut written = 0;
        while written < entries.len() {
            match file.write(&entries[written..]) {
                Ok(n) => written += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err((e, cut_torn_entry(file, entries, written))),
            }
        }
        Ok(())
    }
}

/// Takes an entry that was written in part out of the file; returns how much whole ones there are.
fn cut_torn_entry(file: &File, entries: &[u8], written: usize) -> usize {
    let whole = memchr::memrchr(b'\n', &entries[..written]).map_or(0, |at| at + 1);
    if whole < written {
        // A file system that cannot even be made shorter keeps the torn entry.
        let _ = file.metadata().and_then(|m| file.set_len(m.len() - (written - whole) as u64));
    }
    whole
}

fn open(path: &Path) -> io::Result<File> {
    // Pods' logs are read by agents of their own group (as those of the peers, 0640). A pipe or device would block us.
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o640)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a file")) }
}

fn complain(path: &Path, error: &io::Error) {
    eprintln!(
        "log {}: {error}; what the container writes is lost until it can be written again",
        path.display()
    );
}
