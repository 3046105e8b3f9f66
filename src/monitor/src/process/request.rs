//! The part of a request that the loop itself reads.
//!
//! A request to create a container is tens of kilobytes of OCI spec, of which the loop needs the id, the log and a few more fields.
//! These types leave the rest out; workers parse the same bytes in full ([`crisp_monitor::protocol::Request`]). The
//! variants are those of the protocol, one for one (a test holds them together).

use std::path::PathBuf;

use crisp_model::{ContainerId, ExecId, security::UserNamespace};
use crisp_monitor::protocol::{Cgroup, Terminal};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
pub(super) struct Call {
    pub(super) seq: u64,
    pub(super) request: Request,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Request {
    State,
    StartInfra(Infra),
    Create(Box<Create>),
    Start { container: ContainerId },
    Signal { container: ContainerId, signal: i32, all: bool },
    Exec(Box<Exec>),
    KillExec { exec: ExecId },
    Attach { container: ContainerId, stdin: bool, stdout: bool, stderr: bool },
    CloseStdin { container: ContainerId },
    Resize { terminal: Terminal, columns: u16, rows: u16 },
    ReopenLog { container: ContainerId },
    Delete { container: ContainerId },
    Shutdown,
}

#[derive(Debug, Deserialize)]
pub(super) struct Infra {
    pub(super) cgroup: Cgroup,
}

#[derive(Debug, Deserialize)]
pub(super) struct Create {
    pub(super) container: ContainerId,
    pub(super) process: Process,
    #[serde(default)]
    pub(super) user: Option<UserNamespace>,
    pub(super) seccomp: bool,
    pub(super) stdin: bool,
    pub(super) log: Option<PathBuf>,
    pub(super) cgroup: Cgroup,
}

#[derive(Debug, Deserialize)]
pub(super) struct Exec {
    pub(super) exec: ExecId,
    pub(super) container: ContainerId,
    pub(super) process: Process,
    pub(super) stdio: [bool; 3],
    pub(super) seccomp: bool,
}

/// Of a process, what its streams depend on.
#[derive(Debug, Deserialize)]
#[serde(default)]
#[derive(Default)]
pub(super) struct Process {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) terminal: Option<(u16, u16)>,
}

#[cfg(test)]
mod tests {
    use crisp_model::image::Rootfs;
    use crisp_monitor::protocol as p;

    use super::*;

    #[test]
    fn every_request_of_the_protocol_is_understood() {
        let (container, exec) = (ContainerId::random(), ExecId::random());
        let create = p::CreateContainer {
            container: container.clone(),
            spec: serde_json::json!({"ociVersion": "1.1.0", "mounts": [{"a": [1, null]}]}),
            process: crisp_model::process::Process { terminal: Some((80, 24)), ..Default::default() },
            rootfs: Rootfs { lower: vec![], upper: "/u".into(), work: "/w".into(), mountpoint: "/m".into() },
            image_volumes: vec![],
            idmapped: vec![],
            user: None,
            propagation: vec![],
            seccomp: true,
            stdin: true,
            log: Some("/log".into()),
            cgroup: Cgroup::default(),
        };
        let start_exec = p::StartExec {
            exec: exec.clone(),
            container: container.clone(),
            process: Default::default(),
            stdio: [true, false, true],
            seccomp: false,
        };
        let requests = [
            p::Request::State,
            p::Request::StartInfra(Default::default()),
            p::Request::Create(Box::new(create)),
            p::Request::Start { container: container.clone() },
            p::Request::Signal { container: container.clone(), signal: 9, all: true },
            p::Request::Exec(Box::new(start_exec)),
            p::Request::KillExec { exec: exec.clone() },
            p::Request::Attach { container: container.clone(), stdin: true, stdout: true, stderr: false },
            p::Request::CloseStdin { container: container.clone() },
            p::Request::Resize { terminal: Terminal::Exec(exec), columns: 1, rows: 2 },
            p::Request::ReopenLog { container: container.clone() },
            p::Request::Delete { container },
            p::Request::Shutdown,
        ];
        for request in requests {
            let text = serde_json::to_string(&p::Call { seq: 3, request }).unwrap();
            let call: Call = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(call.seq, 3);
            if let Request::Create(create) = call.request {
                assert_eq!((create.process.terminal, create.stdin), (Some((80, 24)), true));
            }
        }
    }
}
