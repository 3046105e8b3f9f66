//! Containers from create to delete.

#![allow(clippy::unwrap_used, reason = "a test that fails")]

mod harness;

use crisp_monitor::{MonitorError, protocol::Failure};
use harness::{Pod, process, shell, within};

#[tokio::test]
async fn a_container_runs_writes_its_log_and_exits() {
    let mut pod = Pod::start().await;
    let (id, status) = pod.run_script("echo out; echo err >&2; hostname; exit 7").await;
    assert_eq!((status.code, status.signal, status.oom_killed), (7, None, false));
    let mut lines = pod.log_lines(&id);
    lines.sort();
    assert_eq!(lines, ["stderr err", "stdout a-pod", "stdout out"]);
    let state = within(pod.monitor.state()).await.unwrap();
    assert_eq!(state.sandbox, pod.sandbox);
    assert_eq!(state.containers.len(), 1);
    assert_eq!(state.containers[0].exit.as_ref(), Some(&status));
    assert!(state.containers[0].started_at.is_some_and(|at| at.nanos() <= status.finished_at.nanos()));
    within(pod.monitor.delete(&id)).await.unwrap();
    within(pod.monitor.delete(&id)).await.unwrap();
    assert!(within(pod.monitor.state()).await.unwrap().containers.is_empty());
    pod.end().await;
}

#[tokio::test]
async fn a_signal_ends_it() {
    let mut pod = Pod::start().await;
    let id =
        pod.run(pod.container(shell("trap 'exit 3' TERM; echo ready; while :; do sleep 0.01; done"))).await;
    pod.wait_for_log(&id, "ready").await;
    within(pod.monitor.signal(&id, 15, false)).await.unwrap();
    assert_eq!(pod.exit_of(&id).await.code, 3);
    let id = pod.run(pod.container(process(&["sleep", "1000"]))).await;
    within(pod.monitor.signal(&id, 9, false)).await.unwrap();
    let status = pod.exit_of(&id).await;
    assert_eq!((status.code, status.signal), (137, Some(9)));
    within(pod.monitor.signal(&id, 9, false)).await.unwrap();
    pod.end().await;
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let mut pod = Pod::start().await;
    let expect = |result: Result<i32, MonitorError>, name: &str| match result {
        Err(MonitorError::Failure(Failure::Invalid { object, reason })) => {
            assert!(object.contains(name), "{object}: {reason}");
        }
        other => panic!("{name}: {other:?}"),
    };
    let result = within(pod.monitor.create(pod.container(process(&["no-such-program"])), None)).await;
    expect(result, "no-such-program");
    let mut wanted = pod.container(process(&["true"]));
    wanted.spec["mounts"].as_array_mut().unwrap().push(serde_json::json!(
        {"destination": "/d", "type": "bind", "source": "/no/such/source", "options": ["rbind"]}));
    expect(within(pod.monitor.create(wanted, None)).await, "/no/such/source");
    let mut wanted = pod.container(process(&["true"]));
    wanted.rootfs.lower = vec!["/no/such/layer".into()];
    expect(within(pod.monitor.create(wanted, None)).await, "/no/such/layer");
    let mut wanted = pod.container(process(&["true"]));
    wanted.log = Some("/no/such/folder/log".into());
    expect(within(pod.monitor.create(wanted, None)).await, "/no/such/folder/log");

    // A folder that cannot be made, and a program that cannot be executed, are found when it starts.
    let mut wanted = pod.container(process(&["true"]));
    wanted.process.cwd = "/proc/no/such".into();
    let id = wanted.container.clone();
    within(pod.monitor.create(wanted, None)).await.unwrap();
    match within(pod.monitor.start(&id)).await {
        Err(MonitorError::Failure(Failure::Invalid { object, .. })) => {
            assert!(object.contains("/proc/no/such"))
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(pod.exit_of(&id).await.code, 127);
    assert_eq!(within(pod.monitor.state()).await.unwrap().containers.len(), 1);
    pod.end().await;
}

#[tokio::test]
async fn the_process_is_what_was_asked_for() {
    let mut pod = Pod::start().await;
    let mut wanted = pod.container(shell(
        "id -u; id -g; id -G; pwd; umask; echo $TWICE; grep -E '^(CapEff|CapBnd|NoNewPrivs|SigIgn|SigBlk|Seccomp):' \
         /proc/self/status; echo again > /dev/stdout; ls /proc/self/fd | wc -l; ulimit -n",
    ));
    let process = &mut wanted.process;
    (process.uid, process.gid, process.additional_gids) = (1000, 1000, vec![5, 7]);
    process.cwd = "/made/on/the/way".into();
    process.umask = Some(0o077);
    process.no_new_privs = true;
    process.env.extend([b"TWICE=1".to_vec(), b"TWICE=2".to_vec()]);
    process.rlimits = vec![crisp_model::process::Rlimit { kind: "RLIMIT_NOFILE".into(), soft: 77, hard: 99 }];
    process.capabilities.bounding.retain(|c| c == "CAP_CHOWN");
    let id = pod.run(wanted).await;
    assert_eq!(pod.exit_of(&id).await.code, 0, "{:?}", pod.log_lines(&id));
    let lines = pod.log_lines(&id);
    let expected = [
        "1000",
        "1000",
        "1000 5 7",
        "/made/on/the/way",
        "0077",
        "2",
        "SigBlk:\t0000000000000000",
        "SigIgn:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000001",
        "NoNewPrivs:\t1",
        "Seccomp:\t0",
        "again",
        "4",
        "77",
    ]
    .map(|l| format!("stdout {l}"));
    assert_eq!(lines, expected);
    pod.end().await;
}

#[tokio::test]
async fn nobody_may_write_where_nobody_should() {
    let mut pod = Pod::start().await;
    let mut wanted = pod
        .container(shell("stat -c %a /made /made/here /dev /dev/null /dev/pts; touch /made/x && echo made"));
    wanted.spec["mounts"].as_array_mut().unwrap().push(serde_json::json!(
        {"destination": "/made/here", "type": "tmpfs", "source": "tmpfs", "options": ["mode=711"]}));
    (wanted.process.uid, wanted.process.gid) = (1000, 1000);
    let id = pod.run(wanted).await;
    assert_eq!(pod.exit_of(&id).await.code, 1);
    let lines: Vec<String> = pod.log_lines(&id).into_iter().filter(|l| l.starts_with("stdout")).collect();
    assert_eq!(lines, ["755", "711", "755", "666", "755"].map(|l| format!("stdout {l}")));
    pod.end().await;
}

/// The worker that makes a container may be slower than the container, and is not waited for.
#[tokio::test]
async fn a_container_may_end_before_its_worker() {
    let mut pod = Pod::start().await;
    let wanted = pod.container(process(&["true"]));
    // The last thing that the worker does is to remove this folder.
    let bundle = pod.folder().join("run/bundles").join(wanted.container.as_str());
    std::fs::create_dir_all(&bundle).unwrap();
    for number in 0..5_000 {
        std::fs::File::create(bundle.join(number.to_string())).unwrap();
    }
    let id = wanted.container.clone();
    within(pod.monitor.create(wanted, None)).await.unwrap();
    let started = within(pod.monitor.start(&id)).await.unwrap();
    let status = pod.exit_of(&id).await;
    assert!(bundle.exists(), "the worker was not slow enough to see anything");
    assert!(status.code == 0 && started.nanos() <= status.finished_at.nanos(), "{status:?}");
    pod.end().await;
}
