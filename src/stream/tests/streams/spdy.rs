//! The SPDY server against clients that are strict, rude, slow or suddenly gone.

use std::time::Duration;

use crisp_model::SandboxId;
use crisp_stream::{
    PortForwardRequest, StreamConfig,
    spdy::frame::{self, Frame},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::timeout,
};

use crate::client::{Lab, SPDY_FORWARD, SPDY_V4, Spdy, bytes_of, shell};

/// Long enough for a busy machine; nothing waits for it to pass.
const SOON: Duration = Duration::from_secs(20);

fn status(frames: &[Frame]) -> String {
    String::from_utf8(bytes_of(frames, 1)).unwrap()
}

#[tokio::test]
async fn a_process_with_all_streams() {
    let lab = Lab::start(StreamConfig::default()).await;
    let mut spdy = Spdy::connect(&lab.shell("cat; echo oops >&2; exit 5"), SPDY_V4).await;
    spdy.open_process().await;
    spdy.data(3, b"hello", true).await;
    let (out, frames) = timeout(SOON, spdy.rest(5)).await.unwrap();
    assert_eq!(out, b"hello");
    assert_eq!(bytes_of(&frames, 7), b"oops\n");
    assert!(status(&frames).contains(r#""message":"5""#), "{}", status(&frames));
    for stream in [1, 3, 7] {
        let fin = |f: &&Frame| matches!(f, Frame::Data { stream: s, fin: true, .. } if *s == stream);
        assert_eq!(frames.iter().filter(fin).count(), 1, "stream {stream} ends once");
    }
    assert!(matches!(frames.last(), Some(Frame::GoAway { .. })));
    lab.quiet().await;
}

#[tokio::test]
async fn the_windows_of_a_client_that_has_them_are_heeded() {
    let lab = Lab::start(StreamConfig::default()).await;
    let mut spdy = Spdy::connect(&lab.shell("head -c 5000 /dev/zero"), SPDY_V4).await;
    spdy.write(&frame::settings(1000)).await;
    spdy.open_process().await;
    let mut got = 0;
    while got < 1000 {
        if let Some(Frame::Data { stream: 5, payload, .. }) = timeout(SOON, spdy.frame()).await.unwrap() {
            got += payload.len();
        }
    }
    assert_eq!(got, 1000);
    assert_eq!(timeout(SOON, spdy.until_pong(1, 5)).await.unwrap(), 0, "the window is used up");
    spdy.write(&frame::window_update(5, 700)).await;
    while got < 1700 {
        if let Some(Frame::Data { stream: 5, payload, .. }) = timeout(SOON, spdy.frame()).await.unwrap() {
            got += payload.len();
        }
    }
    assert_eq!(got, 1700);
    assert_eq!(timeout(SOON, spdy.until_pong(3, 5)).await.unwrap(), 0, "the window is used up again");
    // A larger initial window opens that of every stream.
    spdy.write(&frame::settings(10_000)).await;
    let (rest, frames) = timeout(SOON, spdy.rest(5)).await.unwrap();
    assert_eq!(got + rest.len(), 5000);
    assert!(status(&frames).contains("Success"), "{}", status(&frames));
}

#[tokio::test]
async fn the_window_of_the_session_is_heeded_too() {
    let lab = Lab::start(StreamConfig::default()).await;
    let mut spdy = Spdy::connect(&lab.shell("head -c 300000 /dev/zero"), SPDY_V4).await;
    // One byte more than the 64 KiB that everybody has.
    spdy.write(&frame::window_update(0, 1)).await;
    spdy.open_process().await;
    let mut got = 0;
    while got < 65537 {
        if let Some(Frame::Data { stream: 5, payload, .. }) = timeout(SOON, spdy.frame()).await.unwrap() {
            got += payload.len();
        }
    }
    assert_eq!(timeout(SOON, spdy.until_pong(1, 5)).await.unwrap(), 0);
    assert_eq!(got, 65537);
    spdy.write(&frame::window_update(0, 1 << 20)).await;
    let (rest, _) = timeout(SOON, spdy.rest(5)).await.unwrap();
    assert_eq!(got + rest.len(), 300_000);
}

#[tokio::test]
async fn a_client_that_waits_for_credit_gets_it() {
    const TOTAL: usize = 1 << 20;
    let lab = Lab::start(StreamConfig::default()).await;
    let mut spdy = Spdy::connect(&lab.shell("wc -c"), SPDY_V4).await;
    spdy.open_process().await;
    let (mut stream, mut session, mut sent) = (64 * 1024, 64 * 1024, 0);
    while sent < TOTAL {
        let size = (TOTAL - sent).min(stream).min(session).min(10_000);
        if size > 0 {
            spdy.data(3, &vec![7; size], sent + size == TOTAL).await;
            sent += size;
            stream -= size;
            session -= size;
            continue;
        }
        match timeout(SOON, spdy.frame()).await.expect("credit").unwrap() {
            Frame::WindowUpdate { stream: 0, delta } => session += delta as usize,
            Frame::WindowUpdate { stream: 3, delta } => stream += delta as usize,
            _ => {}
        }
    }
    let (out, _) = timeout(SOON, spdy.rest(5)).await.unwrap();
    assert_eq!(String::from_utf8(out).unwrap().trim(), TOTAL.to_string());
}

#[tokio::test]
async fn a_client_that_goes_takes_its_process_with_it() {
    let lab = Lab::start(StreamConfig::default()).await;
    let mut spdy = Spdy::connect(&lab.shell("exec sleep 1000"), SPDY_V4).await;
    spdy.open_process().await;
    timeout(SOON, lab.busy()).await.unwrap();
    drop(spdy);
    timeout(SOON, lab.quiet()).await.expect("the session ends with its client");
}

#[tokio::test]
async fn a_client_that_goes_is_noticed_behind_input_that_nobody_reads() {
    let lab = Lab::start(StreamConfig::default()).await;
    let mut spdy = Spdy::connect(&lab.shell("exec sleep 1000"), SPDY_V4).await;
    spdy.open_process().await;
    timeout(SOON, lab.busy()).await.unwrap();
    // Until nothing fits into any buffer on the way.
    let chunk = vec![0; 256 * 1024];
    while timeout(Duration::from_millis(500), spdy.data(3, &chunk, false)).await.is_ok() {}
    drop(spdy);
    timeout(SOON, lab.quiet()).await.expect("the session ends with its client");
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_nobody_else() {
    let lab = Lab::start(StreamConfig::default()).await;
    let mut slow = Spdy::connect(&lab.shell("exec cat /dev/zero"), SPDY_V4).await;
    slow.open_process().await;
    timeout(SOON, lab.busy()).await.unwrap();
    for _ in 0..3 {
        let mut quick = Spdy::connect(&lab.shell("echo done"), SPDY_V4).await;
        quick.open_process().await;
        let (out, _) = timeout(SOON, quick.rest(5)).await.expect("another client is served");
        assert_eq!(out, b"done\n");
    }
    drop(slow);
    timeout(SOON, lab.quiet()).await.unwrap();
}

#[tokio::test]
async fn rude_clients_are_answered_as_the_draft_says() {
    let lab = Lab::start(StreamConfig::default()).await;
    let mut spdy = Spdy::connect(&lab.shell("cat"), SPDY_V4).await;
    spdy.open(&[("streamType", "nonsense")]).await;
    assert_eq!(spdy.frame().await, Some(Frame::Reset { stream: 1, status: 1 }));
    spdy.data(99, b"x", false).await;
    assert_eq!(spdy.frame().await, Some(Frame::Reset { stream: 99, status: 2 }));
    spdy.write(&frame::ping(1)).await;
    assert_eq!(spdy.frame().await, Some(Frame::Ping { id: 1 }));
    // What is no SPDY at all ends the session.
    spdy.write(b"\x80\x03\x00\x01\x00\xff\xff\xff").await;
    let (_, frames) = timeout(SOON, spdy.rest(5)).await.unwrap();
    assert!(matches!(frames[..], [] | [Frame::GoAway { .. }]), "{frames:?}");
}

#[tokio::test]
async fn streams_that_do_not_come_and_silence_end_a_connection() {
    let short = Duration::from_millis(200);
    let lab = Lab::start(StreamConfig { creation_timeout: short, ..StreamConfig::default() }).await;
    let mut spdy = Spdy::connect(&lab.shell("cat"), SPDY_V4).await;
    spdy.open(&[("streamType", "error")]).await;
    timeout(SOON, spdy.rest(5)).await.expect("the missing streams are not waited for");

    let lab = Lab::start(StreamConfig { idle_timeout: short, ..StreamConfig::default() }).await;
    let mut spdy = Spdy::connect(&lab.shell("exec sleep 1000"), SPDY_V4).await;
    spdy.open_process().await;
    timeout(SOON, spdy.rest(5)).await.expect("an idle connection is closed");
    timeout(SOON, lab.quiet()).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_dropped_closes_everything() {
    let Lab { server, backend } = Lab::start(StreamConfig::default()).await;
    let mut spdy = Spdy::connect(&server.exec_url(shell("exec sleep 1000")).unwrap(), SPDY_V4).await;
    spdy.open_process().await;
    backend.live.subscribe().wait_for(|live| *live == 1).await.unwrap();
    drop(server);
    timeout(SOON, backend.live.subscribe().wait_for(|live| *live == 0)).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_forwarded_connection_that_takes_nothing_is_given_up_for_the_others() {
    let stall_timeout = Duration::from_millis(300);
    let lab = Lab::start(StreamConfig { stall_timeout, ..StreamConfig::default() }).await;
    let stuck = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port().to_string();
    let request = PortForwardRequest { sandbox: SandboxId::random(), ports: Vec::new() };
    let mut spdy = Spdy::connect(&lab.server.port_forward_url(request).unwrap(), SPDY_FORWARD).await;
    for (listener, id) in [(&stuck, "0"), (&echo, "1")] {
        for kind in ["error", "data"] {
            spdy.open(&[("streamType", kind), ("port", &port(listener)), ("requestID", id)]).await;
        }
    }
    let (_held, _) = stuck.accept().await.unwrap();
    let (mut other, _) = echo.accept().await.unwrap();
    // More than every buffer on the way to a pod that never reads; and then the other connection's byte.
    let feeding = async {
        for _ in 0..200 {
            spdy.data(3, &vec![0; 128 * 1024], false).await;
        }
        spdy.data(7, b"x", false).await;
        spdy
    };
    let mut spdy = timeout(SOON, feeding).await.expect("the session goes on");
    let mut byte = [0];
    timeout(SOON, other.read_exact(&mut byte)).await.expect("the other connection goes on").unwrap();
    other.write_all(b"y").await.unwrap();
    let (mut reset, mut answered) = (false, false);
    while !(reset && answered) {
        match timeout(SOON, spdy.frame()).await.unwrap().expect("the session goes on") {
            Frame::Reset { stream: 3, .. } => reset = true,
            Frame::Data { stream: 7, payload, .. } => answered = &payload[..] == b"y",
            _ => {}
        }
    }
}
