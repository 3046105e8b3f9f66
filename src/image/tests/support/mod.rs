//! What the tests of this crate share: a registry, images, a store.
#![allow(dead_code)]

pub mod fake;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use crisp_image::{ImageStore, ImageStoreConfig};

/// Debian's docker-registry on a free port of loopback; killed when dropped.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    pub port: u16,
    _data: tempfile::TempDir,
}

impl Registry {
    /// Starts one; `more` is appended to its configuration.
    pub fn start(more: &str) -> Self {
        let data = tempfile::tempdir().expect("folder");
        let port = free_port();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\nhttp:\n  addr: 127.0.0.1:{port}\n{more}",
            data.path().join("registry").display()
        );
        let path = data.path().join("config.yml");
        std::fs::write(&path, config).expect("config");
        let child = Command::new("docker-registry")
            .args(["serve", &path.display().to_string()])
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is installed");
        wait_for_port(port);
        Self { child, port, _data: data }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Copies an OCI layout's image to the registry with skopeo.
    pub fn push(&self, layout: &Path, tag: &str, name: &str, options: &[&str]) {
        run(Command::new("skopeo")
            .args(["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"])
            .args(options)
            .arg(format!("oci:{}:{tag}", layout.display()))
            .arg(format!("docker://{}/{name}", self.address())));
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address").port()
}

/// Listening is the event; connecting is how it is seen.
pub fn wait_for_port(port: u16) {
    let until = std::time::Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(std::time::Instant::now() < until, "nothing listens on port {port}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs a program that must succeed.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Makes an image of some folders, each a layer, with umoci. Returns the OCI layout; the tag is `latest`.
pub fn make_image(at: &Path, layers: &[&Path]) -> PathBuf {
    let layout = at.join("layout");
    let image = format!("{}:latest", layout.display());
    run(Command::new("umoci").args(["init", "--layout"]).arg(&layout));
    run(Command::new("umoci").args(["new", "--image", &image]));
    for layer in layers {
        run(Command::new("umoci").args(["insert", "--image", &image]).arg(layer).arg("/"));
    }
    layout
}

/// The program that pulls into a folder: for what can only be seen from outside a process.
pub fn example() -> PathBuf {
    let test = std::env::current_exe().expect("own path");
    let path = test.parent().and_then(Path::parent).expect("target folder").join("examples/pull");
    assert!(
        path.exists(),
        "{path:?} is built by `cargo test -p crisp-image`, or by `cargo build --examples`"
    );
    path
}

/// A configuration below one folder, quick to give up.
pub fn config(root: &Path) -> ImageStoreConfig {
    ImageStoreConfig {
        root: root.join("images"),
        containers_root: root.join("containers"),
        certs_dirs: vec![root.join("certs.d")],
        pull_progress_timeout: Duration::from_secs(10),
        retry_backoff: Duration::from_millis(20),
        ..ImageStoreConfig::default()
    }
}

pub async fn open(root: &Path) -> ImageStore {
    ImageStore::open(config(root)).await.expect("open").0
}

/// Runs a server on loopback that answers each request by `answer`; lives as long as the test.
pub fn serve(answer: impl Fn(&str, &[String], &mut TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("address").port();
    let answer = std::sync::Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { break };
            let answer = std::sync::Arc::clone(&answer);
            std::thread::spawn(move || {
                let mut lines = BufReader::new(stream.try_clone().expect("clone")).lines();
                let Some(Ok(request)) = lines.next() else { return };
                let headers: Vec<String> =
                    lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
                answer(&request, &headers, &mut stream);
            });
        }
    });
    port
}

/// Writes a whole answer and closes the connection.
pub fn reply(stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]) {
    let head =
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n", body.len());
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(body);
}

/// Fetches from a registry without any care.
pub fn http_get(port: u16, path: &str, headers: &str) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connect");
    write!(stream, "GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n{headers}\r\n")
        .expect("send");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("read");
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("head") + 4;
    (String::from_utf8_lossy(&answer[..end]).into_owned(), answer[end..].to_vec())
}
