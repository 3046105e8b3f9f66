//! Addresses, refusals, WebSocket and TLS.

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use crisp_stream::{AttachRequest, ServerError, StreamConfig, Tls};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName},
};

use crate::client::{Lab, SPDY_V4, Spdy, ask, parts, request, shell};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn addresses_that_are_guessed_used_or_old_are_not_found() {
    let lab = Lab::start(StreamConfig { token_life: Duration::ZERO, ..StreamConfig::default() }).await;
    let old = lab.shell("true");
    assert!(ask(&old, SPDY_V4).await.starts_with("HTTP/1.1 404"));
    let base = old.rsplit_once('/').unwrap().0;
    assert!(ask(&format!("{base}/{}", "0".repeat(32)), SPDY_V4).await.starts_with("HTTP/1.1 404"));
    assert!(ask(&format!("{base}/../exec"), SPDY_V4).await.starts_with("HTTP/1.1 404"));

    let lab = Lab::start(StreamConfig::default()).await;
    let address = lab.shell("true");
    let _first = Spdy::connect(&address, SPDY_V4).await;
    assert!(ask(&address, SPDY_V4).await.starts_with("HTTP/1.1 404"));
    let wrong_kind = lab.shell("true").replace("/exec/", "/attach/");
    assert!(ask(&wrong_kind, SPDY_V4).await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn requests_without_a_known_upgrade_are_refused() {
    let lab = Lab::start(StreamConfig::default()).await;
    for (headers, answer) in [
        ("", "HTTP/1.1 400"),
        ("Connection: Upgrade\r\nUpgrade: h2c\r\n", "HTTP/1.1 400"),
        ("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 8\r\n", "HTTP/1.1 400"),
        ("Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v9.x\r\n", "HTTP/1.1 403"),
    ] {
        let head = ask(&lab.shell("true"), headers).await;
        assert!(head.starts_with(answer), "{headers}: {head}");
        assert_eq!(
            head.contains("x-accepted-stream-protocol-versions: v4.channel.k8s.io"),
            answer.ends_with("403")
        );
    }
}

#[tokio::test]
async fn requests_that_contradict_themselves_get_no_address() {
    let lab = Lab::start(StreamConfig::default()).await;
    let mut both = shell("true");
    both.tty = true;
    assert!(matches!(lab.server.exec_url(both), Err(ServerError::Invalid(_))));
    let container = crisp_model::ContainerId::random();
    let none = AttachRequest { container, tty: false, stdin: false, stdout: false, stderr: false };
    assert!(matches!(lab.server.attach_url(none), Err(ServerError::Invalid(_))));
}

fn upgrade(protocol: &str) -> String {
    format!(
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: {protocol}\r\n"
    )
}

/// A client's message: masked with zeroes, shorter than 126 bytes.
fn message(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x80 | opcode, 0x80 | u8::try_from(payload.len()).unwrap(), 0, 0, 0, 0];
    out.extend(payload);
    out
}

/// The server's messages until it closes: (opcode, payload).
async fn messages(socket: &mut TcpStream, mut buffer: BytesMut) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    loop {
        while let [first, length, ..] = buffer[..] {
            let length = usize::from(length);
            assert!(length < 126, "a long message");
            if buffer.len() < 2 + length {
                break;
            }
            let whole = buffer.split_to(2 + length);
            found.push((first & 0x0f, whole[2..].to_vec()));
            if first & 0x0f == 8 {
                return found;
            }
        }
        if socket.read_buf(&mut buffer).await.unwrap() == 0 {
            return found;
        }
    }
}

#[tokio::test]
async fn websocket_version_5_closes_stdin() {
    let lab = Lab::start(StreamConfig::default()).await;
    let address = lab.shell("cat; echo e >&2");
    let (host, path) = parts(&address);
    let mut socket = TcpStream::connect(host).await.unwrap();
    let (head, buffer) = request(&mut socket, path, &upgrade("v5.channel.k8s.io")).await;
    assert!(head.contains("sec-websocket-protocol: v5.channel.k8s.io"), "{head}");
    for wire in [message(9, b"?"), message(2, b"\0hi"), message(2, &[255, 0])] {
        socket.write_all(&wire).await.unwrap();
    }
    let found = timeout(SOON, messages(&mut socket, buffer)).await.unwrap();
    assert!(found.contains(&(10, b"?".to_vec())), "{found:?}");
    assert!(found.contains(&(2, b"\x01hi".to_vec())), "{found:?}");
    assert!(found.contains(&(2, b"\x02e\n".to_vec())), "{found:?}");
    let [.., (2, status), (8, close)] = &found[..] else { panic!("{found:?}") };
    assert_eq!(status[0], 3);
    assert!(String::from_utf8_lossy(&status[1..]).contains("Success"));
    assert_eq!(close[..], 1000u16.to_be_bytes());
}

#[tokio::test]
async fn websocket_in_base64() {
    let lab = Lab::start(StreamConfig::default()).await;
    let address = lab.shell("read a; echo $a$a; exit 3");
    let (host, path) = parts(&address);
    let mut socket = TcpStream::connect(host).await.unwrap();
    let (_, buffer) = request(&mut socket, path, &upgrade("base64.channel.k8s.io")).await;
    // "hi\n"
    socket.write_all(&message(1, b"0aGkK")).await.unwrap();
    let found = timeout(SOON, messages(&mut socket, buffer)).await.unwrap();
    // "hihi\n"
    assert!(found.contains(&(1, b"1aGloaQo=".to_vec())), "{found:?}");
    assert_eq!(found.last().unwrap().0, 8);
}

#[tokio::test]
async fn a_broken_websocket_ends_the_session() {
    let lab = Lab::start(StreamConfig::default()).await;
    let address = lab.shell("exec sleep 1000");
    let (host, path) = parts(&address);
    let mut socket = TcpStream::connect(host).await.unwrap();
    request(&mut socket, path, &upgrade("v5.channel.k8s.io")).await;
    timeout(SOON, lab.busy()).await.unwrap();
    // Not masked.
    socket.write_all(&[0x82, 1, 0]).await.unwrap();
    timeout(SOON, lab.quiet()).await.unwrap();
}

#[tokio::test]
async fn over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, signed.cert.pem()).unwrap();
    std::fs::write(&key, signed.signing_key.serialize_pem()).unwrap();
    assert!(Tls::from_files(&key, &cert).is_err());
    let tls = Tls::from_files(&cert, &key).unwrap();
    let lab = Lab::start(StreamConfig { tls: Some(tls), ..StreamConfig::default() }).await;

    let mut roots = RootCertStore::empty();
    roots.add(signed.cert.der().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let address = lab.shell("head -c 3000000 /dev/zero");
    assert!(address.starts_with("https://"), "{address}");
    let socket = TcpStream::connect(parts(&address).0).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let socket = TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap();
    let mut spdy = Spdy::over(Box::new(socket), &address, SPDY_V4).await;
    spdy.open_process().await;
    let (out, _) = timeout(SOON, spdy.rest(5)).await.unwrap();
    assert_eq!(out.len(), 3_000_000);
}
