//! Processes added to running containers.

#![allow(clippy::unwrap_used, reason = "a test that fails")]

mod harness;

use std::{
    fs,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use crisp_monitor::{
    MonitorError,
    protocol::{Failure, Terminal},
};
use harness::{Pod, pipe, process, read, shell, until, within};

async fn sleeper(pod: &Pod) -> crisp_model::ContainerId {
    pod.run(pod.container(process(&["sleep", "1000"]))).await
}

#[tokio::test]
async fn it_has_a_code_streams_and_the_namespaces_of_its_container() {
    let pod = Pod::start().await;
    let id = sleeper(&pod).await;
    let (status, text) = pod
        .exec(
            &id,
            shell(
                "hostname; for n in ipc mnt net pid uts cgroup; do readlink /proc/self/ns/$n; done; exit 3",
            ),
        )
        .await
        .unwrap();
    assert_eq!(status.code, 3);
    let init = within(pod.monitor.state()).await.unwrap().containers[0].pid;
    let mut expected = "a-pod\n".to_owned();
    for name in ["ipc", "mnt", "net", "pid", "uts", "cgroup"] {
        let link = fs::read_link(format!("/proc/{init}/ns/{name}")).unwrap();
        expected += &format!("{}\n", link.display());
    }
    assert_eq!(text, expected);

    let (stdin, writer) = pipe();
    let (reader, stdout) = pipe();
    let mut wanted = pod.exec_of(&id, process(&["cat"]));
    wanted.stdio = [true, true, false];
    let exec = within(pod.monitor.exec(wanted, vec![stdin, stdout], None)).await.unwrap();
    std::io::Write::write_all(&mut fs::File::from(writer), b"through").unwrap();
    assert_eq!(within(exec.exit).await.unwrap().code, 0);
    assert_eq!(read(reader), "through");
    pod.end().await;
}

#[tokio::test]
async fn it_is_what_was_asked_for() {
    let pod = Pod::start().await;
    let id = sleeper(&pod).await;
    let mut wanted = shell(
        "id -u; id -G; pwd; grep -E '^(CapEff|NoNewPrivs|SigIgn|SigBlk):' /proc/self/status; echo x > /dev/stdout; \
         ls /proc/self/fd | wc -l; cat /proc/self/cgroup | grep -c exec-",
    );
    (wanted.uid, wanted.gid, wanted.additional_gids) = (1000, 1000, vec![7]);
    wanted.cwd = "/home/user".into();
    wanted.no_new_privs = true;
    let (status, text) = pod.exec(&id, wanted).await.unwrap();
    assert_eq!(status.code, 0, "{text}");
    let expected = [
        "1000",
        "1000 7",
        "/home/user",
        "SigBlk:\t0000000000000000",
        "SigIgn:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "NoNewPrivs:\t1",
        "x",
        "4",
        "1",
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    pod.end().await;
}

#[tokio::test]
async fn what_cannot_be_run_is_named() {
    let pod = Pod::start().await;
    let id = sleeper(&pod).await;
    let mut bad_folder = process(&["true"]);
    bad_folder.cwd = "/proc/no/such".into();
    for (process, name) in [
        (process(&["no-such-program"]), "no-such-program"),
        (process(&["/etc/passwd"]), "/etc/passwd"),
        (bad_folder, "/proc/no/such"),
    ] {
        match pod.exec(&id, process).await {
            Err(MonitorError::Failure(Failure::Invalid { object, .. })) => {
                assert!(object.contains(name), "{object}")
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    let unknown = crisp_model::ContainerId::random();
    assert!(matches!(
        pod.exec(&unknown, process(&["true"])).await,
        Err(MonitorError::Failure(Failure::NotFound { .. }))
    ));
    within(pod.monitor.signal(&id, 9, true)).await.unwrap();
    until(|| fs::metadata(pod.dir.join(format!("exits/{id}.json"))).is_ok()).await;
    assert!(matches!(
        pod.exec(&id, process(&["true"])).await,
        Err(MonitorError::Failure(Failure::WrongState { .. }))
    ));
    pod.end().await;
}

#[tokio::test]
async fn killing_it_kills_all_that_it_started() {
    let pod = Pod::start().await;
    let id = sleeper(&pod).await;
    // A daemon: its parent is gone, it is in a session of its own, and it holds the output open.
    let (reader, writer) = pipe();
    let mut wanted = pod.exec_of(&id, shell("setsid sh -c 'sleep 999 & sleep 998 & wait' & echo up; exit 5"));
    wanted.stdio = [false, true, false];
    let name = wanted.exec.clone();
    let exec = within(pod.monitor.exec(wanted, vec![writer], None)).await.unwrap();
    assert_eq!(within(exec.exit).await.unwrap().code, 5);
    let (_, running) = pod.exec(&id, process(&["ps"])).await.unwrap();
    assert!(running.contains("sleep 999") && running.contains("sleep 998"), "{running}");
    within(pod.monitor.kill_exec(&name)).await.unwrap();
    assert_eq!(read(reader), "up\n");
    let (_, running) = pod.exec(&id, process(&["ps"])).await.unwrap();
    assert!(!running.contains("sleep 99") && running.contains("sleep 1000"), "{running}");
    within(pod.monitor.kill_exec(&name)).await.unwrap();

    let wanted = pod.exec_of(&id, shell("trap '' TERM; sleep 997"));
    let name = wanted.exec.clone();
    let exec = within(pod.monitor.exec(wanted, harness::null(), None)).await.unwrap();
    within(pod.monitor.kill_exec(&name)).await.unwrap();
    assert_eq!(within(exec.exit).await.unwrap().signal, Some(9));
    pod.end().await;
}

#[tokio::test]
async fn it_may_have_a_terminal() {
    let pod = Pod::start().await;
    let id = sleeper(&pod).await;
    let mut wanted = pod.exec_of(
        &id,
        shell("tty; stty size; id -u; echo x > /dev/tty; read line; echo got $line; stty size"),
    );
    wanted.process.terminal = Some((132, 43));
    wanted.process.uid = 1000;
    let name = wanted.exec.clone();
    let exec = within(pod.monitor.exec(wanted, vec![], None)).await.unwrap();
    let master = exec.terminal.unwrap();
    within(pod.monitor.resize(Terminal::Exec(name), 100, 30)).await.unwrap();
    std::io::Write::write_all(&mut fs::File::from(master.try_clone().unwrap()), b"hello\n").unwrap();
    let text = tokio::task::spawn_blocking(move || read(master));
    assert_eq!(within(exec.exit).await.unwrap().code, 0);
    let text = within(text).await.unwrap();
    assert!(text.contains("/dev/pts/"), "{text}");
    for part in ["1000\r\n", "x\r\n", "got hello\r\n", "30 100\r\n"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    pod.end().await;
}

#[tokio::test]
async fn its_system_calls_are_filtered() {
    let pod = Pod::start().await;
    let id = sleeper(&pod).await;
    // mkdir and mkdirat of x86-64 answer EPERM: load the number, compare, return.
    let op = |code: u16, jt: u8, jf: u8, k: u32| {
        let mut bytes = code.to_ne_bytes().to_vec();
        bytes.extend([jt, jf]);
        bytes.extend(k.to_ne_bytes());
        bytes
    };
    let program = [
        op(0x20, 0, 0, 0),
        op(0x15, 2, 0, libc::SYS_mkdir as u32),
        op(0x15, 1, 0, libc::SYS_mkdirat as u32),
        op(0x06, 0, 0, 0x7fff_0000),
        op(0x06, 0, 0, 0x0005_0000 | libc::EPERM as u32),
    ]
    .concat();
    let path = pod.folder().join("filter");
    fs::write(&path, program).unwrap();
    let filter = fs::File::open(&path).unwrap();
    for no_new_privs in [false, true] {
        let script = "grep Seccomp: /proc/self/status; mkdir /tmp/x && echo made";
        let (reader, writer) = pipe();
        let mut wanted = pod.exec_of(&id, shell(script));
        wanted.process.no_new_privs = no_new_privs;
        wanted.stdio = [false, true, false];
        let exec = within(pod.monitor.exec(wanted, vec![writer], Some(filter.as_fd()))).await.unwrap();
        assert_eq!(within(exec.exit).await.unwrap().code, 1);
        assert_eq!(read(reader), "Seccomp:\t2\n");
        let mut wanted = pod.container(shell(script));
        wanted.process.no_new_privs = no_new_privs;
        let other = wanted.container.clone();
        within(pod.monitor.create(wanted, Some(filter.as_fd()))).await.unwrap();
        within(pod.monitor.start(&other)).await.unwrap();
        until(|| fs::metadata(pod.dir.join(format!("exits/{other}.json"))).is_ok()).await;
        assert_eq!(pod.log_lines(&other)[0], "stdout Seccomp:\t2");
        assert!(!pod.log_lines(&other).contains(&"stdout made".into()));
    }
    pod.end().await;
}

#[tokio::test]
async fn a_thousand_leave_nothing() {
    let pod = Pod::start().await;
    let id = sleeper(&pod).await;
    pod.exec(&id, process(&["true"])).await.unwrap();
    let monitor = pod.monitor_pid();
    let count = |path: String| fs::read_dir(path).unwrap().count();
    let files = || {
        (count(format!("/proc/{monitor}/fd")), count(pod.dir.display().to_string()), {
            let folder = format!("/sys/fs/cgroup/freezer{}/{}", pod.cgroup, id.short());
            fs::read_dir(folder).map_or(0, |d| d.filter(|e| e.as_ref().unwrap().path().is_dir()).count())
        })
    };
    // The last worker may still be about to be reaped.
    let settled = || {
        let children = fs::read_to_string(format!("/proc/{monitor}/task/{monitor}/children")).unwrap();
        children.split(' ').count() <= 3
    };
    until(settled).await;
    let before = files();
    let start = Instant::now();
    for _ in 0..125 {
        let execs = (0..8).map(|n| {
            let (pod, id) = (&pod, &id);
            async move {
                // Every other one fails, which must leave nothing either.
                let args: &[&str] = if n % 2 == 0 { &["true"] } else { &["no-such-program"] };
                let exec = pod.monitor.exec(pod.exec_of(id, process(args)), harness::null(), None).await;
                match exec {
                    Ok(exec) => assert_eq!(exec.exit.await.unwrap().code, 0),
                    Err(MonitorError::Failure(Failure::Invalid { .. })) => {}
                    Err(other) => panic!("{other}"),
                }
            }
        });
        let mut all = Vec::new();
        for exec in execs {
            all.push(Box::pin(exec));
        }
        within(join(all)).await;
    }
    println!("1000 execs in {:.1} s", start.elapsed().as_secs_f64());
    // What the last worker held may be closed a moment after it: fewer is as good.
    let no_more = |now: (usize, usize, usize)| now.0 <= before.0 && now.1 <= before.1 && now.2 <= before.2;
    let deadline = Instant::now() + Duration::from_secs(10);
    while !(settled() && no_more(files())) {
        assert!(Instant::now() < deadline, "settled: {}, before: {before:?}, now: {:?}", settled(), files());
        tokio::time::sleep(Duration::from_millis(20)).await;
        // The cgroup of an exec whose process was still on its way out goes with the end of the next one.
        pod.exec(&id, process(&["true"])).await.unwrap();
    }
    pod.end().await;
}

async fn join<F: Future<Output = ()> + Unpin>(mut all: Vec<F>) {
    std::future::poll_fn(|cx| {
        all.retain_mut(|f| std::pin::Pin::new(f).poll(cx).is_pending());
        if all.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}
