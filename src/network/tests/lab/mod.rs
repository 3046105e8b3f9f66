//! A machine of the test's own: a thread in new network and mount namespaces, with an empty /run. All of it goes when
//! the thread ends, whatever the test did.
#![allow(dead_code, clippy::unwrap_used, reason = "each test file uses a part of it; it is all test code")]

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use crisp_model::SandboxId;
use crisp_network::{NetworkConfig, PodAttachment};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
};

/// Where the test's files are; a tmpfs that only it sees.
pub const ROOT: &str = "/run";

pub mod talk;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Runs `test` on such a machine.
pub fn machine<F: AsyncFnOnce() + Send + 'static>(test: F) {
    let body = move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("tests need root");
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        mount(Some("tmpfs"), ROOT, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        sh("ip link set lo up");
        // A new namespace takes this over from the host, which may forward for reasons of its own.
        sh("sysctl -qw net.ipv4.ip_forward=0");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move { test().await });
    };
    if let Err(panic) = thread::spawn(body).join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a command that must succeed; returns what it printed.
pub fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// A configuration with everything below [`ROOT`].
pub fn config() -> NetworkConfig {
    let mut config = NetworkConfig {
        cni_conf_dir: format!("{ROOT}/net.d").into(),
        cni_bin_dirs: vec![format!("{ROOT}/bin").into(), "/usr/lib/cni".into()],
        cni_cache_dir: format!("{ROOT}/cache").into(),
        ..NetworkConfig::default()
    };
    config.builtin.state_dir = format!("{ROOT}/state").into();
    config
}

/// A pinned network namespace.
#[derive(Debug, Clone)]
pub struct Netns(pub PathBuf);

impl Netns {
    pub fn new() -> Self {
        let path = PathBuf::from(format!("{ROOT}/netns-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        File::create(&path).unwrap();
        let pin = path.clone();
        let make = move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let own = Some("/proc/thread-self/ns/net");
            mount(own, &pin, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        };
        thread::spawn(make).join().unwrap();
        Self(path)
    }

    /// Runs `act` within, on a thread of its own.
    pub fn run<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> T {
        let file = File::open(&self.0).unwrap();
        let body = move || {
            setns(file, CloneFlags::CLONE_NEWNET).unwrap();
            act()
        };
        thread::spawn(body).join().unwrap()
    }

    pub fn sh(&self, command: &str) -> String {
        let command = command.to_owned();
        self.run(move || sh(&command))
    }

    /// Lets it go, as the daemon does after a detach.
    pub fn drop_pin(&self) {
        umount2(&self.0, MntFlags::MNT_DETACH).unwrap();
    }
}

/// A pod for that namespace.
pub fn pod(netns: &Netns) -> PodAttachment {
    PodAttachment {
        sandbox: SandboxId::random(),
        name: "pod".to_owned(),
        namespace: "default".to_owned(),
        uid: "0c4b1d".to_owned(),
        netns: netns.0.clone(),
        port_mappings: Vec::new(),
        dns: None,
        aliases: Vec::new(),
        cgroup_parent: String::new(),
        annotations: BTreeMap::new(),
    }
}

pub fn write(path: impl AsRef<Path>, text: &str) {
    std::fs::create_dir_all(path.as_ref().parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// A plugin made of shell.
pub fn plugin(name: &str, script: &str) {
    use std::os::unix::fs::PermissionsExt;
    let path = format!("{ROOT}/bin/{name}");
    write(&path, &format!("#!/bin/sh\n{script}\n"));
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
}

/// Waits until `done`, looking again and again, for things that the kernel does in its own time.
pub async fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..1500 {
        if done() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("not within 15 s: {what}");
}

/// Another machine, connected to this one: it has 192.0.2.2 and 2001:db8::2, this one 192.0.2.1 and 2001:db8::1.
pub fn neighbour() -> Netns {
    let netns = Netns::new();
    let inside = netns.0.display();
    sh("ip link add lan type veth peer name lan-peer");
    sh(
        "ip address add 192.0.2.1/24 dev lan; ip address add 2001:db8::1/64 dev lan nodad; ip link set lan up",
    );
    // A relative name would be looked up in ip's own folder; a path is taken as it is.
    sh(&format!("ip link set lan-peer netns {inside}"));
    netns.sh("ip address add 192.0.2.2/24 dev lan-peer; ip address add 2001:db8::2/64 dev lan-peer nodad");
    netns.sh("ip link set lan-peer up; ip link set lo up");
    netns
}
