//! `crisp serve`: puts the daemon together, in an order that has no half-open doors.
//!
//! ```text
//!   configuration, host facts -> stores -> images, network -> pods recovered -> stream server -> socket -> READY=1
//!                                                                                                     \-> sweep
//! ```
//!
//! The socket is opened when lists and execs tell the truth. Nothing here is needed for pods to go on running: a daemon that is
//! killed leaves its monitors, and the next one finds them.

use std::{
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use crisp_host::{cgroup::CgroupFs, file, mountpoint, probe::Host, seccomp::SeccompCache};
use crisp_image::ImageStore;
use crisp_network::Network;
use crisp_observe::{
    events::EventBus,
    stats::{Options, Sampler},
};
use crisp_pod::{Context, Pods, PodsConfig, recover};
use crisp_proto::v1::{
    image_service_server::ImageServiceServer, runtime_service_server::RuntimeServiceServer,
};
use crisp_stream::StreamServer;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;

use crate::{admin, config::Config, facts, layer::Observe, notify, scrape, services::Services};

/// Largest message of a request: what the kubelet and its client library allow.
pub(crate) const MAX_MESSAGE: usize = 16 << 20;

/// How long a killed daemon's threads may take to end, and its lock with them.
const LAST_BREATH: Duration = Duration::from_secs(10);

/// Runs the daemon until SIGTERM or SIGINT.
pub async fn serve(config: Config) -> anyhow::Result<()> {
    let drain = config.drain_timeout.0;
    let config = Arc::new(config);
    let state = &config.state;
    make_folder(state, 0o711)?;
    let _lock = only_one(state)?;
    mountpoint::make_private(state).with_context(|| format!("make {} a private mount", state.display()))?;
    make_folder(&config.root, 0o711)?;
    file::private_folder(&state.join("netns"))?;
    let services = assemble(config.clone()).await?;
    let listener = listen(&config.socket)?;
    tokio::spawn(admin::serve(listen(&admin::socket(state))?, services.images.clone()));
    if let Some(folder) = &config.image.import_dir {
        tokio::spawn(admin::preload(services.images.clone(), folder.clone()));
    }
    if let Some(address) = config.metrics.address {
        scrape::serve(address, services.clone()).await.context("serve metrics")?;
    }
    tracing::info!(socket = %config.socket.display(), version = env!("CARGO_PKG_VERSION"), "serving");
    notify::ready();
    let sweeper = services.pods.clone();
    tokio::spawn(async move { recover::sweep(&sweeper).await });
    let server = tonic::transport::Server::builder()
        .layer(Observe(services.pods.context().metrics.clone()))
        .add_service(
            RuntimeServiceServer::new(services.clone())
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE),
        )
        .add_service(
            ImageServiceServer::new(services)
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE),
        );
    let (stopped, stopping) = tokio::sync::oneshot::channel::<()>();
    let serving = server.serve_with_incoming_shutdown(UnixListenerStream::new(listener), async {
        let _ = stopping.await;
    });
    tokio::pin!(serving);
    tokio::select! {
        result = &mut serving => result.context("serve the CRI")?,
        signal = terminated() => {
            tracing::info!(signal, "stopping; pods go on running");
            notify::stopping();
            let _ = stopped.send(());
            if tokio::time::timeout(drain, serving).await.is_err() {
                tracing::warn!("requests were still running and are cut off; repeated requests join their operations");
            }
        }
    }
    let _ = std::fs::remove_file(&config.socket);
    Ok(())
}

async fn terminated() -> &'static str {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => "SIGTERM",
        _ = int.recv() => "SIGINT",
    }
}

fn make_folder(path: &Path, mode: u32) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(mode).create(path);
    made.with_context(|| format!("make folder {}", path.display()))
}

/// Two daemons on one state would undo each other's pods. One that was killed a moment ago may still be on its way out.
fn only_one(state: &Path) -> anyhow::Result<nix::fcntl::Flock<std::fs::File>> {
    use nix::{errno::Errno, fcntl::Flock, fcntl::FlockArg};
    let path = state.join("lock");
    let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let mut file = file.with_context(|| format!("open {}", path.display()))?;
    let deadline = std::time::Instant::now() + LAST_BREATH;
    loop {
        let errno = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((back, Errno::EWOULDBLOCK)) if std::time::Instant::now() < deadline => {
                file = back;
                std::thread::sleep(Duration::from_millis(2));
                continue;
            }
            Err((_, errno)) => errno,
        };
        anyhow::bail!("{}: another crisp serves on {} ({errno})", path.display(), state.display());
    }
}

/// The socket, mode 0600. One that a dead daemon left is replaced.
fn listen(path: &Path) -> anyhow::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("remove {}", path.display()))?
        }
        _ => {}
    }
    if let Some(folder) = path.parent() {
        make_folder(folder, 0o711)?;
    }
    // Bound under another name until its mode is right: nobody connects in between.
    let temporary = path.with_extension("new");
    let _ = std::fs::remove_file(&temporary);
    let listener = UnixListener::bind(&temporary).with_context(|| format!("bind {}", temporary.display()))?;
    std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&temporary, path).with_context(|| format!("rename to {}", path.display()))?;
    Ok(listener)
}

async fn assemble(config: Arc<Config>) -> anyhow::Result<Services> {
    // Mounts and unmounts overlays: as long as reading everything else.
    let (root, state) = (config.root.clone(), config.state.clone());
    let probing = tokio::task::spawn_blocking(move || Arc::new(Host::probe(&root, &state)));
    let cgroups = CgroupFs::detect().context("find the control groups of this host")?;
    let (sandboxes, containers, records) = recover::open_stores(&config.root).context("open the records")?;
    let (images, network) =
        tokio::join!(ImageStore::open(config.image_store()), Network::open(config.pod_network()));
    let (images, report) = images.context("open the image store")?;
    tracing::info!(?report, "image store");
    let network = network.context("open the pod network")?;
    // A boot begins the events anew.
    let events = EventBus::open(&config.state.join("events")).context("open the event log")?;
    let host = probing.await.context("look at the host")?;
    let selinux = facts::selinux(&host, config.security.selinux);
    let context = Context {
        config: pods_config(&config, &host)?,
        images: images.clone(),
        network: network.clone(),
        host: facts::spec_facts(&host, &cgroups, selinux.is_some()),
        selinux,
        seccomp: SeccompCache::default(),
        events,
        metrics: Arc::default(),
        stats: Sampler::new(cgroups.clone(), Options::default()),
        cgroups,
        sandboxes,
        containers,
        registry: Default::default(),
        kernel: host.kernel_version(),
        boot_id: std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .context("read the boot id")?
            .trim()
            .to_owned(),
    };
    let pods = Pods::new(Arc::new(context));
    recover::recover(&pods, records).await;
    let streams = StreamServer::start(config.stream_server()?, Arc::new(pods.clone()))
        .await
        .context("start the stream server")?;
    Ok(Services { pods, images, network, streams: Arc::new(streams), config, host })
}

fn pods_config(config: &Config, host: &Host) -> anyhow::Result<PodsConfig> {
    Ok(PodsConfig {
        state: config.state.clone(),
        root: config.root.clone(),
        monitor: monitor_binary(config)?,
        default_cgroup_parent: config.cgroup.default_parent.clone(),
        systemd_cgroup: config.systemd_cgroup(host),
        exec_output_limit: usize::try_from(config.exec_sync_output_limit.0).unwrap_or(usize::MAX),
        // A chain has a handful of plugins, each with its own deadline, whose error names it: that one must come first.
        network_deadline: config.network.del_timeout.0.saturating_mul(5),
    })
}

/// The monitor: as configured, else beside this program.
fn monitor_binary(config: &Config) -> anyhow::Result<PathBuf> {
    let path = config.monitor_path(&std::env::current_exe().context("find this program")?);
    let hint = "Hint: set `monitor` in the configuration";
    anyhow::ensure!(path.is_file(), "{}: no crisp-monitor there. {hint}", path.display());
    Ok(path)
}
