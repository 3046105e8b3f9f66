//! A bed with one pod in it, where most tests begin.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail};
use crisp_integration::{
    bed::{Bed, Wishes, eventually},
    client::{Cri, container, pod},
};
use crisp_proto::v1;

/// Has a shell and the usual programs.
pub const IMAGE: &str = "docker.io/library/busybox:latest";

pub struct Place {
    pub cri: Cri,
    pub config: v1::PodSandboxConfig,
    pub pod: String,
    /// Last, so that everything else is gone when it takes the namespaces down.
    pub bed: Bed,
}

impl Place {
    pub async fn new(name: &str) -> Result<Self> {
        Self::with(name, Wishes::default(), |_| {}).await
    }

    /// With settings of the daemon, and changes to the pod before it is made.
    pub async fn with(
        name: &str,
        wishes: Wishes,
        change: impl FnOnce(&mut v1::PodSandboxConfig),
    ) -> Result<Self> {
        let bed = Bed::new(wishes).await?;
        let cri = bed.client().await?;
        cri.pull(IMAGE).await?;
        let mut config = pod(name, &bed.logs());
        change(&mut config);
        let pod = cri.run_pod(&config).await?;
        Ok(Self { cri, config, pod, bed })
    }

    /// Creates and starts a container in the pod.
    pub async fn launch(&self, config: &v1::ContainerConfig) -> Result<String> {
        self.cri.launch(&self.pod, config, &self.config).await
    }

    /// A container that only waits, with changes before it is made.
    pub async fn idle(&self, name: &str, change: impl FnOnce(&mut v1::ContainerConfig)) -> Result<String> {
        let mut config = container(name, IMAGE, &["sleep", "600"]);
        change(&mut config);
        self.launch(&config).await
    }

    pub async fn create(&self, config: &v1::ContainerConfig) -> Result<String> {
        self.cri.create(&self.pod, config, &self.config).await
    }

    /// Runs a container to its end: exit code and log.
    pub async fn run(&self, config: &v1::ContainerConfig) -> Result<(i32, String)> {
        let id = self.launch(config).await?;
        let code = self.cri.wait(&id).await?.exit_code;
        let text: String =
            self.lines(&config.log_path)?.iter().map(|line| line.text.clone() + "\n").collect();
        Ok((code, text))
    }

    pub fn log_path(&self, log: &str) -> PathBuf {
        PathBuf::from(&self.config.log_directory).join(log)
    }

    /// The lines of a container's log.
    pub fn lines(&self, log: &str) -> Result<Vec<Line>> {
        let path = self.log_path(log);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        text.lines().map(Line::parse).collect()
    }

    /// The log once it has what `enough` looks for.
    pub async fn lines_when(&self, log: &str, enough: impl Fn(&[Line]) -> bool) -> Result<Vec<Line>> {
        eventually("lines in the log", async || self.lines(log).ok().filter(|lines| enough(lines))).await
    }

    /// Pid of a container's first process, as the host sees it.
    pub async fn pid(&self, container: &str) -> Result<i32> {
        let request = v1::ContainerStatusRequest { container_id: container.into(), verbose: true };
        let answer = self.cri.runtime.clone().container_status(request).await?.into_inner();
        pid_in(&answer.info)
    }

    /// Pid of the pod's infra container.
    pub async fn infra_pid(&self) -> Result<i32> {
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: self.pod.clone(), verbose: true };
        let answer = self.cri.runtime.clone().pod_sandbox_status(request).await?.into_inner();
        pid_in(&answer.info)
    }
}

fn pid_in(info: &std::collections::HashMap<String, String>) -> Result<i32> {
    let details: serde_json::Value = serde_json::from_str(info.get("info").context("no details")?)?;
    let pid = details["pid"].as_i64().filter(|pid| *pid > 0).context("no pid in the details")?;
    Ok(i32::try_from(pid)?)
}

/// A line of a container's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// `stdout` or `stderr`.
    pub stream: String,
    /// `P` or `F`.
    pub tag: String,
    pub text: String,
}

impl Line {
    fn parse(line: &str) -> Result<Self> {
        let mut parts = line.splitn(4, ' ');
        let (Some(time), Some(stream), Some(tag), Some(text)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            bail!("not a line of a log: {line:?}");
        };
        if !time.contains('T') {
            bail!("no time: {line:?}");
        }
        Ok(Self { stream: stream.into(), tag: tag.into(), text: text.into() })
    }
}
