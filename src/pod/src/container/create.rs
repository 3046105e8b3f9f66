//! CreateContainer: from a configuration to a process that waits to be started.
//!
//! ```text
//!   image -> writable layer (held) -> record (intent) -> spec -> monitor: mounts, namespaces, cgroup -> record (fact)
//! ```
//!
//! A failed step undoes those before it: the monitor forgets the container, the writable layer is freed, the record goes.

use std::{collections::BTreeMap, io, os::fd::AsFd, path::PathBuf, sync::Arc};

use crisp_image::Image;
use crisp_model::{
    ContainerConfig, ContainerId, Mount,
    security::{NamespaceMode, Profile},
    time::Timestamp,
};
use crisp_monitor::protocol::{CreateContainer, IdmappedMount, ImageVolume};
use crisp_spec::{Accounts, CgroupPath, Input, Plan, SandboxFacts, selinux::Labels};
use crisp_store::Durability;

use super::{inputs, monitor};
use crate::{
    context::Context,
    error::PodError,
    owner::{Effect, Operation, Outcome, Reply},
    record::{ContainerRecord, User},
    sandbox::files,
    selinux,
};

/// First processes of the pod's other containers, for `NamespaceMode::Target`.
pub(crate) type Targets = BTreeMap<ContainerId, i32>;

pub(crate) async fn create(op: Operation, config: ContainerConfig, targets: Targets) -> Outcome {
    let id = ContainerId::random();
    match bring_up(&op, &id, config, &targets).await {
        Ok(record) => (Some(Effect::Created(Box::new(record))), Ok(Reply::Container(id))),
        Err(error) => {
            op.stage.enter("undoing what was made");
            undo(&op, &id).await;
            (None, Err(error))
        }
    }
}

async fn undo(op: &Operation, id: &ContainerId) {
    let mut failures: Vec<String> = Vec::new();
    if let Some(monitor) = &op.monitor {
        failures.extend(monitor.delete(id).await.err().map(|e| e.to_string()));
    }
    failures.extend(op.context.images.release_rootfs(id).await.err().map(|e| e.to_string()));
    failures.extend(op.context.containers.remove(id.as_str()).err().map(|e| e.to_string()));
    for failure in failures {
        tracing::error!(container = %id, failure, "undoing CreateContainer");
    }
}

async fn bring_up(
    op: &Operation,
    id: &ContainerId,
    mut config: ContainerConfig,
    targets: &Targets,
) -> Result<ContainerRecord, PodError> {
    let context = &op.context;
    let monitor = monitor(op)?;
    let image =
        context.images.resolve(&config.image).ok_or_else(|| PodError::not_found("image", &config.image))?;
    op.stage.enter(format!("preparing the root file system from {}", image.id));
    let mountpoint = context.pod_dir(&op.sandbox.id).join("rootfs").join(id.as_str());
    let rootfs = context.images.prepare_rootfs(&image.id, id, mountpoint).await?;
    let accounts = accounts(context, &image).await?;
    let volumes = image_volumes(op, id, &config).await?;
    let declared = declared_volumes(op, id, &config, &image).await?;

    op.stage.enter("looking at the sources of mounts and devices");
    let (config, devices) = context
        .blocking(move |_| {
            inputs::settle_volumes(&mut config)?;
            let devices = inputs::devices(&config.devices)?;
            Ok::<_, PodError>((config, devices))
        })
        .await??;

    let mut record = new_record(op, id, config, &image)?;
    let mut planned = (*record.config).clone();
    planned.mounts.extend(declared);
    let labels = labels(op, &planned);
    let facts =
        Facts { op, id, devices: &devices, accounts: &accounts, volumes: &volumes, labels: labels.as_ref() };
    let mut plan = facts.plan(&record, &planned, &image, &rootfs.mountpoint, targets)?;
    let wanted = crisp_spec::cdi::requested(&record.config)?;
    if !wanted.is_empty() {
        op.stage.enter("looking up CDI devices");
        plan = context.blocking(move |_| inputs::inject_cdi(plan, &wanted)).await??;
    }
    if let Some(profile) = plan.process.apparmor_profile.clone() {
        context.blocking(move |_| inputs::check_apparmor(&profile)).await??;
    }
    if let Some(labels) = labels {
        let volumes = selinux::wanted(&planned.mounts);
        op.stage.enter(format!("labelling {} volumes", volumes.len()));
        let label = move || {
            selinux::check(&labels)?;
            selinux::relabel(&volumes, &labels.mount)
        };
        context.blocking(move |_| label()).await??;
    }
    for warning in &plan.warnings {
        tracing::warn!(container = %id, warning, "part of the request has no effect here");
    }
    record.process = plan.process.clone();
    record.user = User { uid: plan.user.uid, gid: plan.user.gid, groups: plan.user.supplemental.clone() };
    let (choice, mut intent) = (plan.seccomp.clone(), record.clone());
    // The intent: a crash from here on leaves a record without a pid, which `recover` undoes.
    let written = context.blocking(move |c| {
        inputs::make_log_folder(intent.log.as_deref())?;
        intent.seccomp = seccomp(c, &intent, &choice)?;
        c.containers.put(intent.id.as_str(), &intent, Durability::Process)?;
        Ok::<_, PodError>(intent)
    });
    record = written.await??;

    op.stage.enter("creating mounts, namespaces and cgroup");
    let request = request(op, &record, plan, rootfs, volumes);
    let program = match &record.seccomp {
        Some(path) => Some(
            std::fs::File::open(path).map_err(|e| PodError::host(format!("open {}", path.display()), e))?,
        ),
        None => None,
    };
    record.pid = Some(monitor.create(request, program.as_ref().map(AsFd::as_fd)).await?);
    let fact = record.clone();
    context.blocking(move |c| c.containers.put(fact.id.as_str(), &fact, Durability::Process)).await??;
    Ok(record)
}

fn new_record(
    op: &Operation,
    id: &ContainerId,
    config: ContainerConfig,
    image: &Image,
) -> Result<ContainerRecord, PodError> {
    let stop_signal = crisp_spec::stop_signal(&config, &image.config)?;
    let log = match (&op.sandbox.config.log_directory, config.log_path.as_str()) {
        (None, _) | (_, "") => None,
        (Some(folder), path) => Some(folder.join(path)),
    };
    let parent = &op.sandbox.config.cgroup_parent;
    let cgroup = op.context.member_cgroup(&op.sandbox.id, parent, id.as_str());
    Ok(ContainerRecord {
        id: id.clone(),
        sandbox: op.sandbox.id.clone(),
        config: Arc::new(config),
        image_id: image.id.clone(),
        image_ref: image.repo_digests.first().unwrap_or(&image.id).clone(),
        created_at: Timestamp::now(),
        pid: None,
        process: Default::default(),
        seccomp: None,
        stop_signal,
        log,
        cgroup,
        user: User::default(),
        started_at: None,
        exit: None,
        failure: None,
    })
}

/// Longest account file that is read: the largest directories have some megabytes.
const ACCOUNTS: u64 = 8 << 20;

/// Texts of the image's account files.
async fn accounts(context: &Context, image: &Arc<Image>) -> Result<Accounts, PodError> {
    let text = |bytes: Option<Vec<u8>>| bytes.map(|b| String::from_utf8_lossy(&b).into_owned());
    let passwd = context.images.read_file(image, "etc/passwd", ACCOUNTS).await?;
    let group = context.images.read_file(image, "etc/group", ACCOUNTS).await?;
    Ok(Accounts { passwd: text(passwd), group: text(group) })
}

/// Image volumes by their path inside: where the monitor mounts the layers, and the folder in them that is bound.
type Volumes = BTreeMap<String, (ImageVolume, PathBuf)>;

async fn image_volumes(
    op: &Operation,
    id: &ContainerId,
    config: &ContainerConfig,
) -> Result<Volumes, PodError> {
    let mut volumes = Volumes::new();
    for (index, mount) in config.mounts.iter().enumerate() {
        let Some(reference) = &mount.image else { continue };
        let volume = op.context.images.prepare_volume(reference, id, &mount.image_sub_path).await?;
        let base = op.context.pod_dir(&op.sandbox.id).join("volumes").join(format!("{id}-{index}"));
        let source = base.join(&volume.sub_path);
        volumes.insert(
            mount.container_path.clone(),
            (ImageVolume { lower: volume.lower, mountpoint: base }, source),
        );
    }
    Ok(volumes)
}

/// Paths that belong to the kernel's file systems, which no image may cover.
const KERNEL: [&str; 3] = ["/proc", "/sys", "/dev"];

/// The volumes that the image declares and the request has nothing of its own for: each a folder that lives as long as the
/// container. They are no part of the request, and its status does not list them.
async fn declared_volumes(
    op: &Operation,
    id: &ContainerId,
    config: &ContainerConfig,
    image: &Arc<Image>,
) -> Result<Vec<Mount>, PodError> {
    let mut mounts = Vec::new();
    for (number, path) in image.config.volumes.iter().enumerate() {
        let Some(path) = crisp_spec::clean(path).filter(|path| path != "/") else {
            tracing::warn!(container = %id, path, "the image declares a volume that is no path below its root");
            continue;
        };
        let kernel = KERNEL.iter().any(|own| std::path::Path::new(&path).starts_with(own));
        let requested = |mount: &Mount| crisp_spec::clean(&mount.container_path).as_ref() == Some(&path);
        if kernel || config.mounts.iter().any(requested) {
            continue;
        }
        op.stage.enter(format!("copying the image's volume {path}"));
        let host_path = op.context.images.fill_volume(image, id, number, &path).await?;
        let user = config.security.namespaces.user.clone().unwrap_or_default();
        let (uid_mappings, gid_mappings) = (user.uids, user.gids);
        mounts.push(Mount {
            container_path: path,
            host_path,
            uid_mappings,
            gid_mappings,
            selinux_relabel: true,
            ..Mount::default()
        });
    }
    Ok(mounts)
}

/// The container's SELinux labels. None, if SELinux is off now, or was when the pod was made.
fn labels(op: &Operation, config: &ContainerConfig) -> Option<Labels> {
    let pod = op.sandbox.selinux.as_ref().filter(|_| op.context.selinux.is_some())?;
    Some(pod.of_container(&op.sandbox.config.security, &config.security))
}

/// What the plan is made of beside the request.
struct Facts<'a> {
    op: &'a Operation,
    id: &'a ContainerId,
    devices: &'a BTreeMap<PathBuf, crisp_spec::DeviceNode>,
    accounts: &'a Accounts,
    volumes: &'a Volumes,
    labels: Option<&'a Labels>,
}

impl Facts<'_> {
    fn plan(
        &self,
        record: &ContainerRecord,
        config: &ContainerConfig,
        image: &Image,
        mountpoint: &std::path::Path,
        targets: &Targets,
    ) -> Result<Plan, PodError> {
        let labels = self.labels;
        let (process, mount) = (labels.map(|l| l.process.to_string()), labels.map(|l| l.mount.to_string()));
        let context = &self.op.context;
        let sandbox = &self.op.sandbox;
        let dir = context.pod_dir(&sandbox.id);
        let namespaces = &sandbox.config.security.namespaces;
        let (shm, resolv, hostname) = (dir.join("shm"), dir.join("resolv.conf"), dir.join("hostname"));
        let host_name = files::hostname(&sandbox.config);
        let infra = sandbox
            .infra
            .as_ref()
            .ok_or_else(|| PodError::not_found("infra container of sandbox", &sandbox.id))?;
        let target_pid = match &record.config.security.namespaces.pid {
            NamespaceMode::Target(id) => {
                let pid = targets.get(id).copied();
                Some(pid.ok_or_else(|| PodError::not_found("target container", id))?)
            }
            _ => None,
        };
        let image_volumes =
            self.volumes.iter().map(|(path, (_, source))| (path.clone(), source.clone())).collect();
        let cgroup = CgroupPath { oci: record.cgroup.clone(), folder: record.cgroup.clone() };
        let input = Input {
            sandbox: &sandbox.config,
            sandbox_facts: SandboxFacts {
                id: &sandbox.id,
                infra_pid: infra.pid,
                shm: (namespaces.ipc == NamespaceMode::Pod).then_some(&shm),
                resolv_conf: Some(&resolv),
                hostname: Some(&hostname),
                hosts: None,
                host_name: &host_name,
                selinux_process: process.as_deref(),
                selinux_mount: mount.as_deref(),
            },
            container: config,
            container_id: self.id,
            image: &image.config,
            accounts: self.accounts,
            host: &context.host,
            target_pid,
            rootfs_mountpoint: mountpoint,
            cgroup: &cgroup,
            devices: self.devices,
            image_volumes: &image_volumes,
            idmap_staging: &dir.join("idmapped").join(self.id.as_str()),
        };
        Ok(crisp_spec::container(&input)?)
    }
}

/// Compiles the filter and keeps it as a file in the pod's folder, which execs use too, also after a restart of the daemon;
/// `None`: unconfined. Blocks.
fn seccomp(
    context: &Context,
    record: &ContainerRecord,
    choice: &Profile,
) -> Result<Option<PathBuf>, PodError> {
    use crisp_spec::seccomp::{MAX_PROFILE, Machine, default_profile, filter};
    let read = |path: &str| {
        let mut text = String::new();
        let file = std::fs::File::open(path)?;
        io::Read::read_to_string(&mut io::Read::take(file, MAX_PROFILE as u64 + 1), &mut text)?;
        Ok(text)
    };
    let machine = Machine::native(context.kernel);
    let capabilities = &record.process.capabilities.bounding;
    let Some(filter) = filter(choice, default_profile(), capabilities, &machine, read)? else {
        return Ok(None);
    };
    let failed = |e: &dyn std::fmt::Display| PodError::host("compile the seccomp profile", e);
    let program = context.seccomp.compile(&filter).map_err(|e| PodError::Invalid {
        object: "config.linux.security_context.seccomp".into(),
        reason: e.to_string(),
    })?;
    for call in &program.unknown {
        tracing::debug!(container = %record.id, call, "unknown in this seccomp profile");
    }
    let path = context.pod_dir(&record.sandbox).join(format!("{}.bpf", record.id));
    let copy = || {
        let mut from = std::fs::File::from(program.open()?);
        io::copy(&mut from, &mut std::fs::File::create(&path)?)
    };
    copy().map_err(|e| failed(&e))?;
    Ok(Some(path))
}

fn request(
    op: &Operation,
    record: &ContainerRecord,
    plan: Plan,
    rootfs: crisp_model::image::Rootfs,
    volumes: Volumes,
) -> CreateContainer {
    let (sandbox, limits) = (&op.sandbox, record.config.resources.clone());
    let parent = &sandbox.config.cgroup_parent;
    CreateContainer {
        container: record.id.clone(),
        spec: plan.spec,
        process: plan.process,
        rootfs,
        image_volumes: volumes.into_values().map(|(volume, _)| volume).collect(),
        idmapped: plan
            .idmapped
            .into_iter()
            .map(|m| IdmappedMount { source: m.source, staging: m.staging, uids: m.uids, gids: m.gids })
            .collect(),
        user: op.sandbox.config.security.namespaces.user.clone(),
        propagation: plan.propagation,
        seccomp: record.seccomp.is_some(),
        stdin: record.config.stdin,
        log: record.log.clone(),
        cgroup: op.context.member_cgroup_request(&sandbox.id, parent, record.id.as_str(), limits),
    }
}
