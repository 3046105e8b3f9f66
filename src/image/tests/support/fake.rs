//! A registry in memory that misbehaves as it is told, and images for it.

use std::{
    collections::HashMap,
    io::Write,
    net::TcpStream,
    sync::{Arc, Mutex},
    time::Duration,
};

use crisp_image::Digest;
use serde_json::json;

use super::{reply, serve};

/// What the registry does wrong with a request for a blob.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Breaks the connection after so many bytes of the answer.
    BreakAfter(usize),
    /// Answers with a status and headers.
    Status(&'static str, &'static str),
    /// Other bytes of the same length.
    WrongBytes,
    /// More bytes than there are.
    TooLong,
    /// Sends so many bytes, then nothing, with the connection open.
    StallAfter(usize),
    /// One byte at a time for the first so many.
    Trickle(usize),
    /// Sends the client elsewhere.
    Redirect(String),
    /// Knows no ranges, and breaks after so many bytes.
    NoRangeBreakAfter(usize),
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub path: String,
    pub headers: Vec<String>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<String> {
        self.headers.iter().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    }
}

#[derive(Debug, Default)]
struct State {
    content: HashMap<String, (String, Vec<u8>)>,
    /// For each blob, what goes wrong with its next requests.
    faults: HashMap<String, Vec<Fault>>,
    seen: Vec<Seen>,
    /// What is demanded in `Authorization`, and the challenge without it.
    auth: Option<(String, String)>,
}

/// The registry; its server ends with the process.
#[derive(Debug, Clone)]
pub struct Fake {
    pub port: u16,
    state: Arc<Mutex<State>>,
}

impl Fake {
    pub fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let port = serve(move |request, headers, stream| answer(&shared, request, headers, stream));
        Self { port, state }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Adds an image of some compressed layers, each given with its archive.
    pub fn add(&self, name: &str, layers: &[(Vec<u8>, Vec<u8>)]) -> Digest {
        let diff_ids: Vec<Digest> = layers.iter().map(|(archive, _)| Digest::of(archive)).collect();
        let config = json!({"os": "linux", "architecture": architecture(), "config": {"Cmd": [name]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        let config = config.to_string().into_bytes();
        let id = Digest::of(&config);
        let describe = |bytes: &[u8], kind: &str| json!({"mediaType": kind, "digest": Digest::of(bytes), "size": bytes.len()});
        let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": describe(&config, "application/vnd.oci.image.config.v1+json"),
            "layers": layers.iter().map(|(_, blob)| describe(blob, "application/vnd.oci.image.layer.v1.tar+gzip")).collect::<Vec<_>>()});
        let manifest = manifest.to_string().into_bytes();
        let mut state = self.state.lock().expect("state");
        let blobs = layers.iter().map(|(_, blob)| blob.clone()).chain([config]);
        for blob in blobs {
            state.content.insert(
                format!("/v2/{name}/blobs/{}", Digest::of(&blob)),
                ("application/octet-stream".into(), blob),
            );
        }
        let kind = "application/vnd.oci.image.manifest.v1+json".to_owned();
        state.content.insert(
            format!("/v2/{name}/manifests/{}", Digest::of(&manifest)),
            (kind.clone(), manifest.clone()),
        );
        state.content.insert(format!("/v2/{name}/manifests/latest"), (kind, manifest));
        id
    }

    /// The next requests for a blob go wrong, one after the other.
    pub fn fail(&self, blob: &[u8], faults: Vec<Fault>) {
        self.state.lock().expect("state").faults.insert(Digest::of(blob).to_string(), faults);
    }

    pub fn demand(&self, authorization: &str, challenge: &str) {
        self.state.lock().expect("state").auth = Some((authorization.into(), challenge.into()));
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.state.lock().expect("state").seen.clone()
    }

    /// Requests for a blob.
    pub fn asked(&self, blob: &[u8]) -> Vec<Seen> {
        let digest = Digest::of(blob).to_string();
        self.seen().into_iter().filter(|seen| seen.path.contains(&digest)).collect()
    }
}

pub fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

fn answer(state: &Mutex<State>, request: &str, headers: &[String], stream: &mut TcpStream) {
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let plain = path.split('?').next().unwrap_or_default().to_owned();
    let seen = Seen { path: path.clone(), headers: headers.to_vec() };
    let (content, fault, refused) = {
        let mut state = state.lock().expect("state");
        state.seen.push(seen.clone());
        let refused =
            state.auth.clone().filter(|(wanted, _)| seen.header("authorization").as_deref() != Some(wanted));
        let digest = plain.rsplit('/').next().unwrap_or_default();
        let fault = match state.faults.get_mut(digest) {
            Some(faults) if refused.is_none() && !faults.is_empty() => Some(faults.remove(0)),
            _ => None,
        };
        (state.content.get(&plain).cloned(), fault, refused)
    };
    if let Some((_, challenge)) = refused {
        return reply(stream, "401 Unauthorized", &format!("www-authenticate: {challenge}\r\n"), b"");
    }
    let Some((kind, bytes)) = content else {
        return reply(
            stream,
            "404 Not Found",
            "",
            br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no such thing"}]}"#,
        );
    };
    let start: usize = seen
        .header("range")
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok())
        .unwrap_or(0);
    match fault {
        Some(Fault::Status(status, more)) => reply(stream, status, more, b""),
        Some(Fault::Redirect(location)) => {
            reply(stream, "307 Temporary Redirect", &format!("location: {location}\r\n"), b"")
        }
        Some(Fault::WrongBytes) => reply(stream, "200 OK", "", &vec![b'?'; bytes.len()]),
        Some(Fault::TooLong) => reply(stream, "200 OK", "", &[bytes, vec![0; 100]].concat()),
        Some(Fault::NoRangeBreakAfter(count)) => part(stream, "200 OK", &kind, "", &bytes, count),
        fault => {
            let rest = &bytes[start.min(bytes.len())..];
            let range =
                format!("content-range: bytes {start}-{}/{}\r\n", bytes.len().max(1) - 1, bytes.len());
            let (status, range) =
                if start > 0 { ("206 Partial Content", range.as_str()) } else { ("200 OK", "") };
            match fault {
                Some(Fault::BreakAfter(count)) => part(stream, status, &kind, range, rest, count),
                Some(Fault::StallAfter(count)) => {
                    part(stream, status, &kind, range, rest, count);
                    // Until the client gives up.
                    let _ = std::io::Read::read(stream, &mut [0]);
                }
                Some(Fault::Trickle(count)) => {
                    part(stream, status, &kind, range, rest, 0);
                    let _ = stream.set_nodelay(true);
                    for byte in rest.iter().take(count) {
                        let _ = stream.write_all(&[*byte]);
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    let _ = stream.write_all(&rest[count.min(rest.len())..]);
                }
                _ => part(stream, status, &kind, range, rest, rest.len()),
            }
        }
    }
}

fn part(stream: &mut TcpStream, status: &str, kind: &str, more: &str, bytes: &[u8], count: usize) {
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n{more}\r\n",
        bytes.len()
    );
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(&bytes[..count.min(bytes.len())]);
}

/// A layer with one file of `size` bytes that do not compress: its archive and its gzip.
pub fn layer(name: &str, size: usize) -> (Vec<u8>, Vec<u8>) {
    let folder = tempfile::tempdir().expect("folder");
    let mut seed = name.bytes().fold(0x9e3779b97f4a7c15u64, |s, b| s.rotate_left(7) ^ u64::from(b));
    let content: Vec<u8> = (0..size)
        .map(|_| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 56) as u8
        })
        .collect();
    std::fs::write(folder.path().join(name), content).expect("file");
    let tar = std::process::Command::new("tar")
        .arg("-C")
        .arg(folder.path())
        .args(["-cf", "-", "."])
        .output()
        .expect("tar");
    assert!(tar.status.success());
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&tar.stdout).expect("gzip");
    let blob = encoder.finish().expect("gzip");
    (tar.stdout, blob)
}
