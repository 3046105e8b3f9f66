//! A stream server over local processes, driven over its standard input: one JSON request a line, one address a
//! line back. It is what tests with foreign clients talk to.
//!
//! ```text
//! {"exec": {"command": ["cat"], "stdin": true, "stdout": true}}
//! http://127.0.0.1:40321/exec/0f3a…
//! ```

#![allow(missing_docs)]

use std::sync::Arc;

use anyhow::Context;
use crisp_model::{ContainerId, SandboxId};
use crisp_stream::{AttachRequest, ExecRequest, PortForwardRequest, StreamConfig, StreamServer};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

#[path = "../tests/streams/local.rs"]
mod local;

#[derive(Deserialize, Default)]
#[serde(default)]
struct Process {
    command: Vec<String>,
    tty: bool,
    stdin: bool,
    stdout: bool,
    stderr: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Exec(Process),
    Attach(Process),
    Portforward(Vec<u16>),
}

fn address(server: &StreamServer, backend: &local::Local, line: &str) -> anyhow::Result<String> {
    let container = ContainerId::random();
    Ok(match serde_json::from_str(line).context("a line of the input")? {
        Line::Exec(Process { command, tty, stdin, stdout, stderr }) => {
            server.exec_url(ExecRequest { container, command, tty, stdin, stdout, stderr })?
        }
        Line::Attach(Process { command, tty, stdin, stdout, stderr }) => {
            backend.attached.lock().expect("nobody panics with it").insert(container.to_string(), command);
            server.attach_url(AttachRequest { container, tty, stdin, stdout, stderr })?
        }
        Line::Portforward(ports) => {
            server.port_forward_url(PortForwardRequest { sandbox: SandboxId::random(), ports })?
        }
    })
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let backend = Arc::new(local::Local::default());
    let dynamic: Arc<dyn crisp_stream::Backend> = backend.clone();
    let server = StreamServer::start(StreamConfig::default(), dynamic).await?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut out = tokio::io::stdout();
    while let Some(line) = lines.next_line().await? {
        let answer = match address(&server, &backend, &line) {
            Ok(address) => address,
            Err(error) => format!("error: {error:#}"),
        };
        out.write_all(format!("{answer}\n").as_bytes()).await?;
        out.flush().await?;
    }
    Ok(())
}
