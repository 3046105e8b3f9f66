//! The stream server against the clients that Kubernetes uses: client-go's remotecommand and portforward, driven by
//! the Go program in `clients/streamclient`. The server is crisp-stream's example over local processes: containers
//! are not needed to see that both sides understand each other.

#![allow(missing_docs, clippy::unwrap_used)]

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

struct Programs {
    client: PathBuf,
    server: PathBuf,
}

/// Built once for all tests of this file; both builds are quick when nothing has changed.
static PROGRAMS: LazyLock<Programs> = LazyLock::new(|| {
    let folder = &crisp_integration::bed::manifest_folder();
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into()));
    let cache = std::env::var_os("CRISP_CACHE").map_or_else(|| home.join(".cache/crisp"), PathBuf::from);
    let client = cache.join("bin/streamclient");
    let go = Path::new("/usr/local/go/bin/go");
    let go = if go.exists() { go } else { Path::new("go") };
    let build = ["-n", "15"].map(str::to_owned);
    run(Command::new("nice")
        .args(build)
        .arg(go)
        .args(["build", "-o"])
        .arg(&client)
        .arg(".")
        .current_dir(folder.join("clients/streamclient")));
    run(Command::new(env!("CARGO"))
        .args(["build", "--quiet", "-p", "crisp-stream", "--example", "serve"])
        .current_dir(folder));
    // This test is <target>/<profile>/deps/streams-<hash>.
    let this = std::env::current_exe().unwrap();
    let server = this.ancestors().nth(2).unwrap().join("examples/serve");
    Programs { client, server }
});

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}

fn scenarios(patterns: &[&str]) {
    let Programs { client, server } = &*PROGRAMS;
    run(Command::new(client).arg(server).args(patterns));
}

#[test]
fn processes_over_spdy() {
    scenarios(&["spdy-[^f]*"]);
}

#[test]
fn processes_over_websocket() {
    scenarios(&["ws-*"]);
}

#[test]
fn ports_over_spdy() {
    scenarios(&["spdy-forward-*"]);
}

#[test]
fn ports_over_spdy_in_websocket() {
    scenarios(&["tunnel-forward-*"]);
}
