//! Starting a monitor, and finding one that runs.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            fs::{OpenOptionsExt, PermissionsExt},
            net::{UnixListener, UnixStream},
            process::CommandExt,
        },
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use crisp_host::process::sealed_program;
use crisp_model::SandboxId;

use super::MonitorError;

/// Name of the socket in a pod's folder.
pub(super) const SOCKET: &str = "monitor.sock";
/// Name of the file that takes what the monitor has to say, in a pod's folder.
const LOG: &str = "monitor.log";

/// How to start a monitor.
#[derive(Debug, Clone)]
pub struct SpawnOptions {
    /// The program, `crisp-monitor`.
    pub binary: PathBuf,
    /// The pod's folder under `/run`; it exists and is the daemon's own.
    pub dir: PathBuf,
    /// The pod.
    pub sandbox: SandboxId,
}

/// Starts the program with the listening socket as its standard input. The connection waits in the backlog, so this does
/// not wait for the program to be up.
pub(super) fn spawn(options: &SpawnOptions) -> Result<UnixStream, MonitorError> {
    let failed = |operation: &str, path: &Path| {
        let operation = format!("{operation} {}", path.display());
        move |source| MonitorError::Spawn { operation, source }
    };
    let listener = bind(&options.dir).map_err(failed("bind the monitor's socket in", &options.dir))?;
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(options.dir.join(LOG))
        .map_err(failed("open the monitor's log in", &options.dir))?;
    let stream = connect_in(&options.dir).map_err(failed("connect to the monitor in", &options.dir))?;
    let mut child = start(options, listener, log).map_err(failed("start", &options.binary))?;
    tokio::spawn(async move {
        // Only so that no zombie stays; that the monitor has gone is seen on its connection.
        let _ = child.wait().await;
    });
    Ok(stream)
}

/// Executes the sealed copy, or the file itself where programs in memory are forbidden (`vm.memfd_noexec`).
fn start(options: &SpawnOptions, listener: UnixListener, log: File) -> io::Result<tokio::process::Child> {
    let run = |program: &Path| -> io::Result<tokio::process::Child> {
        let mut command = Command::new(program);
        command
            .arg0(&options.binary)
            .arg(&options.dir)
            .arg(options.sandbox.as_str())
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(listener.try_clone()?)))
            .stdout(Stdio::null())
            .stderr(Stdio::from(log.try_clone()?));
        // Neither pre_exec nor a user is set, so std uses posix_spawn: no copy of the daemon's page tables.
        tokio::process::Command::from(command).kill_on_drop(false).spawn()
    };
    if let Some(copy) = sealed_copy(&options.binary) {
        match run(Path::new(&format!("/proc/self/fd/{}", copy.as_raw_fd()))) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                tracing::debug!(%error, "programs in memory may not be run here");
            }
            other => return other,
        }
    }
    run(&options.binary)
}

/// A copy of the program in memory that nobody can change any more, made once: a container that gets hold of the program through
/// a process that is about to become its own (`/proc/self/exe`) cannot write to it, not even when no monitor runs any longer.
/// All monitors that this process starts share its pages.
fn sealed_copy(binary: &Path) -> Option<&'static OwnedFd> {
    static COPY: OnceLock<(PathBuf, Option<OwnedFd>)> = OnceLock::new();
    let (of, copy) = COPY.get_or_init(|| {
        let copy = std::fs::read(binary).and_then(|content| sealed_program(c"crisp-monitor", &content));
        if let Err(error) = &copy {
            tracing::warn!(%error, binary = %binary.display(), "no sealed copy of the monitor could be made");
        }
        (binary.to_owned(), copy.ok())
    });
    // One daemon has one; a process that starts several kinds (a test) runs the others as they are.
    copy.as_ref().filter(|_| of == binary)
}

/// Connects to the monitor whose socket is in `dir`.
pub(super) fn connect(dir: &Path) -> Result<UnixStream, MonitorError> {
    connect_in(dir).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => MonitorError::Gone,
        _ => {
            MonitorError::Spawn { operation: format!("connect to the monitor in {}", dir.display()), source }
        }
    })
}

fn bind(dir: &Path) -> io::Result<UnixListener> {
    let folder = File::open(dir)?;
    let path = through(&folder);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn connect_in(dir: &Path) -> io::Result<UnixStream> {
    let folder = File::open(dir)?;
    UnixStream::connect(through(&folder))
}

/// A name of the socket that fits in the 108 bytes of `sockaddr_un` however long the folder's name is.
fn through(folder: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()))
}
