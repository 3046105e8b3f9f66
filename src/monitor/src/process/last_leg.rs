//! The last steps of a process before execve, of inits and of execs.
//!
//! Runs in the container's own process: in all its namespaces and cgroups, rooted in its file system, still root with the
//! monitor's capabilities (those of the user namespace, if there is one). Everything the container could have prepared is hostile
//! here: paths are resolved inside its root only, no descriptor of the host is open while they are, and `/proc` is the
//! host's, by descriptor, until it is closed.
//!
//! A failure is reported to the loop by name, and the process ends with 127 (no such program) or 128.

mod home;
mod limits;
mod program;

use std::{
    convert::Infallible,
    ffi::CString,
    fs::{self, File},
    io::{self, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::fs::{DirBuilderExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use crisp_host::{at::open_at, capability, process as proc, seccomp_load, terminal};
use crisp_model::process::Process;
use nix::{
    sys::stat::{Mode, umask},
    unistd::{Gid, Uid, chdir, dup2, getcwd, setgroups, setresgid, setresuid},
};

use super::{
    Failure, host, invalid,
    report::{Report, Reporter},
    worker,
};

/// What a process still has to become.
pub(super) struct LastLeg {
    pub(super) process: Process,
    /// Compiled system call filter.
    pub(super) seccomp: Option<Vec<u8>>,
    /// The host's `/proc`: the container's may be anything.
    pub(super) procfs: OwnedFd,
    /// Names the session keyring: execs join that of their container.
    pub(super) container: String,
}

/// The host's `/proc`, for [`LastLeg::procfs`].
pub(super) fn open_procfs() -> Result<OwnedFd, Failure> {
    let flags = libc::O_DIRECTORY | libc::O_CLOEXEC;
    let dir = File::options().read(true).custom_flags(flags).open("/proc").map_err(host("open /proc"))?;
    Ok(dir.into())
}

impl LastLeg {
    /// Becomes the program, or reports why not and ends.
    pub(super) fn run(&self, reporter: &Reporter) -> ! {
        let Err(failure) = self.transform(reporter);
        let code = if matches!(failure, Failure::Invalid { .. }) { 127 } else { 128 };
        reporter.fail(failure);
        proc::exit_now(code)
    }

    /// What can be known before the program is started: that there is a program of that name.
    pub(super) fn check(&self) -> Result<(), Failure> {
        program::find(&self.process).map(|_| ())
    }

    /// Makes a terminal in the container's devpts, gives the master to the loop and lets the slave be the standard
    /// descriptors. Returns the slave's path.
    pub(super) fn take_terminal(&self, reporter: &Reporter) -> Result<Option<PathBuf>, Failure> {
        let Some((columns, rows)) = self.process.terminal else { return Ok(None) };
        let made = terminal::open().map_err(host("make a terminal in /dev/pts"))?;
        if (columns, rows) != (0, 0) {
            terminal::resize(made.master.as_fd(), columns, rows).map_err(host("set the terminal's size"))?;
        }
        let owner = Some(Uid::from_raw(self.process.uid));
        // The group stays the tty group that the mount has set.
        nix::unistd::fchown(made.slave.as_raw_fd(), owner, None)
            .map_err(|e| host("give the terminal to the user")(e.into()))?;
        terminal::control(made.slave.as_fd()).map_err(host("take control of the terminal"))?;
        for standard in 0..3 {
            dup2(made.slave.as_raw_fd(), standard).map_err(|e| host("dup2")(e.into()))?;
        }
        reporter.tell_with(&Report::Terminal, &[made.master.as_fd()]);
        Ok(Some(PathBuf::from(format!("/dev/pts/{}", made.number))))
    }

    fn transform(&self, reporter: &Reporter) -> Result<Infallible, Failure> {
        let wanted = &self.process;
        proc::reset_signals();
        let keyring = CString::new(format!("_ses.{}", self.container)).ok();
        // As everywhere, a host without keys or with a full quota runs containers all the same.
        let _ = proc::new_session_keyring(keyring.as_deref());
        limits::set(&wanted.rlimits)?;
        self.set_labels()?;
        worker::keep_only(&[reporter.0.as_raw_fd()]).map_err(host("close descriptors"))?;

        // The user finds its folder and files as the container's root made them.
        umask(Mode::from_bits_truncate(0o022));
        let entered = enter(&wanted.cwd);
        let environment = home::complete(wanted);
        let have = capability::get().map_err(host("capget"))?.permitted;
        self.change_user(have)?;
        if entered.is_err() {
            // Root may be locked out where the user is not (a network file system).
            enter(&wanted.cwd)?;
        }
        stay_inside(&wanted.cwd)?;
        umask(Mode::from_bits_truncate(wanted.umask.unwrap_or(0o022)));
        self.restrict(have)?;
        Err(program::execute(wanted, &environment))
    }

    fn set_labels(&self) -> Result<(), Failure> {
        if let Some(profile) = &self.process.apparmor_profile {
            let text = format!("exec {profile}");
            let files = ["thread-self/attr/apparmor/exec", "thread-self/attr/exec"];
            write_in(&self.procfs, &files, &text).map_err(host(format!("AppArmor profile {profile}")))?;
        }
        if let Some(label) = &self.process.selinux_label {
            write_in(&self.procfs, &["thread-self/attr/exec"], label)
                .map_err(host(format!("SELinux label {label}")))?;
        }
        Ok(())
    }

    /// Groups, group, user. The permitted capabilities are kept, to be cut down last.
    fn change_user(&self, have: capability::Set) -> Result<(), Failure> {
        let wanted = &self.process;
        let names = |list: &[String]| capability::Set::from_names(list.iter().map(String::as_str));
        capability::bound(names(&wanted.capabilities.bounding)).map_err(host("drop capabilities"))?;
        proc::keep_capabilities().map_err(host("keep capabilities"))?;
        let groups: Vec<Gid> = wanted.additional_gids.iter().copied().map(Gid::from_raw).collect();
        let (uid, gid) = (Uid::from_raw(wanted.uid), Gid::from_raw(wanted.gid));
        setgroups(&groups)
            .and_then(|()| setresgid(gid, gid, gid))
            .and_then(|()| setresuid(uid, uid, uid))
            .map_err(|e| host(format!("become user {}:{}", wanted.uid, wanted.gid))(e.into()))?;
        let all =
            capability::Sets { effective: have, permitted: have, inheritable: capability::Set::default() };
        capability::set(all).map_err(host("keep capabilities"))
    }

    /// Capabilities, no_new_privs and the filter. Without no_new_privs the filter needs CAP_SYS_ADMIN: it is loaded
    /// before that goes; with it, it is the last thing done.
    fn restrict(&self, have: capability::Set) -> Result<(), Failure> {
        let wanted = &self.process;
        if !wanted.no_new_privs {
            self.load_seccomp()?;
        }
        let names = |list: &[String]| capability::Set::from_names(list.iter().map(String::as_str)).and(have);
        let sets = &wanted.capabilities;
        let (permitted, inheritable) = (names(&sets.permitted), names(&sets.inheritable));
        capability::set(capability::Sets {
            effective: names(&sets.effective).and(permitted),
            permitted,
            inheritable,
        })
        .map_err(host("set capabilities"))?;
        capability::set_ambient(names(&sets.ambient).and(permitted).and(inheritable))
            .map_err(host("set ambient capabilities"))?;
        if wanted.no_new_privs {
            proc::no_new_privileges().map_err(host("set no_new_privs"))?;
            self.load_seccomp()?;
        }
        Ok(())
    }

    fn load_seccomp(&self) -> Result<(), Failure> {
        match &self.seccomp {
            Some(program) => seccomp_load::load(program).map_err(host("load the seccomp filter")),
            None => Ok(()),
        }
    }
}

/// Writes `text` to the first of `files` (paths below the folder `dir`) that can be opened.
pub(super) fn write_in(dir: &OwnedFd, files: &[&str], text: &str) -> io::Result<()> {
    let mut error = io::Error::from(io::ErrorKind::NotFound);
    for file in files {
        match open_in(dir, file) {
            Ok(mut file) => return file.write_all(text.as_bytes()),
            Err(e) => error = e,
        }
    }
    Err(error)
}

fn open_in(dir: &OwnedFd, path: &str) -> io::Result<File> {
    let mut at = dir.try_clone()?;
    let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
    for folder in folders.split('/').filter(|f| !f.is_empty()) {
        at = open_at(&at, folder.as_bytes(), libc::O_PATH | libc::O_DIRECTORY, 0)?;
    }
    open_at(&at, name.as_bytes(), libc::O_WRONLY, 0).map(File::from)
}

fn enter(cwd: &str) -> Result<(), Failure> {
    let path = Path::new(if cwd.is_empty() { "/" } else { cwd });
    if chdir(path).is_ok() {
        return Ok(());
    }
    // As the peers do; where it cannot be made, chdir says why.
    let _ = fs::DirBuilder::new().recursive(true).mode(0o755).create(path);
    chdir(path).map_err(|e| invalid(format!("working directory {}", path.display()), e.desc()))
}

/// A working directory that lies outside of the root (reached through a descriptor that leaked) is refused.
fn stay_inside(cwd: &str) -> Result<(), Failure> {
    match getcwd() {
        Ok(path) if path.is_absolute() => Ok(()),
        Ok(_) => Err(invalid(format!("working directory {cwd}"), "it lies outside of the container")),
        Err(e) => Err(invalid(format!("working directory {cwd}"), e.desc())),
    }
}
