//! What lies between a pull and its registry: proxies, HTTP/2, certificates of the client, helpers for credentials.

mod support;

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
};

use support::{
    Registry, example,
    fake::{self, Fake},
    free_port, make_image, reply, serve, wait_for_port,
};

fn write(path: &Path, text: &str) -> String {
    std::fs::create_dir_all(path.parent().expect("folder")).expect("folder");
    std::fs::write(path, text).expect("file");
    path.display().to_string()
}

/// Pulls in a process of its own, with these variables and no others that matter.
fn pull(folder: &Path, name: &str, variables: &[(&str, String)]) -> Output {
    let mut command = Command::new(example());
    command.arg(folder).arg(name);
    for unwanted in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "DOCKER_CONFIG"] {
        command.env_remove(unwanted).env_remove(unwanted.to_lowercase());
    }
    command.envs(variables.iter().map(|(key, value)| (key, value))).output().expect("the example runs")
}

fn assert_pulled(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A proxy that notes for whom it was asked.
struct Proxy {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// Sends everything to one port of loopback.
    fn start(port: u16) -> Self {
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let notes = Arc::clone(&asked);
        let here = serve(move |request, headers, stream| {
            notes.lock().expect("notes").push(request.to_owned());
            let mut words = request.split(' ');
            let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let mut onward = TcpStream::connect(("127.0.0.1", port)).expect("the registry");
            if method == "CONNECT" {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").expect("answer");
                let (mut from, mut to) =
                    (stream.try_clone().expect("clone"), onward.try_clone().expect("clone"));
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Write);
                });
                let _ = std::io::copy(&mut onward, stream);
                return;
            }
            // An absolute form (RFC 9112, 3.2.2); anything else is no request to a proxy.
            let Some(path) = target.strip_prefix("http://").and_then(|rest| rest.split_once('/')) else {
                return reply(stream, "400 Bad Request", "", b"");
            };
            let headers: Vec<&str> = headers
                .iter()
                .map(String::as_str)
                .filter(|h| !h.to_lowercase().starts_with("connection"))
                .collect();
            let text = format!(
                "{method} /{} HTTP/1.1\r\nconnection: close\r\n{}\r\n\r\n",
                path.1,
                headers.join("\r\n")
            );
            onward.write_all(text.as_bytes()).expect("ask");
            let mut answer = Vec::new();
            onward.read_to_end(&mut answer).expect("answer");
            let _ = stream.write_all(&answer);
        });
        Self { url: format!("http://127.0.0.1:{here}"), asked }
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().expect("notes"))
    }
}

/// nginx with TLS and HTTP/2, in front of a registry; killed when dropped.
struct Nginx {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl Nginx {
    fn start(folder: &Path, registry: u16, certificates: &Certificates) -> Self {
        let port = free_port();
        let path = |name: &str| folder.join(name).display().to_string();
        let (certificate, key) =
            (write(&folder.join("server.pem"), &certificates.server.0), path("server.key"));
        let authority = write(&folder.join("authority.pem"), &certificates.authority);
        write(&folder.join("server.key"), &certificates.server.1);
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|kind| format!("  {kind}_temp_path {};\n", path(kind)))
            .collect();
        let log = folder.join("access.log");
        let text = format!(
            "daemon off; master_process off; pid {pid}; error_log {errors};\nevents {{}}\nhttp {{\n{temporary}\
             log_format seen '$server_protocol $ssl_client_verify $status $request_uri';\n  access_log {log} seen;\n\
             server {{ listen 127.0.0.1:{port} ssl http2; ssl_certificate {certificate}; ssl_certificate_key {key};\n\
             ssl_client_certificate {authority}; ssl_verify_client optional;\n\
             location / {{ if ($ssl_client_verify != SUCCESS) {{ return 403; }}\n\
             proxy_pass http://127.0.0.1:{registry}; proxy_set_header Host $host:$server_port; }} }} }}\n",
            pid = path("nginx.pid"),
            errors = path("errors.log"),
            log = log.display(),
        );
        let configuration = write(&folder.join("nginx.conf"), &text);
        let child = Command::new("nginx")
            .args(["-e", &path("errors.log"), "-p", &folder.display().to_string(), "-c", &configuration])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx is installed");
        wait_for_port(port);
        Self { child, port, log }
    }

    fn seen(&self) -> String {
        std::fs::read_to_string(&self.log).expect("log")
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Certificates {
    authority: String,
    server: (String, String),
    client: (String, String),
}

fn certificates() -> Certificates {
    let authority_key = rcgen::KeyPair::generate().expect("key");
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    // One of the same name as what it signs would look self-signed.
    parameters.distinguished_name.push(rcgen::DnType::CommonName, "authority");
    let authority = parameters.self_signed(&authority_key).expect("authority");
    let issuer = rcgen::Issuer::new(parameters, authority_key);
    let pair = |name: &str| {
        let key = rcgen::KeyPair::generate().expect("key");
        let parameters = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        (parameters.signed_by(&key, &issuer).expect("certificate").pem(), key.serialize_pem())
    };
    Certificates { authority: authority.pem(), server: pair("127.0.0.1"), client: pair("client.test") }
}

/// A registry with one image, `image:1`.
fn registry(root: &Path) -> Registry {
    let tree = root.join("tree");
    write(&tree.join("file"), "content");
    let layout = make_image(root, &[&tree]);
    let registry = Registry::start("");
    registry.push(&layout, "latest", "image:1", &[]);
    registry
}

#[test]
fn http2_and_certificates_of_the_client() {
    let root = tempfile::tempdir().expect("folder");
    let (registry, tls) = (registry(root.path()), certificates());
    let nginx = Nginx::start(&root.path().join("nginx"), registry.port, &tls);
    let address = format!("127.0.0.1:{}", nginx.port);
    let name = format!("{address}/image:1");
    // Containerd's way, and Docker's.
    for (way, files) in
        [("hosts.toml", ["ca.pem", "mine.pem", "mine.key"]), ("files", ["ca.crt", "mine.cert", "mine.key"])]
    {
        let folder = root.path().join(way);
        let hosts = folder.join("certs.d").join(&address);
        write(&hosts.join(files[0]), &tls.authority);
        if way == "hosts.toml" {
            write(&hosts.join(way), &format!("server = \"https://{address}\"\nca = \"ca.pem\"\n"));
        }
        let refused = pull(&folder, &name, &[]);
        assert!(
            !refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("403"),
            "{way}"
        );
        write(&hosts.join(files[1]), &tls.client.0);
        write(&hosts.join(files[2]), &tls.client.1);
        if way == "hosts.toml" {
            let client = "client = [[\"mine.pem\", \"mine.key\"]]";
            write(&hosts.join(way), &format!("server = \"https://{address}\"\nca = \"ca.pem\"\n{client}\n"));
        }
        assert_pulled(&pull(&folder, &name, &[]));
    }
    let seen = nginx.seen();
    assert!(seen.lines().all(|line| line.starts_with("HTTP/2.0 ")), "{seen}");
    assert_eq!(
        seen.lines().filter(|l| l.starts_with("HTTP/2.0 SUCCESS 200 /v2/image/blobs/")).count(),
        4,
        "{seen}"
    );
}

#[test]
fn proxies_of_the_environment() {
    let root = tempfile::tempdir().expect("folder");
    let direct = Fake::start();
    direct.add("image", &[fake::layer("layer", 100_000)]);
    let proxy = Proxy::start(direct.port);
    let http = ("HTTP_PROXY", proxy.url.clone());
    // An address of this machine that is not loopback to anybody who looks at it.
    let far = format!("0.0.0.0:{}", direct.port);
    let folder = |case: &str| {
        let folder = root.path().join(case);
        write(&folder.join("certs.d").join(&far).join("hosts.toml"), &format!("server = \"http://{far}\"\n"));
        folder
    };
    assert_pulled(&pull(&folder("proxy"), &format!("{far}/image"), std::slice::from_ref(&http)));
    let asked = proxy.take();
    assert!(
        asked.len() >= 3 && asked.iter().all(|a| a.starts_with(&format!("GET http://{far}/v2/"))),
        "{asked:?}"
    );
    let spared = ("NO_PROXY", "0.0.0.0".to_owned());
    assert_pulled(&pull(&folder("spared"), &format!("{far}/image"), &[http.clone(), spared]));
    assert_eq!(proxy.take(), Vec::<String>::new(), "NO_PROXY");
    // What is on this machine the proxy could not find.
    assert_pulled(&pull(&folder("here"), &format!("{}/image", direct.address()), &[http]));
    assert_eq!(proxy.take(), Vec::<String>::new(), "loopback");

    // TLS goes through a tunnel.
    let (registry, tls) = (registry(root.path()), certificates());
    let nginx = Nginx::start(&root.path().join("nginx"), registry.port, &tls);
    let tunnel = Proxy::start(nginx.port);
    let (folder, far) = (root.path().join("tls"), format!("0.0.0.0:{}", nginx.port));
    let hosts = folder.join("certs.d").join(&far);
    write(&hosts.join("client.pem"), &format!("{}{}", tls.client.0, tls.client.1));
    let text = format!("server = \"https://{far}\"\nskip_verify = true\nclient = \"client.pem\"\n");
    write(&hosts.join("hosts.toml"), &text);
    assert_pulled(&pull(&folder, &format!("{far}/image:1"), &[("https_proxy", tunnel.url.clone())]));
    let asked = tunnel.take();
    assert!(
        !asked.is_empty() && asked.iter().all(|a| a.starts_with(&format!("CONNECT {far} "))),
        "{asked:?}"
    );
}

#[test]
fn a_helper_for_credentials() {
    let root = tempfile::tempdir().expect("folder");
    let registry = Fake::start();
    registry.add("image", &[fake::layer("layer", 1000)]);
    registry.demand("Basic dXNlcjpwYXNzd29yZA==", "Basic realm=\"test\"");
    let name = format!("{}/image", registry.address());
    let programs = root.path().join("bin");
    let asked = root.path().join("asked");
    let helper = |answer: &str| {
        let text = format!("#!/bin/sh\n{{ echo \"$1\"; cat; }} >> {}\n{answer}\n", asked.display());
        let path = programs.join("docker-credential-test");
        write(&path, &text);
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("mode");
    };
    let docker = root.path().join("docker");
    let variables = [
        ("DOCKER_CONFIG", docker.display().to_string()),
        ("PATH", format!("{}:{}", programs.display(), std::env::var("PATH").expect("PATH"))),
    ];
    let known = "echo '{\"ServerURL\":\"x\",\"Username\":\"user\",\"Secret\":\"password\"}'";
    let configuration = docker.join("config.json");
    for (case, text) in [
        ("host", format!(r#"{{"credHelpers":{{"{}":"test"}}}}"#, registry.address())),
        ("all", r#"{"credsStore":"test"}"#.to_owned()),
    ] {
        write(&configuration, &text);
        helper("echo 'credentials not found'; exit 1");
        let refused = pull(&root.path().join(case), &name, &variables);
        assert!(String::from_utf8_lossy(&refused.stderr).contains("Denied"), "{case}: {refused:?}");
        helper(known);
        assert_pulled(&pull(&root.path().join(case), &name, &variables));
    }
    let asked = std::fs::read_to_string(asked).expect("the helper was asked");
    let expected = format!("get\n{}\n", registry.address());
    assert!(asked.len() >= 4 * expected.len() && asked.replace(&expected, "").is_empty(), "{asked}");
    // One that is not there is an error that names it; one whose name is a path is not run.
    for (helper, says) in [("absent", "docker-credential-absent"), ("../test", "not a helper's name")] {
        write(&configuration, &format!(r#"{{"credsStore":"{helper}"}}"#));
        let failed = pull(&root.path().join("failed"), &name, &variables);
        assert!(String::from_utf8_lossy(&failed.stderr).contains(says), "{failed:?}");
    }
}

/// Where ids are not the host's, devices cannot be made; containers get theirs from the runtime anyway.
#[test]
fn devices_in_a_user_namespace() {
    let root = tempfile::tempdir().expect("folder");
    let tree = root.path().join("tree");
    write(&tree.join("dev/file"), "content");
    support::run(Command::new("mknod").arg(tree.join("dev/null")).args(["c", "1", "3"]));
    support::run(Command::new("mkfifo").arg(tree.join("dev/pipe")));
    let packed =
        Command::new("tar").arg("-C").arg(&tree).args(["-cf", "-", "."]).output().expect("tar").stdout;
    let registry = Fake::start();
    registry.add("image", &[(packed.clone(), packed)]);
    let name = format!("{}/image", registry.address());
    for (case, program, expected) in [
        ("host", &[][..], &["file", "null", "pipe"][..]),
        ("mapped", &["unshare", "--user", "--map-root-user"][..], &["file", "pipe"][..]),
    ] {
        let folder = root.path().join(case);
        let puller = example();
        let whole = [program, &[puller.to_str().expect("path")]].concat();
        support::run(Command::new(whole[0]).args(&whole[1..]).arg(&folder).arg(&name));
        let layer = std::fs::read_dir(folder.join("images/layers")).expect("layers").next();
        let devices = layer.expect("a layer").expect("entry").path().join("fs/dev");
        let mut found: Vec<_> = std::fs::read_dir(devices)
            .expect("files")
            .map(|entry| entry.expect("entry").file_name())
            .collect();
        found.sort();
        assert_eq!(found, expected, "{case}");
    }
}
