//! Reading and writing the kernel's cgroup files.

use std::{
    fs,
    io::{self, Read, Write},
    path::Path,
};

use super::CgroupError;

/// The cgroup was removed while (or before) it was looked at: ENOENT for the path, ENODEV for an open file.
pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

pub(super) fn read(path: &Path) -> Result<String, CgroupError> {
    fs::read_to_string(path).map_err(|source| CgroupError::host("read", path, source))
}

/// The file's text; `None`: there is no such file (the controller is off, or the kernel older).
pub(super) fn read_optional(path: &Path) -> Result<Option<String>, CgroupError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if is_gone(&e) => Ok(None),
        Err(source) => Err(CgroupError::host("read", path, source)),
    }
}

/// Reads all of a file, of whatever length, into a buffer that is used again; nobody asks for the size that it does not have.
pub(super) fn read_into(path: &Path, text: &mut String) -> io::Result<()> {
    text.clear();
    let mut file = fs::File::open(path)?;
    let mut chunk = [0; 4096];
    let mut bytes = std::mem::take(text).into_bytes();
    loop {
        match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => bytes.extend_from_slice(&chunk[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    *text = String::from_utf8(bytes).map_err(io::Error::other)?;
    Ok(())
}

/// One value of one write, as the kernel wants it. The file is never created.
pub(super) fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    let refused = |source: io::Error| CgroupError::Refused {
        file: path.to_owned(),
        value: value.to_owned(),
        hint: hint(path, &source).to_owned(),
        source,
    };
    let mut file = fs::OpenOptions::new().write(true).truncate(true).open(path).map_err(refused)?;
    let written = file.write(value.as_bytes()).map_err(refused)?;
    if written != value.len() {
        return Err(refused(io::Error::from(io::ErrorKind::WriteZero)));
    }
    Ok(())
}

/// What the kernel means by an errno on this file.
fn hint(path: &Path, error: &io::Error) -> &'static str {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match (name, error.raw_os_error()) {
        ("memory.limit_in_bytes" | "memory.memsw.limit_in_bytes", Some(libc::EBUSY)) => {
            "; more memory than that is in use and cannot be reclaimed"
        }
        ("memory.limit_in_bytes", Some(libc::EINVAL)) => {
            "; it is above the limit of memory and swap together"
        }
        ("memory.memsw.limit_in_bytes", Some(libc::EINVAL)) => "; it is below the limit of memory alone",
        ("cpu.cfs_quota_us" | "cpu.cfs_period_us", Some(libc::EINVAL)) => {
            "; it is out of range, above the parent's share of processor time, or below a child's"
        }
        ("cpuset.cpus" | "cpuset.mems", Some(libc::EACCES)) => "; the parent does not have all of these",
        ("cpuset.cpus" | "cpuset.mems", Some(libc::EBUSY)) => "; a child uses what would be taken away",
        ("cpuset.cpus" | "cpuset.mems", Some(libc::ENOSPC)) => "; a cpuset with processes cannot be empty",
        ("cgroup.procs" | "tasks", Some(libc::EBUSY)) => "; the cgroup hands controllers down to children",
        ("cgroup.procs" | "tasks", Some(libc::ESRCH)) => "; the process is gone",
        (_, Some(libc::ENOENT)) => "; the controller is off, the kernel too old, or the cgroup gone",
        _ => "",
    }
}

/// More than any file of one cgroup but `io.stat` and `memory.numa_stat` has.
const CHUNK: usize = 8192;

/// A buffer that is used again for every file, so that a hundred containers cost no hundred allocations.
#[derive(Debug, Default)]
pub(super) struct Reader {
    buffer: Vec<u8>,
}

impl Reader {
    /// The file's text; `None`: there is no such file. Bytes that are not UTF-8 end it (the kernel writes none).
    pub(super) fn read(&mut self, path: &Path) -> Result<Option<&str>, CgroupError> {
        let mut file = match fs::File::open(path) {
            Ok(file) => file,
            Err(e) if is_gone(&e) => return Ok(None),
            Err(source) => return Err(CgroupError::host("read", path, source)),
        };
        // Kernel files report a size of 0 or of a page, so it is not asked for. Those read here are made in one piece:
        // a read that does not fill the buffer was the last one.
        let mut filled = 0;
        loop {
            self.buffer.resize(filled + CHUNK, 0);
            match file.read(&mut self.buffer[filled..]) {
                Ok(n) => {
                    filled += n;
                    if n < CHUNK {
                        break;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if is_gone(&e) => return Ok(None),
                // A pressure file of a host that switched it off at boot.
                Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(None),
                Err(source) => return Err(CgroupError::host("read", path, source)),
            }
        }
        self.buffer.truncate(filled);
        Ok(Some(match std::str::from_utf8(&self.buffer) {
            Ok(text) => text,
            Err(e) => std::str::from_utf8(&self.buffer[..e.valid_up_to()]).unwrap_or_default(),
        }))
    }
}
