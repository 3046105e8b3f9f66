//! The infra container: the process that owns the pod's namespaces.
//!
//! A worker makes its cgroup, joins it, and forks the process into the new namespaces, in an empty root of its own, without
//! capabilities, as nobody. It executes a sealed file in memory that cannot be read: through its `/proc/<pid>/exe`
//! nothing of the host can be reached.

use std::{
    fs,
    io::{Read, Write},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
};

use crisp_host::{capability, cgroup::CgroupFs, namespace, process as proc};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    unistd::{Gid, Uid, chdir, dup2, pivot_root, setgroups, setresgid, setresuid, setsid},
};

use super::{
    Failure, failed, group, host, invalid, last_leg, pause,
    report::{Report, Reporter},
    worker,
};
use crisp_monitor::protocol::StartInfra;

/// Who it is once it has nothing more to do: an id that no container's process needs.
const NOBODY: u32 = 65_534;

/// The worker's part.
pub(super) fn start(
    reporter: &Reporter,
    wanted: &StartInfra,
    cgroups: &CgroupFs,
    oom_score: i32,
) -> Result<(), Failure> {
    check_sysctls(wanted)?;
    let cgroup = group::make(cgroups, &wanted.cgroup)?;
    // v1: this worker joins, its child is born there. v2: the child is made there.
    let into = cgroups.open(&cgroup).map_err(failed("open the pod's cgroup"))?;
    if into.is_none() {
        cgroups.join_self(&cgroup).map_err(failed("join the pod's cgroup"))?;
    }
    set_oom_score(wanted.oom_score_adj, oom_score);
    if let Some(netns) = wanted.netns.as_ref().filter(|_| wanted.network) {
        // This worker joins, its child is born there.
        let operation = || format!("join the pod's network at {}", netns.display());
        namespace::join_network(netns).map_err(host(operation()))?;
    }
    let program = proc::sealed_program(c"crisp-infra", &pause::program())
        .map_err(host("make the infra container's program"))?;
    let (mut wait, mut go) = std::io::pipe().map_err(host("pipe"))?;
    match worker::fork_sibling(namespaces(wanted), into.as_ref().map(AsFd::as_fd))
        .map_err(host("make the pod's namespaces"))?
    {
        None => {
            drop(go);
            let mut released = [0];
            let outcome = match wait.read(&mut released) {
                Ok(1) => become_infra(wanted, &program),
                _ => Ok(()), // the worker has failed and told why
            };
            if let Err(failure) = outcome {
                reporter.fail(failure);
            }
            proc::exit_now(128)
        }
        Some(pid) => {
            if let Some(user) = &wanted.user {
                namespace::write_id_maps(pid, user).map_err(host("map the pod's users"))?;
            }
            let start_time = proc::start_time(pid).map_err(host("read the infra container's start time"))?;
            reporter.tell(&Report::Infra { pid: pid.as_raw(), start_time });
            go.write_all(&[1]).map_err(host("release the infra container"))
        }
    }
}

/// Sets the OOM score of this process and what it will make; where it may not be lowered it stays.
pub(super) fn set_oom_score(wanted: Option<i32>, inherited: i32) {
    let _ = fs::write("/proc/self/oom_score_adj", wanted.unwrap_or(inherited).to_string());
}

fn namespaces(wanted: &StartInfra) -> libc::c_int {
    let flags = [
        (true, libc::CLONE_NEWNS),
        (wanted.network && wanted.netns.is_none(), libc::CLONE_NEWNET),
        (wanted.ipc, libc::CLONE_NEWIPC),
        (wanted.uts, libc::CLONE_NEWUTS),
        (wanted.pid, libc::CLONE_NEWPID),
        (wanted.user.is_some(), libc::CLONE_NEWUSER),
    ];
    flags.into_iter().filter(|(wanted, _)| *wanted).fold(0, |all, (_, flag)| all | flag)
}

/// The child's part; returns on failure only.
fn become_infra(wanted: &StartInfra, program: &OwnedFd) -> Result<(), Failure> {
    proc::forbid_tracing().map_err(host("prctl"))?;
    setsid().map_err(failed("setsid"))?;
    if wanted.user.is_some() {
        become_user(0).map_err(failed("become root of the user namespace"))?;
    }
    if wanted.uts && !wanted.hostname.is_empty() {
        nix::unistd::sethostname(&wanted.hostname)
            .map_err(|e| invalid(format!("hostname {:?}", wanted.hostname), e.desc()))?;
    }
    if wanted.network && wanted.netns.is_none() {
        namespace::loopback_up().map_err(host("set the loopback device up"))?;
    }
    for (name, value) in &wanted.sysctls {
        fs::write(sysctl_path(name), value).map_err(|e| invalid(format!("sysctl {name}={value}"), e))?;
    }
    if let Some(label) = &wanted.selinux_label {
        let procfs = last_leg::open_procfs()?;
        last_leg::write_in(&procfs, &["thread-self/attr/exec"], label)
            .map_err(host(format!("SELinux label {label}")))?;
    }
    let null =
        fs::File::options().read(true).write(true).open("/dev/null").map_err(host("open /dev/null"))?;
    for standard in 0..3 {
        dup2(null.as_raw_fd(), standard).map_err(failed("dup2"))?;
    }
    empty_root().map_err(failed("make the infra container's root"))?;
    drop_privileges().map_err(host("drop the infra container's privileges"))?;
    proc::reset_signals();
    proc::reap_automatically();
    pause::settle_addresses();
    let error = proc::execute_file(program.as_fd(), &[c"crisp-infra"], &[]);
    Err(host("execute the infra container's program")(error))
}

/// A read-only file system with nothing in it, of which the process cannot get out.
fn empty_root() -> nix::Result<()> {
    let nothing = None::<&str>;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_SLAVE, nothing)?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    // Over a folder that exists on every host and can be passed by every user.
    let root = Path::new("/proc");
    mount(Some("crisp-infra"), root, Some("tmpfs"), flags, Some("size=4k,nr_inodes=2,mode=555"))?;
    chdir(root)?;
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")
}

fn become_user(id: u32) -> nix::Result<()> {
    let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)
}

fn drop_privileges() -> std::io::Result<()> {
    capability::bound(capability::Set::default())?;
    setgroups(&[])?;
    // A small user namespace may have nobody: root of it, without capabilities, does as well.
    let _ = become_user(NOBODY);
    capability::set(capability::Sets::default())?;
    proc::no_new_privileges()
}

/// Dotted names, or with slashes where a device's name has a dot (`sysctl.d(5)`).
fn sysctl_path(name: &str) -> String {
    let path = match name.find(['.', '/']).map(|at| name.as_bytes()[at]) {
        Some(b'.') => name
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
        _ => name.to_owned(),
    };
    format!("/proc/sys/{path}")
}

/// Refuses what is not of one of the pod's own namespaces: it would change the host.
fn check_sysctls(wanted: &StartInfra) -> Result<(), Failure> {
    const IPC: [&str; 12] = [
        "kernel/msgmax",
        "kernel/msgmnb",
        "kernel/msgmni",
        "kernel/msg_next_id",
        "kernel/sem",
        "kernel/sem_next_id",
        "kernel/shmall",
        "kernel/shmmax",
        "kernel/shmmni",
        "kernel/shm_next_id",
        "kernel/shm_rmid_forced",
        "kernel/auto_msgmni",
    ];
    for name in wanted.sysctls.keys() {
        let path = sysctl_path(name);
        let path = path.strip_prefix("/proc/sys/").unwrap_or(&path);
        let refuse = |reason: &str| Err(invalid(format!("sysctl {name}"), reason));
        if path.split('/').any(|part| part.is_empty() || part == ".." || part == ".") {
            return refuse("not a name of a sysctl");
        }
        let own = if path.starts_with("net/") {
            wanted.network
        } else if IPC.contains(&path) || path.starts_with("fs/mqueue/") {
            wanted.ipc
        } else if ["kernel/domainname", "kernel/hostname"].contains(&path) {
            wanted.uts
        } else {
            return refuse("it belongs to no namespace of a pod");
        };
        if !own {
            return refuse("its namespace is the host's");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctls_of_the_host_are_refused() {
        let pod = |network, ipc, name: &str| StartInfra {
            network,
            ipc,
            sysctls: [(name.to_owned(), "1".to_owned())].into(),
            ..StartInfra::default()
        };
        for (network, ipc, name, fine) in [
            (true, false, "net.ipv4.ip_forward", true),
            (true, false, "net/ipv4/conf/eth0.1/rp_filter", true),
            (false, true, "net.ipv4.ip_forward", false),
            (true, true, "kernel.shmmax", true),
            (true, false, "kernel.shmmax", false),
            (true, true, "fs.mqueue.msg_max", true),
            (true, true, "kernel.pid_max", false),
            (true, true, "vm.swappiness", false),
            (true, true, "net..", false),
            (true, true, "net/../kernel/core_pattern", false),
            (true, true, "", false),
        ] {
            assert_eq!(check_sysctls(&pod(network, ipc, name)).is_ok(), fine, "{name}");
        }
    }

    #[test]
    fn names_become_paths() {
        for (name, path) in [
            ("net.ipv4.ip_forward", "/proc/sys/net/ipv4/ip_forward"),
            ("net.ipv4.conf.eth0/1.rp_filter", "/proc/sys/net/ipv4/conf/eth0.1/rp_filter"),
            ("net/ipv4/conf/eth0.1/rp_filter", "/proc/sys/net/ipv4/conf/eth0.1/rp_filter"),
        ] {
            assert_eq!(sysctl_path(name), path);
        }
    }
}
