//! URLs for exec, attach and port-forward.

use crisp_model::{ContainerState, SandboxState};
use crisp_pod::PodError;
use crisp_proto::v1;
use crisp_stream::{AttachRequest, ExecRequest, PortForwardRequest};
use tonic::Status;

use super::Services;
use crate::{
    from_wire::{At, IdQuery, request},
    status,
};

impl Services {
    pub(super) fn exec_url(&self, wire: v1::ExecRequest) -> Result<String, Status> {
        let streams = request::exec_streams(&wire)?;
        let command = request::command(&wire.cmd)?;
        let container = self.running(&wire.container_id)?;
        let (tty, stdin, stdout, stderr) = (streams.tty, streams.stdin, streams.stdout, streams.stderr);
        let wish = ExecRequest { container: container.id.clone(), command, tty, stdin, stdout, stderr };
        self.streams.exec_url(wish).map_err(unavailable)
    }

    pub(super) fn attach_url(&self, wire: v1::AttachRequest) -> Result<String, Status> {
        let streams = request::attach_streams(&wire)?;
        let container = self.running(&wire.container_id)?;
        // What the container has decides: a client may not know.
        let tty = container.config.tty;
        let (stdin, stdout, stderr) = (streams.stdin, streams.stdout, streams.stderr && !tty);
        let wish = AttachRequest { container: container.id.clone(), tty, stdin, stdout, stderr };
        self.streams.attach_url(wish).map_err(unavailable)
    }

    pub(super) fn port_forward_url(&self, wire: v1::PortForwardRequest) -> Result<String, Status> {
        let ports = request::forward_ports(&wire.port)?;
        let query = IdQuery::required(&At::root("pod_sandbox_id"), &wire.pod_sandbox_id)?;
        let sandbox = self.pods.sandbox(query.as_str()).map_err(status::of_pod)?;
        if sandbox.state != SandboxState::Ready {
            return Err(not("sandbox", sandbox.id.as_str(), "NotReady", "a ready sandbox"));
        }
        self.streams
            .port_forward_url(PortForwardRequest { sandbox: sandbox.id.clone(), ports })
            .map_err(unavailable)
    }

    fn running(&self, id: &str) -> Result<std::sync::Arc<crisp_pod::ContainerView>, Status> {
        let query = IdQuery::required(&At::root("container_id"), id)?;
        let container = self.pods.container(query.as_str()).map_err(status::of_pod)?;
        match container.state {
            ContainerState::Running => Ok(container),
            state => {
                Err(not("container", container.id.as_str(), &format!("{state:?}"), "a running container"))
            }
        }
    }
}

fn not(kind: &str, id: &str, state: &str, needed: &'static str) -> Status {
    status::of_pod(PodError::WrongState { what: format!("{kind} {id}"), state: state.to_owned(), needed })
}

fn unavailable(error: crisp_stream::ServerError) -> Status {
    match &error {
        crisp_stream::ServerError::Invalid(_) => Status::invalid_argument(error.to_string()),
        _ => Status::resource_exhausted(error.to_string()),
    }
}
