//! Processes: making them, telling them apart, and what a process sets of itself before it becomes another program.
//!
//! Owns nothing. What is set here is set for the calling process (and what it forks later), so everything below the first
//! section belongs in a freshly forked child.
#![allow(unsafe_code)]

use std::{
    ffi::CStr,
    fs, io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use nix::{errno::Errno, libc, unistd::Pid};

/// `struct clone_args` of `clone3(2)`, as far as Linux 5.7 knows it.
#[repr(C)]
#[derive(Debug, Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// `CLONE_INTO_CGROUP`, which not every libc names.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Forks with `clone3(2)`: namespace flags, `CLONE_PARENT`, and a cgroup (v2) to be born into. `None` in the child.
///
/// # Safety
/// The calling process has one thread: the child goes on with a copy of its heap and locks. `flags` contain none of those
/// that share memory with the child (`CLONE_VM` and what needs it).
pub unsafe fn clone3(flags: libc::c_int, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Option<Pid>> {
    let mut args = CloneArgs { flags: flags as u32 as u64, ..CloneArgs::default() };
    if flags & libc::CLONE_PARENT == 0 {
        args.exit_signal = libc::SIGCHLD as u64;
    }
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: the arguments live over the call and their size is passed; no stack means a fork-like child.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    match Errno::result(pid)? {
        0 => Ok(None),
        pid => Ok(Some(Pid::from_raw(pid as i32))),
    }
}

/// A descriptor of the process (`pidfd_open(2)`), close-on-exec.
pub fn pidfd(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; a new descriptor is owned by nobody else.
    unsafe {
        let fd = Errno::result(libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// `starttime` of `/proc/<pid>/stat` (`proc(5)`, field 22), in clock ticks since boot: tells a process from a later one of the same
/// number.
pub fn start_time(pid: Pid) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat: {stat:?}"));
    // The name may hold spaces and parentheses, so the fields are counted from its end.
    let (_, fields) = stat.rsplit_once(')').ok_or_else(malformed)?;
    fields.split_ascii_whitespace().nth(19).and_then(|f| f.parse().ok()).ok_or_else(malformed)
}

/// Ends the process at once: no destructor, no `atexit` handler, no buffer of the parent is run twice.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: does not return.
    unsafe { libc::_exit(code) }
}

fn prctl(option: libc::c_int, argument: libc::c_ulong) -> io::Result<()> {
    // SAFETY: the options used in this module take numbers only.
    Errno::result(unsafe { libc::prctl(option, argument, 0, 0, 0) })?;
    Ok(())
}

/// Orphans of the process's descendants become its children (`PR_SET_CHILD_SUBREAPER`).
pub fn adopt_orphans() -> io::Result<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1)
}

/// Forbids others to trace the process or to follow its links in `/proc` (`PR_SET_DUMPABLE`); execve undoes it.
pub fn forbid_tracing() -> io::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, 0)
}

/// `PR_SET_NO_NEW_PRIVS`.
pub fn no_new_privileges() -> io::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)
}

/// Keeps the permitted capabilities over a change of the user (`PR_SET_KEEPCAPS`); execve undoes it.
pub fn keep_capabilities() -> io::Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, 1)
}

/// The name that `ps` shows (15 bytes of it).
pub fn set_name(name: &CStr) {
    // SAFETY: a C string that lives over the call. It cannot fail.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) };
}

/// No signal blocked, none handled, none ignored: what a program expects to start with.
pub fn reset_signals() {
    // All zeros is the kernel's sigaction for the default; libc's own call keeps 32 and 33 to itself.
    let default = [0u64; 4];
    // SAFETY: valid pointers and the kernel's size of a signal set; SIGKILL and SIGSTOP answer EINVAL, which is no harm.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        for signal in 1..=64 {
            libc::syscall(libc::SYS_rt_sigaction, signal, &raw const default, 0, 8);
        }
    }
}

/// The kernel reaps the children of this process, and of what it becomes by execve (`SIGCHLD` ignored).
pub fn reap_automatically() {
    // SAFETY: sets a disposition without a handler.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// A session keyring of its own, so that no key of the parent's is within reach (`keyctl(2)`).
pub fn new_session_keyring(name: Option<&CStr>) -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    let name = name.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: null or a C string that lives over the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name, 0, 0, 0) })?;
    Ok(())
}

/// Closes every descriptor from 3 on but those in `keep`.
///
/// # Safety
/// No owner of a closed descriptor may use or drop it afterwards: the process execs or ends by [`exit_now`], or it only
/// touches owners of what is kept.
pub unsafe fn close_others(keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<u32> = keep.iter().filter(|fd| **fd >= 3).map(|fd| *fd as u32).collect();
    keep.sort_unstable();
    let mut first = 3;
    for last in keep.into_iter().chain([u32::MAX]) {
        if last > first {
            let end = if last == u32::MAX { last } else { last - 1 };
            // SAFETY: by the caller's promise.
            Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, end, 0) })?;
        }
        first = last.saturating_add(1);
    }
    Ok(())
}

/// Runs the program in `file` (`execveat(2)` with an empty path). Returns only on failure.
pub fn execute_file(file: BorrowedFd<'_>, args: &[&CStr], env: &[&CStr]) -> io::Error {
    let pointers = |list: &[&CStr]| -> Vec<*const libc::c_char> {
        list.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: null-terminated arrays of C strings that live over the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            args.as_ptr(),
            env.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    }
    io::Error::last_os_error()
}

/// A file in memory that can be run and never again changed: all seals are on it.
pub fn sealed_program(name: &CStr, content: &[u8]) -> io::Result<OwnedFd> {
    const MFD_EXEC: libc::c_uint = 0x10;
    let create = |flags| {
        // SAFETY: a C string that lives over the call.
        Errno::result(unsafe { libc::memfd_create(name.as_ptr(), flags) })
    };
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // Kernels before 6.3 do not know MFD_EXEC, later ones may be told to refuse what does not say it.
    let raw =
        create(flags | MFD_EXEC).or_else(|e| if e == Errno::EINVAL { create(flags) } else { Err(e) })?;
    // SAFETY: a new descriptor, owned by nobody else.
    let file = unsafe { OwnedFd::from_raw_fd(raw) };
    let mut writer = fs::File::from(file);
    io::Write::write_all(&mut writer, content)?;
    // Runnable and not readable: the process that runs it cannot be traced.
    writer.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o111))?;
    let seals = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
    // SAFETY: numbers only.
    Errno::result(unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_ADD_SEALS, seals) })?;
    Ok(writer.into())
}

#[cfg(test)]
mod tests {
    use std::{io::Read, os::fd::AsFd};

    use super::*;

    #[test]
    fn start_time_is_after_boot_and_stays() {
        let me = Pid::this();
        assert!(start_time(me).unwrap() > 0);
        assert_eq!(start_time(me).unwrap(), start_time(me).unwrap());
        assert!(start_time(Pid::from_raw(i32::MAX)).is_err());
    }

    #[test]
    fn a_sealed_program_cannot_be_written() {
        let file = sealed_program(c"test", b"content").unwrap();
        let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
        let mut text = String::new();
        fs::File::open(&path).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "content");
        let written = fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut f| io::Write::write_all(&mut f, b"x"));
        assert_eq!(written.unwrap_err().raw_os_error(), Some(libc::EPERM));
    }

    #[test]
    fn a_pidfd_of_nobody_is_an_error() {
        assert!(pidfd(Pid::this()).is_ok());
        assert!(pidfd(Pid::from_raw(i32::MAX)).is_err());
    }
}
