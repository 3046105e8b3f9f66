//! A pod of its own for each test: the real binary, driven through the client, as root.
//!
//! Everything lies in a temporary folder and in cgroups below `/crisp-test-<pid>-<n>`; dropping the pod ends it and removes both,
//! also when the test has failed.
#![allow(dead_code, reason = "every test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::{
    fs,
    io::Read,
    os::{fd::OwnedFd, unix::fs::symlink},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use crisp_host::cgroup::CgroupFs;
use crisp_model::{
    ContainerId, ExecId, ExitStatus, SandboxId,
    image::Rootfs,
    process::{CapabilitySets, Process},
    security::UserNamespace,
};
use crisp_monitor::{
    Exec, Monitor, MonitorError, SpawnOptions,
    protocol::{Cgroup, CreateContainer, Event, Infra, StartExec, StartInfra},
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// Longest that anything in a test may take; a hang fails the test instead of the machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub const CAPS: [&str; 9] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
];

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A pod.
pub struct Pod {
    pub monitor: Monitor,
    pub events: mpsc::Receiver<Event>,
    pub dir: PathBuf,
    pub sandbox: SandboxId,
    pub cgroup: String,
    pub infra: Option<Infra>,
    pub user: Option<UserNamespace>,
    pub shares_pids: bool,
    folder: tempfile::TempDir,
    ended: bool,
}

/// A layer with a busybox and the folders that a container needs.
pub fn layer(folder: &Path) -> PathBuf {
    let layer = folder.join("layer");
    for dir in ["bin", "dev", "etc", "proc", "sys", "tmp", "home/user"] {
        fs::create_dir_all(layer.join(dir)).unwrap();
    }
    fs::copy("/bin/busybox", layer.join("bin/busybox")).expect("busybox-static is needed");
    let list = Command::new("/bin/busybox").arg("--list").output().unwrap().stdout;
    for name in String::from_utf8(list).unwrap().lines().filter(|n| *n != "busybox") {
        symlink("busybox", layer.join("bin").join(name)).unwrap();
    }
    fs::write(layer.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n")
        .unwrap();
    fs::set_permissions(layer.join("tmp"), std::os::unix::fs::PermissionsExt::from_mode(0o1777)).unwrap();
    layer
}

pub fn shell(script: &str) -> Process {
    process(&["sh", "-c", script])
}

pub fn process(args: &[&str]) -> Process {
    let caps: Vec<String> = CAPS.iter().map(|c| (*c).to_owned()).collect();
    Process {
        args: args.iter().map(|a| (*a).to_owned()).collect(),
        env: vec![b"PATH=/bin".to_vec(), b"HOME=/root".to_vec()],
        cwd: "/".into(),
        capabilities: CapabilitySets {
            bounding: caps.clone(),
            effective: caps.clone(),
            permitted: caps,
            ..CapabilitySets::default()
        },
        ..Process::default()
    }
}

impl Pod {
    /// Starts a monitor.
    #[cfg(test)]
    pub async fn bare() -> Self {
        Self::bare_with(Path::new(env!("CARGO_BIN_EXE_crisp-monitor"))).await
    }

    /// Starts this monitor.
    pub async fn bare_with(binary: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("run");
        fs::create_dir(&dir).unwrap();
        let sandbox = SandboxId::random();
        let options = SpawnOptions { binary: binary.to_owned(), dir: dir.clone(), sandbox: sandbox.clone() };
        let (monitor, events) = Monitor::spawn(options).await.unwrap();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        layer(folder.path());
        Self {
            monitor,
            events,
            dir,
            sandbox,
            cgroup: format!("/crisp-test-{}-{number}", std::process::id()),
            infra: None,
            user: None,
            shares_pids: false,
            folder,
            ended: false,
        }
    }

    /// Starts a monitor and an infra container with namespaces of its own.
    #[cfg(test)]
    pub async fn start() -> Self {
        let mut pod = Self::bare().await;
        pod.start_infra(|_| {}).await.unwrap();
        pod
    }

    pub async fn start_infra(&mut self, change: impl FnOnce(&mut StartInfra)) -> Result<Infra, MonitorError> {
        let mut wanted = StartInfra {
            network: true,
            ipc: true,
            uts: true,
            hostname: "a-pod".into(),
            cgroup: self.group("infra"),
            ..StartInfra::default()
        };
        change(&mut wanted);
        let infra = within(self.monitor.start_infra(wanted.clone())).await?;
        self.infra = Some(infra.clone());
        self.user = wanted.user;
        self.shares_pids = wanted.pid;
        Ok(infra)
    }

    pub fn group(&self, name: &str) -> Cgroup {
        Cgroup { path: format!("{}/{name}", self.cgroup), ..Cgroup::default() }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn layer(&self) -> PathBuf {
        self.folder().join("layer")
    }

    pub fn log(&self, container: &ContainerId) -> PathBuf {
        self.folder().join(format!("{}.log", container.short()))
    }

    /// The log as its lines' content, with `stdout`/`stderr` in front.
    pub fn log_lines(&self, container: &ContainerId) -> Vec<String> {
        let text = fs::read_to_string(self.log(container)).unwrap();
        text.split_terminator('\n')
            .map(|line| {
                let mut fields = line.splitn(4, ' ');
                let (time, stream) = (fields.next().unwrap(), fields.next().unwrap());
                assert!(time.ends_with('Z') && time.len() == 30, "{line}");
                assert!(matches!(fields.next(), Some("F" | "P")), "{line}");
                format!("{stream} {}", fields.next().unwrap())
            })
            .collect()
    }

    /// What a container is made of: a shell script in the pod's namespaces, without a network of the host.
    pub fn container(&self, process: Process) -> CreateContainer {
        let container = ContainerId::random();
        let root = self.folder().join(container.short());
        for dir in ["upper", "work"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        let rootfs = Rootfs {
            lower: vec![self.layer()],
            upper: root.join("upper"),
            work: root.join("work"),
            mountpoint: root.join("rootfs"),
        };
        let cgroup = self.group(container.short());
        CreateContainer {
            spec: self.spec(&rootfs.mountpoint, &cgroup.path),
            log: Some(self.log(&container)),
            container,
            process,
            rootfs,
            image_volumes: vec![],
            idmapped: vec![],
            user: self.user.clone(),
            propagation: vec![],
            seccomp: false,
            stdin: false,
            cgroup,
        }
    }

    fn spec(&self, rootfs: &Path, cgroup: &str) -> Value {
        let pid = self.infra.as_ref().map_or(0, |i| i.pid);
        let join = |kind: &str, file: &str| json!({"type": kind, "path": format!("/proc/{pid}/ns/{file}")});
        let mut namespaces = vec![
            json!({"type": "mount"}),
            json!({"type": "cgroup"}),
            join("network", "net"),
            join("ipc", "ipc"),
            join("uts", "uts"),
        ];
        namespaces.push(if self.shares_pids { join("pid", "pid") } else { json!({"type": "pid"}) });
        if self.user.is_some() {
            namespaces.push(join("user", "user"));
        }
        json!({
            "ociVersion": "1.1.0",
            "root": {"path": rootfs},
            "process": {"terminal": false, "user": {"uid": 0, "gid": 0}, "args": ["/"],
                        "env": ["PATH=/", "HOME=/"], "cwd": "/"},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                 "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                 "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
                {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            ],
            "linux": {
                "cgroupsPath": cgroup,
                "rootfsPropagation": "private",
                // As in crisp's specs: nodes may be made, and few be used, terminals among them.
                "resources": {"devices": [
                    {"allow": false, "access": "rwm"},
                    {"allow": true, "type": "c", "access": "m"},
                    {"allow": true, "type": "c", "major": 1, "access": "rw"},
                    {"allow": true, "type": "c", "major": 5, "access": "rw"},
                    {"allow": true, "type": "c", "major": 136, "access": "rw"},
                ]},
                "namespaces": namespaces,
            }
        })
    }

    /// Creates and starts.
    pub async fn run(&self, wanted: CreateContainer) -> ContainerId {
        let id = wanted.container.clone();
        within(self.monitor.create(wanted, None)).await.unwrap();
        within(self.monitor.start(&id)).await.unwrap();
        id
    }

    /// Runs a script to its end.
    pub async fn run_script(&mut self, script: &str) -> (ContainerId, ExitStatus) {
        let id = self.run(self.container(shell(script))).await;
        let status = self.exit_of(&id).await;
        (id, status)
    }

    /// Waits for a container's exit.
    pub async fn exit_of(&mut self, wanted: &ContainerId) -> ExitStatus {
        loop {
            match within(self.events.recv()).await {
                Some(Event::Exited { container, status }) if container == *wanted => return status,
                Some(_) => {}
                None => panic!("the monitor is gone"),
            }
        }
    }

    pub fn exec_of(&self, container: &ContainerId, process: Process) -> StartExec {
        StartExec {
            exec: ExecId::random(),
            container: container.clone(),
            process,
            stdio: [false, true, true],
            seccomp: false,
        }
    }

    /// Runs an exec to its end; returns what it wrote to both streams.
    pub async fn exec(
        &self,
        container: &ContainerId,
        process: Process,
    ) -> Result<(ExitStatus, String), MonitorError> {
        let (reader, writer) = pipe();
        let again = writer.try_clone().unwrap();
        let exec =
            within(self.monitor.exec(self.exec_of(container, process), vec![writer, again], None)).await?;
        let text = tokio::task::spawn_blocking(move || read(reader));
        Ok((exit(exec).await, within(text).await.unwrap()))
    }

    /// Waits until a line is in the log.
    pub async fn wait_for_log(&self, container: &ContainerId, line: &str) {
        until(|| {
            fs::read_to_string(self.log(container)).is_ok_and(|t| t.split('\n').any(|l| l.ends_with(line)))
        })
        .await;
    }

    /// The monitor's process.
    pub fn monitor_pid(&self) -> i32 {
        let dir = self.dir.to_str().unwrap().as_bytes();
        let is_it = |pid: &i32| {
            fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.split(|b| *b == 0).nth(1).is_some_and(|arg| arg == dir))
        };
        fs::read_dir("/proc")
            .unwrap()
            .filter_map(|e| e.unwrap().file_name().to_str()?.parse().ok())
            .find(is_it)
            .expect("the monitor runs")
    }

    /// Ends the pod and says how that went.
    pub async fn end(mut self) {
        within(self.monitor.shutdown()).await.unwrap();
        while within(self.events.recv()).await.is_some() {}
        self.ended = true;
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let (dir, sandbox, ended) = (self.dir.clone(), self.sandbox.clone(), self.ended);
        let end = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            if !ended {
                let _ = runtime.block_on(async {
                    let (monitor, _events) = Monitor::adopt(&dir, &sandbox).await?;
                    tokio::time::timeout(PATIENCE, monitor.shutdown()).await.ok();
                    Ok::<(), MonitorError>(())
                });
            }
        });
        let _ = end.join();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.join("monitor.log")).unwrap_or_default();
            eprintln!("monitor.log:\n{log}");
        }
        let cgroups = CgroupFs::detect().unwrap();
        let _ = cgroups.kill_all(&self.cgroup, PATIENCE);
        let _ = cgroups.remove(&self.cgroup, PATIENCE);
    }
}

pub fn pipe() -> (OwnedFd, OwnedFd) {
    let (reader, writer) = std::io::pipe().unwrap();
    (reader.into(), writer.into())
}

/// Output and errors of an exec that are not wanted.
pub fn null() -> Vec<OwnedFd> {
    let open = || fs::File::options().write(true).open("/dev/null").unwrap().into();
    vec![open(), open()]
}

/// Reads to the end; a terminal ends with an error.
pub fn read(from: OwnedFd) -> String {
    let mut text = Vec::new();
    let _ = fs::File::from(from).read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

pub async fn exit(exec: Exec) -> ExitStatus {
    within(exec.exit).await.expect("the monitor lives")
}

pub async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}

/// Waits for something that sends no event.
pub async fn until(mut fact: impl FnMut() -> bool) {
    within(async {
        while !fact() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}
