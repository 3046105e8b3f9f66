//! A CRI client for tests: the calls that every test makes, typed and short. The generated clients are public for
//! the rest.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, bail};
use crisp_proto::v1::{
    self, image_service_client::ImageServiceClient, runtime_service_client::RuntimeServiceClient,
};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// Largest message, as the kubelet allows.
const MAX_MESSAGE: usize = 16 << 20;

/// How long a test waits for something that has to happen. Generous: a slow machine is no failure, a hang is.
const PATIENCE: Duration = Duration::from_secs(30);

/// Both services of a daemon. Cheap to clone; clones share one connection.
#[derive(Debug, Clone)]
pub struct Cri {
    /// RuntimeService.
    pub runtime: RuntimeServiceClient<Channel>,
    /// ImageService.
    pub images: ImageServiceClient<Channel>,
}

/// What an ExecSync brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Exit code.
    pub code: i32,
    /// Standard output, as text.
    pub stdout: String,
    /// Standard error, as text.
    pub stderr: String,
}

impl Cri {
    /// Connects to a daemon's socket.
    pub async fn connect(socket: &Path) -> Result<Self> {
        let path = socket.to_owned();
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        // The address is never looked at: the connector knows where to go.
        let endpoint = Endpoint::from_static("http://localhost");
        let channel = endpoint.connect_with_connector(connector).await;
        let channel = channel.with_context(|| format!("connect to {}", socket.display()))?;
        Ok(Self {
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE),
            images: ImageServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE),
        })
    }

    /// Version.
    pub async fn version(&self) -> Result<v1::VersionResponse> {
        let request = v1::VersionRequest { version: "0.1.0".into() };
        Ok(self.runtime.clone().version(request).await?.into_inner())
    }

    /// PullImage; the image's id.
    pub async fn pull(&self, image: &str) -> Result<String> {
        let request = v1::PullImageRequest { image: image_spec(image), ..Default::default() };
        let answer = self.images.clone().pull_image(request).await;
        Ok(answer.with_context(|| format!("pull {image}"))?.into_inner().image_ref)
    }

    /// RunPodSandbox; the sandbox' id.
    pub async fn run_pod(&self, config: &v1::PodSandboxConfig) -> Result<String> {
        let request = v1::RunPodSandboxRequest { config: Some(config.clone()), ..Default::default() };
        Ok(self
            .runtime
            .clone()
            .run_pod_sandbox(request)
            .await
            .context("run a pod")?
            .into_inner()
            .pod_sandbox_id)
    }

    /// StopPodSandbox.
    pub async fn stop_pod(&self, pod: &str) -> Result<()> {
        let request = v1::StopPodSandboxRequest { pod_sandbox_id: pod.into() };
        self.runtime.clone().stop_pod_sandbox(request).await.context("stop a pod")?;
        Ok(())
    }

    /// RemovePodSandbox.
    pub async fn remove_pod(&self, pod: &str) -> Result<()> {
        let request = v1::RemovePodSandboxRequest { pod_sandbox_id: pod.into() };
        self.runtime.clone().remove_pod_sandbox(request).await.context("remove a pod")?;
        Ok(())
    }

    /// PodSandboxStatus.
    pub async fn pod_status(&self, pod: &str) -> Result<v1::PodSandboxStatus> {
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: pod.into(), verbose: false };
        let answer = self.runtime.clone().pod_sandbox_status(request).await.context("status of a pod")?;
        answer.into_inner().status.context("a status without a status")
    }

    /// ListPodSandbox.
    pub async fn pods(&self, filter: Option<v1::PodSandboxFilter>) -> Result<Vec<v1::PodSandbox>> {
        let request = v1::ListPodSandboxRequest { filter };
        Ok(self.runtime.clone().list_pod_sandbox(request).await.context("list pods")?.into_inner().items)
    }

    /// CreateContainer; the container's id.
    pub async fn create(
        &self,
        pod: &str,
        config: &v1::ContainerConfig,
        sandbox: &v1::PodSandboxConfig,
    ) -> Result<String> {
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: pod.into(),
            config: Some(config.clone()),
            sandbox_config: Some(sandbox.clone()),
        };
        let answer = self.runtime.clone().create_container(request).await.context("create a container")?;
        Ok(answer.into_inner().container_id)
    }

    /// StartContainer.
    pub async fn start(&self, container: &str) -> Result<()> {
        let request = v1::StartContainerRequest { container_id: container.into() };
        self.runtime.clone().start_container(request).await.context("start a container")?;
        Ok(())
    }

    /// CreateContainer and StartContainer.
    pub async fn launch(
        &self,
        pod: &str,
        config: &v1::ContainerConfig,
        sandbox: &v1::PodSandboxConfig,
    ) -> Result<String> {
        let container = self.create(pod, config, sandbox).await?;
        self.start(&container).await?;
        Ok(container)
    }

    /// StopContainer with a grace in seconds.
    pub async fn stop(&self, container: &str, grace: i64) -> Result<()> {
        let request = v1::StopContainerRequest { container_id: container.into(), timeout: grace };
        self.runtime.clone().stop_container(request).await.context("stop a container")?;
        Ok(())
    }

    /// RemoveContainer.
    pub async fn remove(&self, container: &str) -> Result<()> {
        let request = v1::RemoveContainerRequest { container_id: container.into() };
        self.runtime.clone().remove_container(request).await.context("remove a container")?;
        Ok(())
    }

    /// ContainerStatus.
    pub async fn status(&self, container: &str) -> Result<v1::ContainerStatus> {
        let request = v1::ContainerStatusRequest { container_id: container.into(), verbose: false };
        let answer = self.runtime.clone().container_status(request).await.context("status of a container")?;
        answer.into_inner().status.context("a status without a status")
    }

    /// ListContainers.
    pub async fn containers(&self, filter: Option<v1::ContainerFilter>) -> Result<Vec<v1::Container>> {
        let request = v1::ListContainersRequest { filter };
        let answer = self.runtime.clone().list_containers(request).await.context("list containers")?;
        Ok(answer.into_inner().containers)
    }

    /// ExecSync with a limit in seconds (0: none). A command that fails is no error here.
    pub async fn exec(&self, container: &str, command: &[&str], limit: i64) -> Result<Output> {
        let request = v1::ExecSyncRequest {
            container_id: container.into(),
            cmd: command.iter().map(|word| (*word).to_owned()).collect(),
            timeout: limit,
        };
        let answer = self.runtime.clone().exec_sync(request).await;
        let answer = answer.with_context(|| format!("exec {command:?}"))?.into_inner();
        Ok(Output {
            code: answer.exit_code,
            stdout: String::from_utf8_lossy(&answer.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&answer.stderr).into_owned(),
        })
    }

    /// The output of a shell script in a container; a failure is an error.
    pub async fn shell(&self, container: &str, script: &str) -> Result<String> {
        let output = self.exec(container, &["sh", "-c", script], 0).await?;
        if output.code != 0 {
            bail!("{script:?}: exit code {}: {}{}", output.code, output.stdout, output.stderr);
        }
        Ok(output.stdout)
    }

    /// GetContainerEvents, from now on.
    pub async fn events(&self) -> Result<tonic::Streaming<v1::ContainerEventResponse>> {
        let answer = self.runtime.clone().get_container_events(v1::GetEventsRequest {}).await;
        Ok(answer.context("subscribe to events")?.into_inner())
    }

    /// Waits for the end of a container, told by the events; its last status.
    pub async fn wait(&self, container: &str) -> Result<v1::ContainerStatus> {
        // Subscribed before the look: an end in between is seen by one of the two.
        let mut events = self.events().await?;
        let exited = v1::ContainerState::ContainerExited as i32;
        let waiting = async {
            loop {
                let status = self.status(container).await?;
                if status.state == exited {
                    return Ok(status);
                }
                loop {
                    match events.message().await.context("read events")? {
                        Some(event) if event.container_id == container => break,
                        Some(_) => {}
                        None => bail!("the events ended before the container {container}"),
                    }
                }
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(result) => result,
            Err(_) => bail!("the container {container} did not end within {} s", PATIENCE.as_secs()),
        }
    }
}

/// The gRPC code of a failed call, looked for in the chain of causes.
pub fn code<T>(result: &Result<T>) -> Option<tonic::Code> {
    let error = result.as_ref().err()?;
    error.chain().find_map(|cause| cause.downcast_ref::<tonic::Status>()).map(tonic::Status::code)
}

/// An image by name or id.
pub fn image_spec(image: &str) -> Option<v1::ImageSpec> {
    Some(v1::ImageSpec { image: image.into(), ..Default::default() })
}

/// A pod with a name of its own and the wire's default namespaces, its logs in `logs`.
pub fn pod(name: &str, logs: &Path) -> v1::PodSandboxConfig {
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: name.into(),
            uid: format!("uid-{name}"),
            namespace: "crisp-test".into(),
            attempt: 0,
        }),
        hostname: name.into(),
        log_directory: logs.join(name).to_string_lossy().into_owned(),
        linux: Some(v1::LinuxPodSandboxConfig::default()),
        ..Default::default()
    }
}

/// A container of an image with a command, its log in `NAME.log`.
pub fn container(name: &str, image: &str, command: &[&str]) -> v1::ContainerConfig {
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: name.into(), attempt: 0 }),
        image: image_spec(image),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        log_path: format!("{name}.log"),
        linux: Some(v1::LinuxContainerConfig::default()),
        ..Default::default()
    }
}

/// The same as [`container`] with a shell script.
pub fn script(name: &str, image: &str, script: &str) -> v1::ContainerConfig {
    container(name, image, &["sh", "-c", script])
}

/// The security settings of a container, made if they are not there yet.
pub fn security(config: &mut v1::ContainerConfig) -> &mut v1::LinuxContainerSecurityContext {
    config.linux.get_or_insert_default().security_context.get_or_insert_default()
}

/// The limits of a container, made if they are not there yet.
pub fn resources(config: &mut v1::ContainerConfig) -> &mut v1::LinuxContainerResources {
    config.linux.get_or_insert_default().resources.get_or_insert_default()
}
