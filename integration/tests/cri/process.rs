//! The first process: what it is started as, how it is stopped, what its output becomes.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use crisp_integration::client::{code, container, script, security};
use crisp_proto::v1::{self, ContainerState};

use super::place::{IMAGE, Place};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn arguments_variables_and_folder_are_as_asked() -> Result<()> {
    let place = Place::new("arguments").await?;
    let mut config =
        script("asked", IMAGE, "pwd; echo $0 $1 $2; echo $COLOUR; printf %s \"$RAW\" | od -An -tx1");
    config.args = vec!["zero".into(), "one".into(), "two words".into()];
    config.working_dir = "/made/for/this".into();
    let variable = |key: &str, value: &'static [u8]| v1::KeyValue { key: key.into(), value: value.into() };
    config.envs =
        vec![variable("COLOUR", b"green"), variable("RAW", b"\xff\xfe"), variable("COLOUR", b"blue")];
    let (code, text) = place.run(&config).await?;
    ensure!(
        (code, text.as_str()) == (0, "/made/for/this\nzero one two words\nblue\n ff fe\n"),
        "{code} {text:?}"
    );

    // args without command follow the image's entrypoint, which this image does not have
    let mut config = container("args-only", IMAGE, &[]);
    config.args = vec!["echo".into(), "from args".into()];
    ensure!(place.run(&config).await? == (0, "from args\n".into()));
    let (code, _) = place.run(&script("fails", IMAGE, "exit 42")).await?;
    ensure!(code == 42);
    let missing = place.launch(&container("missing", IMAGE, &["/no/such/program"])).await;
    ensure!(
        format!("{:#}", missing.as_ref().err().map(|e| format!("{e:#}")).unwrap_or_default())
            .contains("/no/such/program"),
        "{missing:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_sends_the_signal_and_kills_when_the_grace_is_over() -> Result<()> {
    let place = Place::new("stop").await?;
    let ready = |lines: &[super::place::Line]| lines.iter().any(|line| line.text == "ready");
    let wait = "echo ready; while :; do sleep 0.05; done";

    let mut config = script("own-signal", IMAGE, &format!("trap 'exit 7' USR1; trap 'exit 8' TERM; {wait}"));
    config.stop_signal = v1::Signal::Sigusr1.into();
    let id = place.launch(&config).await?;
    place.lines_when("own-signal.log", ready).await?;
    ensure!(place.cri.status(&id).await?.stop_signal() == v1::Signal::Sigusr1);
    place.cri.stop(&id, 20).await?;
    let status = place.cri.status(&id).await?;
    ensure!(status.exit_code == 7, "{status:?}");

    let id = place.launch(&script("deaf", IMAGE, &format!("trap '' TERM; {wait}"))).await?;
    place.lines_when("deaf.log", ready).await?;
    let begin = Instant::now();
    place.cri.stop(&id, 1).await?;
    let took = begin.elapsed();
    ensure!(took >= Duration::from_secs(1) && took < Duration::from_secs(10), "{took:?}");
    let status = place.cri.status(&id).await?;
    ensure!((status.exit_code, status.state()) == (137, ContainerState::ContainerExited), "{status:?}");
    ensure!(
        0 < status.created_at
            && status.created_at <= status.started_at
            && status.started_at < status.finished_at
    );

    // A second stop with less grace shortens the first one's.
    let id = place.launch(&script("hurried", IMAGE, &format!("trap '' TERM; {wait}"))).await?;
    place.lines_when("hurried.log", ready).await?;
    let begin = Instant::now();
    let (patient, hasty) = (place.cri.clone(), place.cri.clone());
    let (first, second) = tokio::join!(patient.stop(&id, 300), hasty.stop(&id, 0));
    first?;
    second?;
    ensure!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
    // Once more, and of what is not there.
    place.cri.stop(&id, 0).await?;
    place.cri.stop(&"0".repeat(64), 0).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_is_one() -> Result<()> {
    let place = Place::new("terminal").await?;
    let mut config =
        script("tty", IMAGE, "test -t 0 && test -t 1 && test -t 2 && tty; echo error >&2; sleep 600");
    config.tty = true;
    config.stdin = true;
    let id = place.launch(&config).await?;
    let lines = place.lines_when("tty.log", |lines| lines.len() >= 2).await?;
    ensure!(
        lines[0].text.trim_end() == "/dev/pts/0" || lines[0].text.trim_end() == "/dev/console",
        "{lines:?}"
    );
    // A terminal has one output.
    ensure!(
        lines.iter().all(|line| line.stream == "stdout") && lines[1].text.trim_end() == "error",
        "{lines:?}"
    );
    let input = std::fs::read_link(format!("/proc/{}/fd/0", place.pid(&id).await?))?;
    ensure!(input.starts_with("/dev/pts"), "{}", input.display());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_lines_are_cut_into_parts_and_streams_are_kept_apart() -> Result<()> {
    let place = Place::new("log").await?;
    let text = "head -c 40000 /dev/zero | tr '\\0' a; echo; echo short; printf unfinished";
    let (_, _) = place.run(&script("parts", IMAGE, text)).await?;
    let lines = place.lines("parts.log")?;
    let tags: Vec<(&str, usize)> = lines.iter().map(|line| (line.tag.as_str(), line.text.len())).collect();
    let cut = 16 * 1024;
    ensure!(tags[..3] == [("P", cut), ("P", cut), ("F", 40_000 - 2 * cut)], "{tags:?}");
    ensure!(lines[3].text == "short" && lines[3].tag == "F", "{:?}", &lines[3..]);
    ensure!(lines[4].text == "unfinished", "{:?}", &lines[4..]);

    let (_, _) =
        place.run(&script("both", IMAGE, "for i in 1 2 3; do echo out $i; echo err $i >&2; done")).await?;
    let lines = place.lines("both.log")?;
    for (stream, word) in [("stdout", "out"), ("stderr", "err")] {
        let texts: Vec<String> =
            lines.iter().filter(|l| l.stream == stream).map(|l| l.text.clone()).collect();
        ensure!(texts == [1, 2, 3].map(|i| format!("{word} {i}")), "{stream}: {texts:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exec_sync_keeps_streams_apart_and_its_answer_fits() -> Result<()> {
    let place = Place::new("exec").await?;
    let id = place
        .idle("main", |config| config.envs = vec![v1::KeyValue { key: "A".into(), value: "b".into() }])
        .await?;
    let output = place.cri.exec(&id, &["sh", "-c", "echo out $A; echo err >&2; exit 3"], 0).await?;
    ensure!(
        (output.code, output.stdout.as_str(), output.stderr.as_str()) == (3, "out b\n", "err\n"),
        "{output:?}"
    );

    // The kubelet takes messages of 16 MiB: more output than that is read and dropped, and the command goes on to its end.
    let much = "head -c 20000000 /dev/zero; head -c 20000000 /dev/zero >&2; exit 5";
    let output = place.cri.exec(&id, &["sh", "-c", much], 0).await?;
    ensure!(output.code == 5, "{}", output.code);
    let kept = output.stdout.len() + output.stderr.len();
    ensure!((15 << 20..=16 << 20).contains(&kept), "{kept} bytes kept");

    let begin = Instant::now();
    let late = place.cri.exec(&id, &["sh", "-c", "sleep 300 & sleep 301"], 1).await;
    ensure!(code(&late) == Some(tonic::Code::DeadlineExceeded), "{late:?}");
    ensure!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    let left = place.cri.shell(&id, "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline; echo; done").await?;
    ensure!(!left.contains("sleep 30"), "{left}");

    let absent = place.cri.exec(&id, &["no-such-program"], 0).await;
    ensure!(
        absent.as_ref().err().is_some_and(|e| format!("{e:#}").contains("no-such-program"))
            || absent.as_ref().is_ok_and(|o| o.code == 127),
        "{absent:?}"
    );
    place.cri.stop(&id, 0).await?;
    let ended = place.cri.exec(&id, &["true"], 0).await;
    ensure!(code(&ended) == Some(tonic::Code::FailedPrecondition), "{ended:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ambient_capabilities_reach_a_user_who_is_not_root() -> Result<()> {
    let place = Place::new("ambient").await?;
    let mut config = script("plain", IMAGE, "grep Cap /proc/self/status");
    security(&mut config).run_as_user = Some(v1::Int64Value { value: 1000 });
    security(&mut config).capabilities = Some(v1::Capability {
        add_capabilities: vec!["NET_ADMIN".into()],
        add_ambient_capabilities: vec!["NET_BIND_SERVICE".into()],
        ..Default::default()
    });
    let (_, text) = place.run(&config).await?;
    let bits = |name: &str| -> Option<u64> {
        let line = text.lines().find(|line| line.starts_with(name))?;
        u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok()
    };
    const NET_BIND_SERVICE: u64 = 1 << 10;
    ensure!(bits("CapAmb") == Some(NET_BIND_SERVICE), "{text}");
    ensure!(bits("CapEff") == Some(NET_BIND_SERVICE), "{text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_oom_score_is_the_processs() -> Result<()> {
    let place = Place::new("oom-score").await?;
    let mut config = script("score", IMAGE, "cat /proc/self/oom_score_adj");
    crisp_integration::client::resources(&mut config).oom_score_adj = 500;
    ensure!(place.run(&config).await? == (0, "500\n".into()));
    Ok(())
}
