//! Connection to a CRI endpoint and the requests a kubelet-like client sends.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

pub use crisp_proto::v1;

use crisp_proto::v1::{
    image_service_client::ImageServiceClient, runtime_service_client::RuntimeServiceClient, *,
};

const MAX_MESSAGE: usize = 16 << 20; // what the kubelet accepts

/// One connection to a CRI endpoint; clones share it.
#[derive(Clone)]
pub struct Cri {
    pub runtime: RuntimeServiceClient<Channel>,
    pub images: ImageServiceClient<Channel>,
}

impl Cri {
    pub async fn connect(endpoint: &str) -> Result<Self> {
        let path = PathBuf::from(endpoint.strip_prefix("unix://").unwrap_or(endpoint));
        let shown = path.display().to_string();
        let channel = Endpoint::from_static("http://localhost")
            .connect_with_connector(service_fn(move |_: Uri| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            }))
            .await
            .with_context(|| format!("connecting to {shown}"))?;
        Ok(Self {
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE),
            images: ImageServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE),
        })
    }

    pub async fn version(&mut self) -> Result<VersionResponse> {
        let request = VersionRequest { version: "0.1.0".into() };
        Ok(self.runtime.version(request).await?.into_inner())
    }

    pub async fn has_image(&mut self, image: &str) -> Result<bool> {
        let request = ImageStatusRequest { image: Some(image_spec(image)), verbose: false };
        Ok(self.images.image_status(request).await?.into_inner().image.is_some())
    }

    pub async fn pull(&mut self, image: &str) -> Result<()> {
        let request = PullImageRequest { image: Some(image_spec(image)), auth: None, sandbox_config: None };
        self.images.pull_image(request).await?;
        Ok(())
    }

    pub async fn remove_image(&mut self, image: &str) -> Result<()> {
        self.images.remove_image(RemoveImageRequest { image: Some(image_spec(image)) }).await?;
        Ok(())
    }

    pub async fn run_pod(&mut self, pod: &Pod, handler: &str) -> Result<String> {
        let request =
            RunPodSandboxRequest { config: Some(pod.config.clone()), runtime_handler: handler.into() };
        Ok(self.runtime.run_pod_sandbox(request).await?.into_inner().pod_sandbox_id)
    }

    pub async fn create_container(
        &mut self,
        pod: &Pod,
        pod_id: &str,
        config: ContainerConfig,
    ) -> Result<String> {
        let request = CreateContainerRequest {
            pod_sandbox_id: pod_id.into(),
            config: Some(config),
            sandbox_config: Some(pod.config.clone()),
        };
        Ok(self.runtime.create_container(request).await?.into_inner().container_id)
    }

    pub async fn start_container(&mut self, id: &str) -> Result<()> {
        self.runtime.start_container(StartContainerRequest { container_id: id.into() }).await?;
        Ok(())
    }

    pub async fn stop_container(&mut self, id: &str, timeout: i64) -> Result<()> {
        self.runtime.stop_container(StopContainerRequest { container_id: id.into(), timeout }).await?;
        Ok(())
    }

    pub async fn remove_container(&mut self, id: &str) -> Result<()> {
        self.runtime.remove_container(RemoveContainerRequest { container_id: id.into() }).await?;
        Ok(())
    }

    pub async fn stop_pod(&mut self, id: &str) -> Result<()> {
        self.runtime.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: id.into() }).await?;
        Ok(())
    }

    pub async fn remove_pod(&mut self, id: &str) -> Result<()> {
        self.runtime.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: id.into() }).await?;
        Ok(())
    }

    pub async fn container_state(&mut self, id: &str) -> Result<ContainerState> {
        let request = ContainerStatusRequest { container_id: id.into(), verbose: false };
        let status = self.runtime.container_status(request).await?.into_inner().status;
        Ok(status.context("ContainerStatus without status")?.state())
    }

    /// Runs a command and fails unless it exits 0.
    pub async fn exec(&mut self, id: &str, cmd: &[String]) -> Result<()> {
        let request = ExecSyncRequest { container_id: id.into(), cmd: cmd.to_vec(), timeout: 30 };
        let answer = self.runtime.exec_sync(request).await?.into_inner();
        anyhow::ensure!(answer.exit_code == 0, "exec of {cmd:?} exited {}", answer.exit_code);
        Ok(())
    }

    /// How many of this run's pods are ready and containers running.
    pub async fn count_running(&mut self, run: &str) -> Result<(usize, usize)> {
        let pods = self.runtime.list_pod_sandbox(ListPodSandboxRequest { filter: None }).await?.into_inner();
        let containers =
            self.runtime.list_containers(ListContainersRequest { filter: None }).await?.into_inner();
        let ours = |l: &std::collections::HashMap<String, String>| l.get(RUN_LABEL).is_some_and(|v| v == run);
        Ok((
            pods.items
                .iter()
                .filter(|p| ours(&p.labels) && p.state() == PodSandboxState::SandboxReady)
                .count(),
            containers
                .containers
                .iter()
                .filter(|c| ours(&c.labels) && c.state() == ContainerState::ContainerRunning)
                .count(),
        ))
    }
}

/// Repeats `attempt` until it succeeds or `limit` has passed.
pub async fn until<T, F, Fut>(limit: Duration, step: Duration, mut attempt: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let start = std::time::Instant::now();
    loop {
        match attempt().await {
            Ok(v) => return Ok(v),
            Err(e) if start.elapsed() > limit => return Err(e.context("gave up waiting")),
            Err(_) => tokio::time::sleep(step).await,
        }
    }
}

pub const RUN_LABEL: &str = "cribench.run";

pub fn image_spec(image: &str) -> ImageSpec {
    ImageSpec { image: image.into(), user_specified_image: image.into(), ..Default::default() }
}

/// How pods are made; the same for every runtime.
#[derive(Clone, Debug)]
pub struct PodOptions {
    pub run: String,
    pub image: String,
    pub handler: String,
    pub cgroup_parent: String,
    pub log_root: PathBuf,
    pub host_network: bool,
    pub seccomp_default: bool,
}

/// A pod to be made: its sandbox config and the log path of its one container.
#[derive(Clone)]
pub struct Pod {
    pub config: PodSandboxConfig,
    pub log_path: PathBuf,
    options: PodOptions,
}

impl PodOptions {
    /// Describes pod number `n` and makes its log directory, as the kubelet does.
    pub fn pod(&self, n: usize) -> Result<Pod> {
        let name = format!("cribench-{}-{n}", self.run);
        let log_directory = self.log_root.join(&name);
        std::fs::create_dir_all(&log_directory)
            .with_context(|| format!("making {}", log_directory.display()))?;
        let config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.clone(),
                uid: format!("{}-{n}", self.run),
                namespace: "cribench".into(),
                attempt: 0,
            }),
            hostname: if self.host_network { String::new() } else { name.clone() },
            log_directory: log_directory.display().to_string(),
            dns_config: Some(DnsConfig {
                servers: vec!["10.96.0.10".into()],
                searches: vec!["cluster.local".into()],
                options: vec!["ndots:5".into()],
            }),
            labels: [(RUN_LABEL.to_string(), self.run.clone())].into(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: self.cgroup_parent.clone(),
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(self.namespaces()),
                    seccomp: Some(self.seccomp()),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        Ok(Pod { config, log_path: log_directory.join("main_0.log"), options: self.clone() })
    }

    fn namespaces(&self) -> NamespaceOption {
        NamespaceOption {
            network: if self.host_network { NamespaceMode::Node } else { NamespaceMode::Pod } as i32,
            pid: NamespaceMode::Container as i32,
            ipc: NamespaceMode::Pod as i32,
            ..Default::default()
        }
    }

    fn seccomp(&self) -> SecurityProfile {
        use security_profile::ProfileType;
        let kind = if self.seccomp_default { ProfileType::RuntimeDefault } else { ProfileType::Unconfined };
        SecurityProfile { profile_type: kind as i32, localhost_ref: String::new() }
    }
}

impl Pod {
    pub fn container(&self, command: &[&str]) -> ContainerConfig {
        ContainerConfig {
            metadata: Some(ContainerMetadata { name: "main".into(), attempt: 0 }),
            image: Some(image_spec(&self.options.image)),
            command: command.iter().map(|s| s.to_string()).collect(),
            envs: vec![KeyValue { key: "KUBERNETES_SERVICE_HOST".into(), value: "10.96.0.1".into() }],
            labels: [(RUN_LABEL.to_string(), self.options.run.clone())].into(),
            log_path: "main_0.log".into(),
            linux: Some(LinuxContainerConfig {
                resources: Some(LinuxContainerResources {
                    cpu_period: 100_000,
                    cpu_shares: 2,
                    oom_score_adj: 1000,
                    ..Default::default()
                }),
                security_context: Some(LinuxContainerSecurityContext {
                    namespace_options: Some(self.options.namespaces()),
                    seccomp: Some(self.options.seccomp()),
                    ..Default::default()
                }),
            }),
            ..Default::default()
        }
    }

    /// Removes what the client made for this pod.
    pub fn forget(&self) {
        let _ = std::fs::remove_dir_all(&self.config.log_directory);
    }
}
