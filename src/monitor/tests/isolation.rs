//! What containers can and cannot reach: user namespaces, shared pids, the infra container, limits.

#![allow(clippy::unwrap_used, reason = "a test that fails")]

mod harness;

use std::{fs, os::unix::fs::MetadataExt};

use crisp_model::{
    image::Rootfs,
    security::{IdMapping, UserNamespace},
};
use crisp_monitor::{
    MonitorError,
    protocol::{Event, Failure, IdmappedMount, ImageVolume},
};
use harness::{Pod, process, shell, until, within};
use serde_json::json;

fn user() -> UserNamespace {
    let map = vec![IdMapping { host_id: 100_000, container_id: 0, length: 65_536 }];
    UserNamespace { uids: map.clone(), gids: map }
}

fn bind(
    wanted: &mut crisp_monitor::protocol::CreateContainer,
    source: &std::path::Path,
    destination: &str,
    options: &[&str],
) {
    wanted.spec["mounts"]
        .as_array_mut()
        .unwrap()
        .push(json!({"destination": destination, "type": "bind", "source": source, "options": options}));
}

#[tokio::test]
async fn a_user_namespace_with_mapped_layers_and_volume() {
    let mut pod = Pod::bare().await;
    pod.start_infra(|wanted| wanted.user = Some(user())).await.unwrap();
    let volume = pod.folder().join("volume");
    fs::create_dir(&volume).unwrap();
    let staging = pod.folder().join("staging");
    let mut wanted = pod.container(shell(
        "cat /proc/self/uid_map; stat -c %u /bin/busybox; touch /made /volume/file; stat -c %u /made /volume/file; \
         hostname; echo x > /dev/stdout; exec sleep 1000",
    ));
    wanted.idmapped = vec![IdmappedMount {
        source: volume.clone(),
        staging: staging.clone(),
        uids: user().uids,
        gids: user().gids,
    }];
    bind(&mut wanted, &staging, "/volume", &["rbind"]);
    let upper = wanted.rootfs.upper.clone();
    let id = pod.run(wanted).await;
    pod.wait_for_log(&id, "stdout F x").await;
    let lines = pod.log_lines(&id);
    assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), ["stdout", "0", "100000", "65536"]);
    assert_eq!(lines[1..], ["0", "0", "0", "a-pod", "x"].map(|l| format!("stdout {l}")));
    // On the disk they are root's, as if there were no namespace.
    assert_eq!(fs::metadata(volume.join("file")).unwrap().uid(), 0);
    assert_eq!(fs::metadata(upper.join("made")).unwrap().uid(), 0);
    // Nothing of it is mounted on the host.
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains(pod.folder().to_str().unwrap()));

    let mut exec = shell(
        "cat /proc/self/uid_map; id -u; touch /by-exec && stat -c %u /by-exec; mkdir /proc/1/x; echo y > /dev/stdout; readlink /proc/self/ns/user",
    );
    exec.cwd = "/made/by/exec".replace("made", "new");
    let (status, text) = pod.exec(&id, exec).await.unwrap();
    assert_eq!(status.code, 0, "{text}");
    let lines: Vec<&str> = text.lines().filter(|l| !l.contains("mkdir")).collect();
    assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
    assert_eq!(lines[1..4], ["0", "0", "y"]);
    let infra = pod.infra.as_ref().unwrap().pid;
    assert_eq!(lines[4], fs::read_link(format!("/proc/{infra}/ns/user")).unwrap().to_str().unwrap());

    // A user other than root, and its own terminal.
    let mut exec = shell("id -u; echo z > /dev/stdout");
    (exec.uid, exec.gid) = (1000, 1000);
    assert_eq!(pod.exec(&id, exec).await.unwrap().1, "1000\nz\n");
    pod.end().await;
}

#[tokio::test]
async fn a_shared_pid_namespace_reaps_orphans_and_hides_the_host() {
    let mut pod = Pod::bare().await;
    pod.start_infra(|wanted| wanted.pid = true).await.unwrap();
    let id = pod
        .run(pod.container(shell("sh -c 'sh -c \"exit 0\" & sleep 0.1 & exit 0'; echo up; exec sleep 1000")))
        .await;
    pod.wait_for_log(&id, "up").await;
    let other = pod.run(pod.container(process(&["sleep", "2000"]))).await;
    // Orphans go to process 1, and nothing of them stays.
    within(async {
        loop {
            let (_, text) = pod.exec(&id, process(&["ps", "-o", "pid,stat,args"])).await.unwrap();
            assert!(text.contains("sleep 2000"), "{text}");
            if !text.contains(" Z") && !text.contains("sleep 0.1") {
                assert!(text.lines().any(|l| l.trim().starts_with("1 ")), "{text}");
                break;
            }
        }
    })
    .await;
    // Root, with every capability that a container may have by default, reaches nothing through process 1.
    let mut script = shell(
        "head -c 4 /proc/1/exe | od -c; echo x >> /proc/1/exe; echo x > /proc/1/exe; ls -a /proc/1/root/; ls /proc/1/cwd; \
         grep -E '^(Name|CapEff|Uid|NoNewPrivs|SigIgn)' /proc/1/status; kill -9 1; kill -TERM 1; cat /proc/1/comm; ls /proc/1/fd",
    );
    let caps = &mut script.capabilities;
    for set in [&mut caps.bounding, &mut caps.effective, &mut caps.permitted] {
        set.extend(["CAP_SYS_PTRACE".to_owned(), "CAP_SYS_CHROOT".into(), "CAP_DAC_READ_SEARCH".into()]);
    }
    let (_, text) = pod.exec(&id, script).await.unwrap();
    for part in ["Name:\tcrisp-infra", "CapEff:\t0000000000000000", "Uid:\t65534", "NoNewPrivs:\t1"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(
        !text.contains("home") && !text.contains("etc") && text.matches("crisp-infra").count() >= 2,
        "{text}"
    );
    // The container's end takes its own processes, and leaves the other's.
    within(pod.monitor.signal(&id, 9, false)).await.unwrap();
    pod.exit_of(&id).await;
    assert!(pod.exec(&other, process(&["ps"])).await.unwrap().1.contains("sleep 2000"));
    // The infra container's end is everybody's.
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pod.infra.as_ref().unwrap().pid),
        nix::sys::signal::SIGKILL,
    )
    .unwrap();
    assert_eq!(pod.exit_of(&other).await.signal, Some(9));
    loop {
        match within(pod.events.recv()).await.unwrap() {
            Event::InfraExited(status) => break assert_eq!(status.signal, Some(9)),
            _ => continue,
        }
    }
    assert!(within(pod.monitor.state()).await.unwrap().infra_exit.is_some());
    pod.end().await;
}

#[tokio::test]
async fn the_infra_container_is_small_and_owns_the_namespaces() {
    let mut pod = Pod::bare().await;
    let infra = pod
        .start_infra(|wanted| {
            wanted.sysctls.insert("net.ipv4.ip_unprivileged_port_start".into(), "77".into());
            wanted.sysctls.insert("kernel.shmmax".into(), "123456".into());
        })
        .await
        .unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", infra.pid)).unwrap();
    let rss: u64 = status
        .lines()
        .find_map(|l| l.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap();
    assert!(rss < 16, "{rss} kB");
    for name in ["net", "ipc", "uts", "mnt"] {
        let of = |who: &str| fs::read_link(format!("/proc/{who}/ns/{name}")).unwrap();
        assert_ne!(of(&infra.pid.to_string()), of("self"), "{name}");
    }
    let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", infra.pid)).unwrap();
    assert!(
        cgroup.lines().filter(|l| l.ends_with(&format!("{}/infra", pod.cgroup))).count() >= 1,
        "{cgroup}"
    );
    let (id, _) = pod
        .run_script("cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmax; ip link show lo | head -1")
        .await;
    let lines = pod.log_lines(&id);
    assert_eq!(lines[..2], ["stdout 77", "stdout 123456"]);
    assert!(lines[2].contains(",UP"), "{lines:?}");

    let again = pod.start_infra(|_| {}).await;
    assert!(matches!(again, Err(MonitorError::Failure(Failure::WrongState { .. }))), "{again:?}");
    pod.end().await;
}

#[tokio::test]
async fn a_sysctl_that_is_refused_is_named() {
    for (name, value) in [("net.no.such", "1"), ("kernel.shmmax", "nonsense"), ("vm.swappiness", "1")] {
        let mut pod = Pod::bare().await;
        let result = pod.start_infra(|wanted| drop(wanted.sysctls.insert(name.into(), value.into()))).await;
        match result {
            Err(MonitorError::Failure(Failure::Invalid { object, .. })) => {
                assert!(object.contains(name), "{object}")
            }
            other => panic!("{name}: {other:?}"),
        }
        // Nothing was started, and another attempt may be made.
        assert!(within(pod.monitor.state()).await.unwrap().infra.is_none());
        pod.start_infra(|_| {}).await.unwrap();
        pod.end().await;
    }
}

#[tokio::test]
async fn an_out_of_memory_kill_is_told() {
    let mut pod = Pod::start().await;
    let mut wanted = pod.container(shell("x=$(head -c 100000000 /dev/zero | tr '\\0' x); echo ${#x}"));
    wanted.spec["linux"]["resources"]["memory"] = json!({"limit": 16 << 20, "swap": 16 << 20});
    let id = pod.run(wanted).await;
    let status = pod.exit_of(&id).await;
    assert!(status.oom_killed && status.code != 0, "{status:?}");
    pod.end().await;
}

#[tokio::test]
async fn an_image_as_a_volume_and_propagation() {
    let mut pod = Pod::start().await;
    let image = |name: &str| {
        let layer = pod.folder().join(name);
        fs::create_dir(&layer).unwrap();
        fs::write(layer.join(name), name).unwrap();
        layer
    };
    let (upper, lower) = (image("upper"), image("lower"));
    let shared = pod.folder().join("shared");
    fs::create_dir(&shared).unwrap();
    let mut wanted = pod.container(shell(
        "cat /image/upper /image/lower; echo; echo x > /image/new; cat /single/lower; echo; \
         grep -E ' /(image|private|slave) ' /proc/self/mountinfo | cut -d' ' -f5-7",
    ));
    let mounts = pod.folder().join("images");
    wanted.image_volumes = vec![
        ImageVolume { lower: vec![upper, lower.clone()], mountpoint: mounts.join("two") },
        ImageVolume { lower: vec![lower], mountpoint: mounts.join("one") },
    ];
    bind(&mut wanted, &mounts.join("two"), "/image", &["rbind", "ro"]);
    bind(&mut wanted, &mounts.join("one"), "/single", &["rbind", "ro"]);
    bind(&mut wanted, &shared, "/private", &["rbind"]);
    bind(&mut wanted, &shared, "/slave", &["rbind"]);
    wanted.spec["linux"]["rootfsPropagation"] = json!("shared");
    wanted.propagation = ["/", "/image", "/private"].map(|p| (p.to_owned(), Default::default())).to_vec();
    let id = pod.run(wanted).await;
    pod.exit_of(&id).await;
    let lines = pod.log_lines(&id);
    assert_eq!(
        lines.iter().filter(|l| l.starts_with("stdout")).take(2).collect::<Vec<_>>(),
        ["stdout upperlower", "stdout lower"]
    );
    assert!(lines.iter().any(|l| l.starts_with("stderr") && l.contains("Read-only")), "{lines:?}");
    let line = |name: &str| lines.iter().find(|l| l.contains(&format!(" {name} "))).unwrap();
    assert!(!line("/private").contains("shared:"), "{lines:?}");
    assert!(line("/image").contains("ro"), "{lines:?}");
    pod.end().await;
}

#[tokio::test]
async fn many_layers_are_mounted() {
    let mut pod = Pod::start().await;
    let mut wanted = pod.container(shell("for i in 0 1 59; do cat /layer$i; done; cat /same"));
    let Rootfs { lower, .. } = &mut wanted.rootfs;
    // Longer names than mount(2)'s page of options could take.
    let long = pod.folder().join("l".repeat(120));
    for n in 0..60 {
        let layer = long.join(format!("{n}-{}", "x".repeat(120)));
        fs::create_dir_all(&layer).unwrap();
        fs::write(layer.join(format!("layer{n}")), format!("{n}\n")).unwrap();
        fs::write(layer.join("same"), format!("same {n}\n")).unwrap();
        lower.insert(n, layer);
    }
    let id = pod.run(wanted).await;
    assert_eq!(pod.exit_of(&id).await.code, 0);
    assert_eq!(pod.log_lines(&id), ["stdout 0", "stdout 1", "stdout 59", "stdout same 0"]);
    pod.end().await;
}

#[tokio::test]
async fn a_leftover_is_killed_and_removed_with_its_cgroups() {
    let mut pod = Pod::start().await;
    let id = pod.run(pod.container(process(&["sleep", "1000"]))).await;
    let sub = format!("/sys/fs/cgroup/freezer{}/{}/inner", pod.cgroup, id.short());
    if fs::metadata("/sys/fs/cgroup/freezer").is_ok() {
        fs::create_dir(&sub).unwrap();
    }
    assert!(matches!(
        within(pod.monitor.delete(&id)).await,
        Err(MonitorError::Failure(Failure::WrongState { .. }))
    ));
    within(pod.monitor.signal(&id, 9, true)).await.unwrap();
    pod.exit_of(&id).await;
    within(pod.monitor.delete(&id)).await.unwrap();
    assert!(fs::metadata(&sub).is_err());
    assert!(!pod.dir.join("libcontainer").join(id.as_str()).exists());
    assert!(!pod.dir.join(format!("exits/{id}.json")).exists());

    // One that was never started.
    let wanted = pod.container(process(&["true"]));
    let id = wanted.container.clone();
    let pid = within(pod.monitor.create(wanted, None)).await.unwrap();
    within(pod.monitor.delete(&id)).await.unwrap();
    until(|| fs::metadata(format!("/proc/{pid}")).is_err()).await;
    pod.end().await;
}
