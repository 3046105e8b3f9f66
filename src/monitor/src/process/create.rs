//! Creating a container: the worker's part.
//!
//! In a mount namespace of its own the worker mounts the root file system and the volumes that libcontainer cannot mount, lets
//! libcontainer make the container's init, and ends. Init waits to be started inside of [`Tail`], our executor, and goes the
//! last leg itself. What the worker has mounted lives on in init's namespace only.

mod cgroups;
mod dev;
mod spec;
mod tail;
mod trace;

use std::{
    fs,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::PathBuf,
};

use crisp_host::{cgroup::CgroupFs, namespace, process as proc};
use crisp_model::security::UserNamespace;
use crisp_monitor::protocol::CreateContainer;
use libcontainer::{container::builder::ContainerBuilder, syscall::syscall::SyscallType};
use nix::sched::{CloneFlags, unshare};

use self::tail::Tail;
use super::{
    Failure, failed, group, host, infra,
    last_leg::{LastLeg, open_procfs},
    pod::cgroup_path,
    remove,
    report::{Report, Reporter},
    rootfs, worker,
};

/// What the loop gives a worker besides the request.
pub(super) struct Given {
    /// The pod's folder.
    pub(super) dir: PathBuf,
    /// Standard input, output and error; `/dev/null` where there is none.
    pub(super) stdio: [OwnedFd; 3],
    pub(super) seccomp: Option<Vec<u8>>,
    /// The OOM score that children get if nothing else is asked for.
    pub(super) oom_score: i32,
    /// The infra container's process, which is in the pod's user namespace.
    pub(super) infra: Option<i32>,
}

/// libcontainer's folders of the pod.
pub(super) fn state_root(dir: &std::path::Path) -> PathBuf {
    dir.join("libcontainer")
}

/// The worker's part.
pub(super) fn create(
    reporter: &Reporter,
    wanted: CreateContainer,
    given: Given,
    cgroups: &CgroupFs,
) -> Result<(), Failure> {
    let (id, cgroup, bundle) = (
        wanted.container.clone(),
        wanted.cgroup.clone(),
        given.dir.join("bundles").join(wanted.container.as_str()),
    );
    let dir = given.dir.clone();
    let outcome = group::make(cgroups, &cgroup).and_then(|path| {
        group::limit(cgroups, &path, &wanted.spec)?;
        let own = match cgroups.layout().is_v2() {
            true => vec![],
            false => cgroups.paths(&path).map_err(failed("find the container's cgroup"))?,
        };
        make(reporter, wanted, given, (&bundle, &own), || group::enter(reporter, cgroups, &cgroup, &path))
    });
    // libcontainer has read it, and nothing else needs it; it is tens of kilobytes of memory.
    let _ = fs::remove_dir_all(&bundle);
    if outcome.is_err() {
        // libcontainer cleans up after most failures, not after all. A cgroup with this worker in it would stay.
        group::leave(cgroups);
        remove::forget(&dir, id.as_str());
        // A scope goes with its last process, which this worker may be.
        if let (false, Ok(cgroup)) = (cgroup.systemd, cgroup_path(&cgroup)) {
            let _ = remove::remove_cgroup(cgroups, &cgroup);
        }
    }
    outcome
}

fn make(
    reporter: &Reporter,
    wanted: CreateContainer,
    given: Given,
    (bundle, own_cgroups): (&std::path::Path, &[PathBuf]),
    enter_cgroup: impl FnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    infra::set_oom_score(wanted.process.oom_score_adj, given.oom_score);
    let mut config = spec::Spec::new(wanted.spec)?;
    config.check_sources(&staged(&wanted.image_volumes, &wanted.idmapped))?;
    let userns = match (&wanted.user, given.infra) {
        (Some(_), Some(pid)) => Some(open_userns(pid)?),
        _ => None,
    };
    let aside = config.set_dev_aside();
    let label = config.take_mount_label();
    // Root of the user namespace may not follow the links of the infra container's process, so they are followed now.
    let _namespaces = config.open_namespaces()?;

    unshare(CloneFlags::CLONE_NEWNS).map_err(failed("make a mount namespace"))?;
    rootfs::isolate(&wanted.rootfs.mountpoint);
    let mapped = userns.as_ref().map(AsFd::as_fd);
    rootfs::mount_rootfs(&wanted.rootfs, mapped, label.as_deref())?;
    for volume in &wanted.image_volumes {
        rootfs::isolate(&volume.mountpoint);
        rootfs::mount_image(&volume.lower, &volume.mountpoint, mapped, label.as_deref())?;
    }
    for volume in &wanted.idmapped {
        rootfs::isolate(&volume.staging);
        let maps = UserNamespace { uids: volume.uids.clone(), gids: volume.gids.clone() };
        match (&userns, &wanted.user) {
            (Some(fd), Some(user)) if *user == maps => {
                rootfs::mount_idmapped(&volume.source, &volume.staging, fd.as_fd())?;
            }
            _ => rootfs::mount_idmapped(&volume.source, &volume.staging, new_userns(&maps)?.as_fd())?,
        }
    }

    config.stage_cgroups(own_cgroups, &given.dir.join("cgroups"))?;

    fs::create_dir_all(bundle).map_err(host(format!("make {}", bundle.display())))?;
    let file = bundle.join("config.json");
    fs::write(&file, config.to_bytes()).map_err(host(format!("write {}", file.display())))?;
    let own_pids = config.has_own_pids();
    let tail = Tail::new(
        LastLeg {
            process: wanted.process,
            seccomp: given.seccomp,
            procfs: open_procfs()?,
            container: wanted.container.as_str().to_owned(),
        },
        Reporter(reporter.0.try_clone().map_err(host("dup"))?),
        wanted.propagation,
        aside,
    );
    trace::collect(reporter).map_err(host("dup"))?;
    // As late as can be: what is done before is not the container's to pay.
    enter_cgroup()?;
    let [stdin, stdout, stderr] = given.stdio;
    let pid = ContainerBuilder::new(wanted.container.as_str().to_owned(), SyscallType::default())
        .with_root_path(state_root(&given.dir))
        .map(|b| b.with_stdin(stdin).with_stdout(stdout).with_stderr(stderr).with_executor(tail))
        .and_then(|b| b.validate_id())
        .and_then(|b| {
            // With the systemd driver the scope is there, and the spec names its folder.
            b.as_init(bundle).with_systemd(false).as_sibling(true).with_detach(true).build()
        })
        .map_err(chain("create the container"))?
        .pid()
        .ok_or_else(|| failed("create the container")("libcontainer knows no process"))?;
    reporter.tell(&Report::Created { pid: pid.as_raw(), own_pids });
    Ok(())
}

/// An error with its causes, which libcontainer's own text leaves out.
fn chain<E: std::error::Error>(operation: &str) -> impl FnOnce(E) -> Failure {
    move |error| {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(next) = cause {
            let more = next.to_string();
            if !text.ends_with(&more) {
                text += ": ";
                text += &more;
            }
            cause = next.source();
        }
        Failure::Host { operation: operation.to_owned(), reason: text }
    }
}

fn staged(
    images: &[crisp_monitor::protocol::ImageVolume],
    mapped: &[crisp_monitor::protocol::IdmappedMount],
) -> Vec<PathBuf> {
    images.iter().map(|i| i.mountpoint.clone()).chain(mapped.iter().map(|m| m.staging.clone())).collect()
}

fn open_userns(pid: i32) -> Result<OwnedFd, Failure> {
    let path = format!("/proc/{pid}/ns/user");
    fs::File::open(&path).map(OwnedFd::from).map_err(host(format!("open {path}")))
}

/// A user namespace with these maps, held by nothing but the descriptor.
fn new_userns(maps: &UserNamespace) -> Result<OwnedFd, Failure> {
    let operation = "make a user namespace for an id-mapped volume";
    let (mut hold, release) = std::io::pipe().map_err(host(operation))?;
    match worker::fork_sibling(libc::CLONE_NEWUSER, None).map_err(host(operation))? {
        None => {
            let _ = worker::keep_only(&[hold.as_raw_fd()]);
            // Until the other side has closed its end.
            let _ = std::io::Read::read(&mut hold, &mut [0]);
            proc::exit_now(0)
        }
        Some(pid) => {
            let opened = namespace::write_id_maps(pid, maps)
                .map_err(host(operation))
                .and_then(|()| open_userns(pid.as_raw()));
            drop(release);
            opened
        }
    }
}
