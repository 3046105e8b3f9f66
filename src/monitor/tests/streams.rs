//! Logs, terminals and attached clients.

#![allow(clippy::unwrap_used, reason = "a test that fails")]

mod harness;

use std::{fs, io::Write};

use crisp_monitor::protocol::Terminal;
use harness::{Pod, pipe, process, read, shell, until, within};

/// Joins the entries of a log as the kubelet does.
fn content(log: &std::path::Path) -> Vec<u8> {
    let mut joined = Vec::new();
    for line in fs::read(log).unwrap().split_inclusive(|b| *b == b'\n') {
        assert_eq!(line.last(), Some(&b'\n'));
        joined.extend_from_slice(&line[40..line.len() - 1]);
        if line[38] == b'F' {
            joined.push(b'\n');
        }
    }
    joined
}

#[tokio::test]
async fn a_log_is_exactly_what_was_written() {
    let mut pod = Pod::start().await;
    let mut written = Vec::new();
    for n in 0..60_000usize {
        written.extend(format!("{n} ").repeat(n % 40).into_bytes());
        written.push(b'\n');
    }
    written.extend(vec![b'z'; 100_000]);
    written.extend(b"\nno end");
    fs::write(pod.layer().join("text"), &written).unwrap();
    let (id, status) = pod.run_script("cat /text; cat /text > /tmp/copy; exit 0").await;
    assert_eq!(status.code, 0);
    assert!(content(&pod.log(&id)) == written, "the log differs");
    pod.end().await;
}

#[tokio::test]
async fn nothing_is_lost_when_the_log_is_rotated() {
    let mut pod = Pod::start().await;
    let id = pod.run(pod.container(shell("i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done"))).await;
    let log = pod.log(&id);
    let mut rotated = Vec::new();
    for n in 0..5 {
        let name = log.with_extension(format!("{n}"));
        until(|| {
            fs::metadata(&log).is_ok_and(|m| m.len() > 1000)
                || fs::metadata(pod.dir.join(format!("exits/{id}.json"))).is_ok()
        })
        .await;
        fs::rename(&log, &name).unwrap();
        within(pod.monitor.reopen_log(&id)).await.unwrap();
        assert!(log.exists());
        rotated.push(name);
    }
    pod.exit_of(&id).await;
    rotated.push(log);
    let all: Vec<u8> = rotated.iter().flat_map(|r| content(r)).collect();
    let expected: String = (0..20_000).map(|n| format!("{n}\n")).collect();
    assert!(all == expected.as_bytes(), "lines are lost");
    pod.end().await;
}

#[tokio::test]
async fn a_full_disk_does_not_stop_the_container() {
    let mut pod = Pod::start().await;
    let disk = pod.folder().join("disk");
    fs::create_dir(&disk).unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
        .arg(&disk)
        .status()
        .unwrap();
    assert!(mounted.success());
    let mut wanted =
        pod.container(shell("i=0; while [ $i -lt 5000 ]; do echo line number $i; i=$((i+1)); done; exit 9"));
    wanted.log = Some(disk.join("log"));
    let id = pod.run(wanted).await;
    let status = pod.exit_of(&id).await;
    let log = content(&disk.join("log"));
    let unmounted = std::process::Command::new("umount").arg("-l").arg(&disk).status().unwrap();
    assert_eq!(status.code, 9);
    let expected: String = (0..5000).map(|n| format!("line number {n}\n")).collect();
    assert!(log.len() > 1000 && log.len() < expected.len() && log.ends_with(b"\n"), "{}", log.len());
    assert!(expected.as_bytes().starts_with(&log[..1000]));
    assert!(fs::read_to_string(pod.dir.join("monitor.log")).unwrap().contains("No space left"));
    assert!(unmounted.success());
    pod.end().await;
}

#[tokio::test]
async fn a_terminal_is_one_stream() {
    let mut pod = Pod::start().await;
    let mut wanted = pod.container(shell(
        "tty; stty size; echo err >&2; echo c > /dev/console; read line; echo got $line; stty size",
    ));
    wanted.process.terminal = Some((80, 24));
    wanted.stdin = true;
    let id = wanted.container.clone();
    within(pod.monitor.create(wanted, None)).await.unwrap();
    let (reader, writer) = pipe();
    let input = within(pod.monitor.attach(&id, true, Some(writer), None)).await.unwrap().unwrap();
    within(pod.monitor.start(&id)).await.unwrap();
    pod.wait_for_log(&id, "err\r").await;
    within(pod.monitor.resize(Terminal::Container(id.clone()), 100, 30)).await.unwrap();
    fs::File::from(input).write_all(b"hello\n").unwrap();
    assert_eq!(pod.exit_of(&id).await.code, 0);
    let lines = pod.log_lines(&id);
    for line in ["/dev/pts/0\r", "24 80\r", "err\r", "c\r", "got hello\r", "30 100\r"] {
        assert!(lines.contains(&format!("stdout {line}")), "{line:?}: {lines:?}");
    }
    let text = within(tokio::task::spawn_blocking(move || read(reader))).await.unwrap();
    assert_eq!(text.as_bytes(), content(&pod.log(&id)));
    pod.end().await;
}

#[tokio::test]
async fn clients_attach_and_a_slow_one_is_let_go() {
    let mut pod = Pod::start().await;
    let mut wanted =
        pod.container(process(&["sh", "-c", "while read line; do echo out $line; echo err $line >&2; done"]));
    wanted.stdin = true;
    let id = pod.run(wanted).await;
    let (out, to_out) = pipe();
    let (err, to_err) = pipe();
    let input = within(pod.monitor.attach(&id, true, Some(to_out), Some(to_err))).await.unwrap().unwrap();
    let mut input = fs::File::from(input);
    input.write_all(b"one\n").unwrap();
    pod.wait_for_log(&id, "out one").await;
    let (late, to_late) = pipe();
    assert!(within(pod.monitor.attach(&id, false, Some(to_late), None)).await.unwrap().is_none());
    // This one never reads, and gets more than a pipe holds.
    let (slow, to_slow) = pipe();
    within(pod.monitor.attach(&id, false, Some(to_slow), None)).await.unwrap();
    let line = vec![b'x'; 8000];
    let reading = [out, late, err].map(|fd| tokio::task::spawn_blocking(move || read(fd)));
    let feed = tokio::task::spawn_blocking(move || {
        for _ in 0..200 {
            input.write_all(&line).unwrap();
            input.write_all(b"\n").unwrap();
        }
        drop(input);
    });
    within(feed).await.unwrap();
    // The client is gone, the container's input is still open: that is the monitor's end.
    assert!(within(pod.monitor.state()).await.unwrap().containers[0].exit.is_none());
    within(pod.monitor.close_stdin(&id)).await.unwrap();
    assert_eq!(pod.exit_of(&id).await.code, 0);
    let [out, late, err] = reading;
    let (out, late, err) =
        (within(out).await.unwrap(), within(late).await.unwrap(), within(err).await.unwrap());
    assert_eq!(out.lines().count(), 201);
    assert_eq!(late.lines().count(), 200);
    assert_eq!(err.lines().count(), 201);
    assert_eq!(out.lines().next(), Some("out one"));
    let slow = within(tokio::task::spawn_blocking(move || read(slow))).await.unwrap();
    assert!(slow.len() < out.len(), "a pipe of {} bytes held everything", slow.len());
    pod.end().await;
}
