//! A private place for one test: network and mount namespaces, folders, a registry with the test images, and the daemon.
//!
//! Everything is a child of the test by pid or lives in the namespaces, so that nothing stays when the [`Bed`] is dropped, however the
//! test ends. Binaries come from `CRISP_BIN` and `CRISP_MONITOR_BIN`, images and tools from `CRISP_CACHE`; `hack/test.sh` sets them.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::client::Cri;

/// Settings of a bed.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// Lines added to the configuration, after its top-level keys.
    pub config: String,
    /// CNI configuration by file name; none: the built-in network.
    pub cni: Vec<(String, String)>,
}

/// See the module.
#[derive(Debug)]
pub struct Bed {
    /// Everything on disk is below it.
    pub folder: PathBuf,
    /// cgroup of all pods of this bed.
    pub cgroup: String,
    holder: Child,
    registry: Child,
    daemon: Option<Child>,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

/// This crate in the checkout that runs the test, which a program that was built in another one does not know.
pub fn manifest_folder() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it for tests").into()
}

fn cache() -> PathBuf {
    match std::env::var_os("CRISP_CACHE") {
        Some(path) => path.into(),
        None => Path::new(&std::env::var_os("HOME").unwrap_or_default()).join(".cache/crisp"),
    }
}

fn binary(variable: &str, name: &str) -> Result<PathBuf> {
    let path = std::env::var_os(variable).map_or_else(|| cache().join("out").join(name), PathBuf::from);
    if !path.is_file() {
        bail!("{}: not there; build it with hack/build.sh or set {variable}", path.display());
    }
    Ok(path)
}

/// What a failed wait says after so long. Generous: a slow machine is no failure, a hang is.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Looks until `check` has something; for what no event tells (another program's files and sockets).
pub async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> Result<T> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = check().await {
            return Ok(found);
        }
        if tokio::time::Instant::now() > deadline {
            bail!("{what}: not within {} s", PATIENCE.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

impl Bed {
    /// A bed with a daemon that serves.
    pub async fn new(wishes: Wishes) -> Result<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("crisp-test-{}-{number}", std::process::id());
        let folder = PathBuf::from("/var/tmp").join(&name);
        for sub in ["certs.d/_default", "cni", "logs"] {
            std::fs::create_dir_all(folder.join(sub))?;
        }
        for (file, text) in &wishes.cni {
            std::fs::write(folder.join("cni").join(file), text)?;
        }
        let hosts = "server = \"http://127.0.0.1:5000\"\n[host.\"http://127.0.0.1:5000\"]\ncapabilities = [\"pull\", \"resolve\"]\n";
        std::fs::write(folder.join("certs.d/_default/hosts.toml"), hosts)?;
        let holder = hold_namespaces()?;
        let cgroup = format!("/{name}");
        let registry = start_registry(&holder, &folder)?;
        let mut bed = Self { folder, cgroup, holder, registry, daemon: None };
        bed.configure(&wishes)?;
        bed.fill_registry().await?;
        bed.start_daemon().await?;
        Ok(bed)
    }

    /// Pid of the process that holds the namespaces.
    pub fn holder(&self) -> u32 {
        self.holder.id()
    }

    /// Pid of the daemon.
    pub fn daemon_pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(Child::id)
    }

    /// A command inside the bed's namespaces.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        inside(&self.holder, program)
    }

    /// Runs a command inside and gives its output; a failure is an error.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output =
            self.command(program).args(arguments).output().with_context(|| format!("start {program}"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!(
                "{program} {arguments:?}: {}: {text}{}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(text)
    }

    /// The daemon's socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("run/crisp.sock")
    }

    /// Folder for logs of pods.
    pub fn logs(&self) -> PathBuf {
        self.folder.join("logs")
    }

    fn configure(&self, wishes: &Wishes) -> Result<()> {
        let folder = self.folder.display();
        let monitor = binary("CRISP_MONITOR_BIN", "crisp-monitor")?;
        let text = format!(
            "root = \"{folder}/lib\"\nstate = \"{folder}/run\"\nsocket = \"{folder}/run/crisp.sock\"\nmonitor = \"{}\"\n{}\n\
             [image]\ncerts_dirs = [\"{folder}/certs.d\"]\n[network]\ncni_conf_dir = \"{folder}/cni\"\n\
             [cgroup]\ndriver = \"cgroupfs\"\ndefault_parent = \"{}\"\n[log]\nlevel = \"debug\"\n",
            monitor.display(),
            wishes.config,
            self.cgroup,
        );
        Ok(std::fs::write(self.folder.join("config.toml"), text)?)
    }

    async fn fill_registry(&self) -> Result<()> {
        let ready = async || {
            let out = self.command("curl").args(["-sf", "http://127.0.0.1:5000/v2/"]).output().ok()?;
            out.status.success().then_some(())
        };
        eventually("the registry answers", ready).await?;
        let push = manifest_folder().join("images/push.py");
        let images = cache().join("images");
        self.run("python3", &[&push.to_string_lossy(), &images.to_string_lossy(), "http://127.0.0.1:5000"])?;
        Ok(())
    }

    /// Starts the daemon and waits until it answers.
    pub async fn start_daemon(&mut self) -> Result<()> {
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(self.folder.join("daemon.log"))?;
        let daemon = self
            .command(binary("CRISP_BIN", "crisp")?)
            .arg("serve")
            .arg("--config")
            .arg(self.folder.join("config.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start the daemon")?;
        self.daemon = Some(daemon);
        let socket = self.socket();
        let up =
            eventually("the daemon answers", async || Cri::connect(&socket).await.ok()?.version().await.ok())
                .await;
        up.map(|_| ()).with_context(|| format!("its log ends: {}", self.log_tail()))
    }

    /// The last lines of the daemon's log.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.folder.join("daemon.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(8).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// A client of the daemon.
    pub async fn client(&self) -> Result<Cri> {
        Cri::connect(&self.socket()).await
    }

    /// kill -9.
    pub fn kill_daemon(&mut self) -> Result<()> {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill()?;
            daemon.wait()?;
        }
        Ok(())
    }

    /// Pids of all processes in the bed's namespaces but the holder, registry and daemon.
    pub fn strays(&self) -> Vec<i32> {
        let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        let cgroup = |pid: &str| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            text.contains(&self.cgroup)
        };
        let own = namespace(&self.holder.id().to_string());
        let known = [Some(self.holder.id()), Some(self.registry.id()), self.daemon_pid()];
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name.bytes().all(|b| b.is_ascii_digit()))
            .filter(|pid| (own.is_some() && namespace(pid) == own) || cgroup(pid))
            .filter_map(|pid| pid.parse::<i32>().ok())
            .filter(|pid| !known.contains(&u32::try_from(*pid).ok()))
            .collect()
    }
}

fn inside(holder: &Child, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["-t", &holder.id().to_string(), "-n", "-m", "--"]).arg(program);
    command.env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1");
    command
}

fn hold_namespaces() -> Result<Child> {
    let script = "mount --make-rshared / && ip link set lo up && echo ready && exec sleep infinity";
    let mut holder = Command::new("unshare")
        .args(["--net", "--mount", "--propagation", "private", "sh", "-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("unshare")?;
    let mut line = String::new();
    if let Some(stdout) = holder.stdout.take() {
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line)?;
    }
    if line != "ready\n" {
        let _ = holder.kill();
        let _ = holder.wait();
        bail!("the namespaces were not made: {line:?}");
    }
    Ok(holder)
}

fn start_registry(holder: &Child, folder: &Path) -> Result<Child> {
    let unpacked = cache().join("debs/docker-registry/usr/bin/docker-registry");
    let program = if unpacked.is_file() { unpacked } else { PathBuf::from("docker-registry") };
    let storage = folder.join("registry");
    let config = folder.join("registry.yml");
    let text = format!(
        "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
         storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\nhttp: {{addr: \"127.0.0.1:5000\"}}\n",
        storage.display()
    );
    std::fs::write(&config, text)?;
    let log = std::fs::File::create(folder.join("registry.log"))?;
    let mut command = inside(holder, program);
    command.arg("serve").arg(&config).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().context("start docker-registry")
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = self.kill_daemon();
        for pid in self.strays() {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        for child in [&mut self.registry, &mut self.holder] {
            let _ = child.kill();
            let _ = child.wait();
        }
        remove_cgroups(&self.cgroup);
        if std::thread::panicking() {
            eprintln!(
                "kept for a look: {}; its daemon's log ends:\n{}",
                self.folder.display(),
                self.log_tail()
            );
        } else {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// Folders of a cgroup in every hierarchy.
pub fn cgroup_folders(cgroup: &str) -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let point = fields.next()?;
        matches!(fields.next()?, "cgroup" | "cgroup2").then(|| format!("{point}{cgroup}"))
    });
    points.map(PathBuf::from).filter(|p| p.is_dir()).collect()
}

fn remove_cgroups(cgroup: &str) {
    fn remove(folder: &Path) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                remove(&entry.path());
            }
        }
        // Processes that were killed a moment ago may still be on their way out.
        for _ in 0..200 {
            match std::fs::remove_dir(folder) {
                Err(e) if e.raw_os_error() == Some(nix::libc::EBUSY) => {
                    std::thread::sleep(Duration::from_millis(5))
                }
                _ => return,
            }
        }
    }
    cgroup_folders(cgroup).iter().for_each(|folder| remove(folder));
}
