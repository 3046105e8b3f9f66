//! The daemon comes and goes; the monitor stays.

#![allow(clippy::unwrap_used, reason = "a test that fails")]

mod harness;

use std::fs;

use crisp_model::SandboxId;
use crisp_monitor::{Monitor, MonitorError, protocol::Event};
use harness::{Pod, process, shell, until, within};

#[tokio::test]
async fn what_happens_while_nobody_is_connected_is_in_the_state() {
    let mut pod = Pod::start().await;
    let volume = pod.folder().join("volume");
    fs::create_dir(&volume).unwrap();
    let script = "echo before; while [ ! -e /volume/go ]; do sleep 0.01; done; echo after; exit 4";
    let mut wanted = pod.container(shell(script));
    wanted.spec["mounts"].as_array_mut().unwrap().push(serde_json::json!(
        {"destination": "/volume", "type": "bind", "source": volume, "options": ["rbind"]}));
    let id = pod.run(wanted).await;
    let stays = pod.run(pod.container(process(&["sleep", "1000"]))).await;
    pod.wait_for_log(&id, "before").await;
    // A daemon that is killed closes its connection, and says nothing.
    let (connected, _unused) = Monitor::adopt(&pod.dir, &pod.sandbox).await.unwrap();
    let old = std::mem::replace(&mut pod.monitor, connected);
    drop((old, _unused));
    drop(std::mem::replace(&mut pod.events, tokio::sync::mpsc::channel(1).1));
    let exec = pod.exec(&stays, shell("touch /x; echo alive")).await.unwrap();
    assert_eq!(exec.1, "alive\n");
    let lost = std::mem::replace(&mut pod.monitor, Monitor::adopt(&pod.dir, &pod.sandbox).await.unwrap().0);
    drop(lost);
    fs::write(volume.join("go"), "").unwrap();
    until(|| fs::metadata(pod.dir.join(format!("exits/{id}.json"))).is_ok()).await;
    let (monitor, events) = within(Monitor::adopt(&pod.dir, &pod.sandbox)).await.unwrap();
    let state = within(monitor.state()).await.unwrap();
    let report =
        |id: &crisp_model::ContainerId| state.containers.iter().find(|c| c.container == *id).unwrap();
    assert_eq!(report(&id).exit.as_ref().unwrap().code, 4);
    assert!(report(&stays).exit.is_none() && report(&stays).started_at.is_some());
    assert_eq!(state.infra, pod.infra);
    let recorded: crisp_model::ExitStatus =
        serde_json::from_slice(&fs::read(pod.dir.join(format!("exits/{id}.json"))).unwrap()).unwrap();
    assert_eq!(Some(&recorded), report(&id).exit.as_ref());
    assert_eq!(pod.log_lines(&id), ["stdout before", "stdout after"]);
    (pod.monitor, pod.events) = (monitor, events);
    within(pod.monitor.signal(&stays, 9, false)).await.unwrap();
    assert_eq!(pod.exit_of(&stays).await.signal, Some(9));
    pod.end().await;
}

#[tokio::test]
async fn several_connections_hear_the_same() {
    let mut pod = Pod::start().await;
    let (second, mut events) = within(Monitor::adopt(&pod.dir, &pod.sandbox)).await.unwrap();
    let (id, status) = pod.run_script("exit 6").await;
    match within(events.recv()).await.unwrap() {
        Event::Exited { container, status: told } => assert_eq!((container, told), (id, status)),
        other => panic!("{other:?}"),
    }
    assert_eq!(within(second.state()).await.unwrap().containers.len(), 1);
    pod.end().await;
    assert!(matches!(within(second.state()).await, Err(MonitorError::Gone)));
}

#[tokio::test]
async fn a_dead_monitor_is_noticed() {
    let mut pod = Pod::start().await;
    let id = pod.run(pod.container(process(&["sleep", "1000"]))).await;
    let wrong = within(Monitor::adopt(&pod.dir, &SandboxId::random())).await;
    assert!(matches!(wrong, Err(MonitorError::Protocol { .. })), "{wrong:?}");
    let running =
        within(pod.monitor.exec(pod.exec_of(&id, process(&["sleep", "999"])), harness::null(), None))
            .await
            .unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pod.monitor_pid()), nix::sys::signal::SIGKILL).unwrap();
    assert!(within(pod.events.recv()).await.is_none());
    assert!(within(running.exit).await.is_err());
    assert!(matches!(within(pod.monitor.state()).await, Err(MonitorError::Gone)));
    let adopted = within(Monitor::adopt(&pod.dir, &pod.sandbox)).await;
    assert!(matches!(adopted, Err(MonitorError::Gone)), "{adopted:?}");
}

#[tokio::test]
async fn a_slow_worker_holds_nobody_up() {
    let pod = Pod::start().await;
    let id = pod.run(pod.container(process(&["sleep", "1000"]))).await;
    // A frozen container: joining its cgroup takes until it is thawed.
    let freezer = format!("/sys/fs/cgroup/freezer{}/{}/freezer.state", pod.cgroup, id.short());
    if fs::metadata(&freezer).is_err() {
        println!("not tested: this host has no v1 freezer");
        return pod.end().await;
    }
    fs::write(&freezer, "FROZEN").unwrap();
    let (monitor, wanted) = (pod.monitor.clone(), pod.exec_of(&id, process(&["true"])));
    let hung = async move { monitor.exec(wanted, harness::null(), None).await };
    tokio::pin!(hung);
    tokio::select! {
        biased;
        exec = &mut hung => panic!("a frozen container runs {exec:?}"),
        state = within(pod.monitor.state()) => assert_eq!(state.unwrap().containers.len(), 1),
    }
    let other = pod.run(pod.container(process(&["sleep", "1000"]))).await;
    assert_eq!(pod.exec(&other, process(&["true"])).await.unwrap().0.code, 0);
    fs::write(&freezer, "THAWED").unwrap();
    let exec = within(&mut hung).await.unwrap();
    assert_eq!(harness::exit(exec).await.code, 0);
    pod.end().await;
}

#[tokio::test]
async fn a_pod_that_is_shut_down_leaves_nothing() {
    let mut pod = Pod::start().await;
    pod.run(pod.container(process(&["sleep", "1000"]))).await;
    pod.run(pod.container(shell("trap '' TERM INT; (sleep 1000 &) ; while :; do sleep 1; done"))).await;
    let (pid, cgroup) = (pod.monitor_pid(), pod.cgroup.clone());
    let children = || fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    // Infra container and two containers; workers end soon.
    until(|| children().split_whitespace().count() == 3).await;
    let before = children();
    within(pod.monitor.shutdown()).await.unwrap();
    while within(pod.events.recv()).await.is_some() {}
    for child in before.split_whitespace() {
        until(|| fs::metadata(format!("/proc/{child}")).is_err()).await;
    }
    let cgroups = crisp_host::cgroup::CgroupFs::detect().unwrap();
    assert!(!cgroups.exists(&format!("{cgroup}/infra")).unwrap());
    assert!(cgroups.procs(&cgroup).unwrap().is_empty());
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains(pod.folder().to_str().unwrap()));
}
