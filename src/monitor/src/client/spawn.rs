//! Starting a monitor, and finding one that runs.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            fs::{OpenOptionsExt, PermissionsExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

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
    let mut command = Command::new(&options.binary);
    command
        .arg(&options.dir)
        .arg(options.sandbox.as_str())
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stdout(Stdio::null())
        .stderr(Stdio::from(log));
    // Neither pre_exec nor a user is set, so std uses posix_spawn: no copy of the daemon's page tables.
    let mut child = tokio::process::Command::from(command)
        .kill_on_drop(false)
        .spawn()
        .map_err(failed("start", &options.binary))?;
    tokio::spawn(async move {
        // Only so that no zombie stays; that the monitor has gone is seen on its connection.
        let _ = child.wait().await;
    });
    Ok(stream)
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
