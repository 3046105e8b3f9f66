//! Adding a process to a running container: the worker's part.
//!
//! libcontainer has no part in this. The worker joins the container's cgroups, then all its namespaces at once by its pidfd,
//! and forks the process, which goes the last leg. The worker cannot be traced from inside the container, and its
//! process cannot until it has become its program.

use std::{
    fs,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use crisp_host::{
    cgroup::CgroupFs,
    namespace,
    process::{self as proc},
};
use crisp_monitor::protocol::StartExec;
use nix::unistd::{Gid, Uid, dup2, fchown, setresgid, setresuid, setsid};

use super::{
    Failure, failed, host, infra,
    last_leg::{LastLeg, open_procfs},
    pod::ExecGroup,
    report::{Report, Reporter},
    worker,
};

/// What the loop gives a worker besides the request.
pub(super) struct Given {
    /// The container's first process, and its descriptor.
    pub(super) init: i32,
    pub(super) pidfd: OwnedFd,
    /// The container is in a user namespace of its pod.
    pub(super) in_userns: bool,
    pub(super) group: ExecGroup,
    /// `None`: `/dev/null`.
    pub(super) stdio: [Option<OwnedFd>; 3],
    pub(super) seccomp: Option<Vec<u8>>,
    pub(super) oom_score: i32,
}

/// Namespaces of a container; those that it shares with the host are joined without effect.
const NAMESPACES: libc::c_int = libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP;

/// The worker's part.
pub(super) fn start(
    reporter: &Reporter,
    wanted: StartExec,
    given: Given,
    cgroups: &CgroupFs,
) -> Result<(), Failure> {
    join_cgroups(&given.group, cgroups)?;
    infra::set_oom_score(wanted.process.oom_score_adj, given.oom_score);
    let stdio = prepare_stdio(&wanted, &given)?;
    let leg = LastLeg {
        process: wanted.process,
        seccomp: given.seccomp,
        procfs: open_procfs()?,
        container: wanted.container.as_str().to_owned(),
    };
    proc::forbid_tracing().map_err(host("prctl"))?;
    let flags = NAMESPACES | if given.in_userns { libc::CLONE_NEWUSER } else { 0 };
    namespace::join(given.pidfd.as_fd(), flags).map_err(host("join the container's namespaces"))?;
    match worker::fork_sibling(0, None).map_err(host("fork"))? {
        None => {
            if let Err(failure) = settle(reporter, &leg, &stdio, given.in_userns) {
                reporter.fail(failure);
                proc::exit_now(128);
            }
            leg.run(reporter)
        }
        Some(pid) => {
            reporter.tell(&Report::Exec { pid: pid.as_raw() });
            Ok(())
        }
    }
}

/// The worker moves itself, in one hierarchy into a cgroup of the exec's own, so that all that the exec starts can be found. On v2
/// its process cannot be born there instead: the kernel refuses that (ENOENT) from a cgroup outside of the cgroup
/// namespace that has just been joined, where cgroups are mounted with `nsdelegate`, as systemd does.
fn join_cgroups(group: &ExecGroup, cgroups: &CgroupFs) -> Result<(), Failure> {
    let own = group.folder(cgroups)?;
    fs::create_dir(&own).map_err(host(format!("make {}", own.display())))?;
    if cgroups.layout().is_v2() {
        return cgroups.join_self(&group.path()).map_err(failed("join the exec's cgroup"));
    }
    for file in cgroups.join_files(&group.container).map_err(failed("find the container's cgroups"))? {
        let file = if file.parent() == own.parent() { own.join("tasks") } else { file };
        fs::write(&file, "0").map_err(host(format!("join {}", file.display())))?;
    }
    Ok(())
}

/// The descriptors given, handed over to the user so that `/dev/stdout` can be opened, and `/dev/null` for the others.
fn prepare_stdio(wanted: &StartExec, given: &Given) -> Result<[OwnedFd; 3], Failure> {
    let maps = if given.in_userns {
        Some(namespace::read_id_maps(given.init).map_err(host("read the container's id maps"))?)
    } else {
        None
    };
    let uid = namespace::outside(maps.as_ref().map(|m| m.uids.as_slice()), wanted.process.uid);
    let gid = namespace::outside(maps.as_ref().map(|m| m.gids.as_slice()), wanted.process.gid);
    let one = |fd: &Option<OwnedFd>| -> Result<OwnedFd, Failure> {
        match fd {
            Some(fd) => {
                // What is no pipe of ours may refuse; the program can use it all the same.
                let _ = fchown(fd.as_raw_fd(), uid.map(Uid::from_raw), gid.map(Gid::from_raw));
                fd.try_clone().map_err(host("dup"))
            }
            None => fs::File::options()
                .read(true)
                .write(true)
                .open("/dev/null")
                .map(OwnedFd::from)
                .map_err(host("open /dev/null")),
        }
    };
    Ok([one(&given.stdio[0])?, one(&given.stdio[1])?, one(&given.stdio[2])?])
}

/// The child, before its last leg: root of the container, in a session of its own, with its streams.
fn settle(reporter: &Reporter, leg: &LastLeg, stdio: &[OwnedFd; 3], in_userns: bool) -> Result<(), Failure> {
    if in_userns {
        let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
        setresgid(gid, gid, gid)
            .and_then(|()| setresuid(uid, uid, uid))
            .map_err(failed("become root of the user namespace"))?;
    }
    setsid().map_err(failed("setsid"))?;
    for (standard, fd) in stdio.iter().enumerate() {
        dup2(fd.as_raw_fd(), standard as i32).map_err(failed("dup2"))?;
    }
    leg.take_terminal(reporter).map(|_| ())
}
