use std::{
    process::{Child, Command, Stdio},
    thread,
};

use proptest::prelude::*;

use super::*;

const BOUND: Duration = Duration::from_secs(10);

fn scope() -> Scope {
    Scope::parse("kubepods-podx.slice:crisp:abc").unwrap()
}

/// Answers of a systemd that does as it is told, sent by another thread.
fn serve(mut peer: UnixStream, answers: Vec<Vec<u8>>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut got = Vec::new();
        let mut buffer = [0; 4096];
        while !got.ends_with(b"\r\n") {
            let n = peer.read(&mut buffer).unwrap();
            got.extend_from_slice(&buffer[..n]);
        }
        assert_eq!(got, format!("\0AUTH EXTERNAL {}\r\n", hex_uid()).as_bytes());
        peer.write_all(b"OK 0123\r\n").unwrap();
        let mut begin = [0; 7];
        peer.read_exact(&mut begin).unwrap();
        assert_eq!(&begin, b"BEGIN\r\n");
        let mut calls = Vec::new();
        for answer in answers {
            let mut start = [0; wire::START];
            peer.read_exact(&mut start).unwrap();
            let mut rest = vec![0; wire::rest_length(&start).unwrap()];
            peer.read_exact(&mut rest).unwrap();
            calls.extend_from_slice(&rest);
            peer.write_all(&answer).unwrap();
        }
        calls
    })
}

fn hex_uid() -> String {
    nix::unistd::geteuid().to_string().bytes().map(|b| format!("{b:02x}")).collect()
}

/// A message as a server sends it.
fn message(kind: u8, fields: &[(u8, &str, &str)], reply_to: Option<u32>, body: &[&str]) -> Vec<u8> {
    let string = |out: &mut Vec<u8>, text: &str| {
        out.resize(out.len().next_multiple_of(4), 0);
        out.extend_from_slice(&u32::try_from(text.len()).unwrap().to_le_bytes());
        out.extend_from_slice(text.as_bytes());
        out.push(0);
    };
    let mut payload = Vec::new();
    let mut signature = String::new();
    for text in body {
        match text.strip_prefix("u:") {
            Some(number) => {
                payload.extend_from_slice(&number.parse::<u32>().unwrap().to_le_bytes());
                signature.push('u');
            }
            None => {
                string(&mut payload, text);
                signature.push('s');
            }
        }
    }
    let mut out = vec![b'l', kind, 0, 1];
    out.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
    out.extend_from_slice(&7u32.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    for (code, of, text) in fields {
        out.resize(out.len().next_multiple_of(8), 0);
        out.extend_from_slice(&[*code, 1, of.as_bytes()[0], 0]);
        string(&mut out, text);
    }
    if let Some(serial) = reply_to {
        out.resize(out.len().next_multiple_of(8), 0);
        out.extend_from_slice(&[5, 1, b'u', 0]);
        out.extend_from_slice(&serial.to_le_bytes());
    }
    out.resize(out.len().next_multiple_of(8), 0);
    out.extend_from_slice(&[8, 1, b'g', 0, u8::try_from(signature.len()).unwrap()]);
    out.extend_from_slice(signature.as_bytes());
    out.push(0);
    let fields = u32::try_from(out.len() - START_OF_FIELDS).unwrap();
    out[12..16].copy_from_slice(&fields.to_le_bytes());
    out.resize(out.len().next_multiple_of(8), 0);
    out.extend_from_slice(&payload);
    out
}

const START_OF_FIELDS: usize = 16;

fn job_removed(job: &str, result: &str) -> Vec<u8> {
    message(4, &[(3, "s", "JobRemoved"), (1, "o", OBJECT)], None, &["u:5", job, "crisp-abc.scope", result])
}

fn connected(answers: Vec<Vec<u8>>) -> (Systemd, thread::JoinHandle<Vec<u8>>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let server = serve(theirs, answers);
    (Systemd::over(ours, true, false, Instant::now() + BOUND).unwrap(), server)
}

#[test]
fn a_scope_is_started_when_its_job_is_done_and_not_before() {
    let reply = [
        job_removed("/job/4", "failed"),
        message(2, &[], Some(1), &["/job/5"]),
        job_removed("/job/6", "done"),
        job_removed("/job/5", "done"),
    ]
    .concat();
    let (mut systemd, server) = connected(vec![reply]);
    systemd.start_scope(&scope(), &[42], &LinuxResources::default(), BOUND).unwrap();
    drop(systemd);
    let sent = String::from_utf8_lossy(&server.join().unwrap()).into_owned();
    for part in ["StartTransientUnit", "crisp-abc.scope", "kubepods-podx.slice", "Delegate", "PIDs"] {
        assert!(sent.contains(part), "{part} in {sent:?}");
    }
}

#[test]
fn failures_say_what_and_why() {
    let exists = message(3, &[(4, "s", "org.freedesktop.systemd1.UnitExists")], Some(1), &["it is there"]);
    let (mut systemd, server) = connected(vec![exists]);
    let error = systemd.start_scope(&scope(), &[42], &LinuxResources::default(), BOUND).unwrap_err();
    assert!(error.unit_exists(), "{error}");
    assert!(error.to_string().contains("it is there"));
    drop(systemd);
    server.join().unwrap();

    let failed = [message(2, &[], Some(1), &["/job/5"]), job_removed("/job/5", "timeout")].concat();
    let (mut systemd, server) = connected(vec![failed]);
    let error = systemd.start_scope(&scope(), &[42], &LinuxResources::default(), BOUND).unwrap_err();
    assert!(matches!(&error, SystemdError::Job { result, .. } if result == "timeout"), "{error}");
    drop(systemd);
    server.join().unwrap();
}

#[test]
fn a_silent_systemd_ends_the_wait() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let error = Systemd::over(ours, true, false, Instant::now() + Duration::from_millis(20)).unwrap_err();
    assert!(matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{error}");
}

proptest! {
    #[test]
    fn any_message_is_survived(mut bytes in proptest::collection::vec(any::<u8>(), 16..200)) {
        let _ = wire::parse(&bytes);
        bytes[0] = b'l';
        bytes[3] = 1;
        let _ = wire::parse(&bytes);
    }

    #[test]
    fn a_damaged_message_is_survived(at in 0usize..100, to in any::<u8>()) {
        let mut bytes = job_removed("/job/5", "done");
        let at = at % bytes.len();
        bytes[at] = to;
        let _ = wire::parse(&bytes);
    }
}

struct Bus {
    daemon: Child,
    dir: tempfile::TempDir,
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

fn bus() -> Option<Bus> {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("bus.conf");
    let socket = dir.path().join("bus");
    std::fs::write(
        &config,
        format!(
            "<busconfig><type>session</type><listen>unix:path={}</listen><auth>EXTERNAL</auth>\
             <policy context=\"default\"><allow send_destination=\"*\" eavesdrop=\"true\"/>\
             <allow eavesdrop=\"true\"/><allow own=\"*\"/></policy></busconfig>",
            socket.display()
        ),
    )
    .unwrap();
    let mut daemon = Command::new("dbus-daemon")
        .arg(format!("--config-file={}", config.display()))
        .args(["--nofork", "--nopidfile", "--print-address=1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    // It says its address when it listens.
    let mut line = [0; 1];
    daemon.stdout.as_mut().unwrap().read_exact(&mut line).ok()?;
    Some(Bus { daemon, dir })
}

/// The bus checks every message that passes it, and drops who sends a wrong one.
#[test]
fn a_real_bus_takes_our_messages() {
    let Some(bus) = bus() else { return eprintln!("skipped: no dbus-daemon") };
    let stream = UnixStream::connect(bus.dir.path().join("bus")).unwrap();
    let until = Instant::now() + BOUND;
    let mut client = Systemd { stream, serial: 0, v2: true };
    client.set_deadline(until).unwrap();
    client.authenticate().unwrap();
    // There is no systemd on this bus: everything up to the last step is answered, that step by an error.
    let error = client.join_bus(until).unwrap_err();
    assert!(error.to_string().starts_with("Subscribe: "), "{error}");
    let resources = LinuxResources {
        memory_limit: Some(1 << 20),
        cpu_quota: Some(1000),
        cpuset_cpus: Some("0-9".into()),
        ..Default::default()
    };
    for _ in 0..2 {
        let error = client.start_scope(&scope(), &[42, 43], &resources, BOUND).unwrap_err();
        assert!(
            matches!(&error, SystemdError::Refused { name, .. } if name.ends_with("ServiceUnknown")),
            "{error}"
        );
        let error = client.set_limits("crisp-abc.scope", &resources, BOUND).unwrap_err();
        assert!(matches!(error, SystemdError::Refused { .. }), "{error}");
    }
}

#[test]
fn a_real_systemd_makes_limits_and_ends_a_scope() {
    if !Path::new("/run/systemd/system").is_dir() {
        return eprintln!("skipped: systemd does not run this host");
    }
    let fs = crate::cgroup::CgroupFs::detect().unwrap();
    let v2 = fs.layout().is_v2();
    let mut child = Command::new("/bin/sleep").arg("1000").spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let scope = Scope::parse(&format!("crisptest-pod{pid}.slice:crisp:{pid}")).unwrap();
    let path = scope.path().unwrap();
    let mut systemd = Systemd::connect(v2, BOUND).unwrap();
    let mut resources = LinuxResources {
        memory_limit: Some(64 << 20),
        memory_swap_limit: Some(64 << 20),
        cpu_shares: Some(512),
        cpu_quota: Some(25_000),
        ..Default::default()
    };
    systemd.start_scope(&scope, &[pid], &resources, BOUND).unwrap();
    assert_eq!(fs.procs(&path).unwrap(), [pid]);
    let limit = |fs: &crate::cgroup::CgroupFs| fs.stats(&path).unwrap().memory.unwrap().limit;
    assert_eq!(limit(&fs), Some(64 << 20));
    let again = systemd.start_scope(&scope, &[pid], &resources, BOUND).unwrap_err();
    assert!(again.unit_exists(), "{again}");

    resources.memory_limit = Some(80 << 20);
    resources.memory_swap_limit = Some(80 << 20);
    systemd.set_limits(&scope.unit, &resources, BOUND).unwrap();
    assert_eq!(limit(&fs), Some(80 << 20));
    let reload = Command::new("systemctl").arg("daemon-reload").status().unwrap();
    assert!(reload.success());
    assert_eq!(limit(&fs), Some(80 << 20), "a reload keeps it");
    // The cgroup is ours: what systemd does not know can be set in it, and cgroups made below.
    let child_cgroup = format!("{path}/exec");
    fs.create(&child_cgroup).unwrap();

    // The connection may have been cut by the reload.
    let mut systemd = Systemd::connect(v2, BOUND).unwrap();
    let reaper = thread::spawn(move || child.wait().unwrap());
    systemd.stop(&scope.unit, BOUND).unwrap();
    assert!(!reaper.join().unwrap().success());
    assert!(!fs.exists(&path).unwrap());
    systemd.stop(&scope.unit, BOUND).unwrap();
    systemd.stop(&scope.slice, BOUND).unwrap();
    systemd.stop("crisptest.slice", BOUND).unwrap();
}
