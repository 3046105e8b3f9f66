//! Kill the daemon, start it again.

use std::{
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::{ms, remove_many, start_many};
use crate::{
    Setup,
    cri::{Cri, until},
    stats::{Report, Series},
};

#[derive(Args, Clone, Debug)]
pub struct Options {
    #[arg(long, default_value_t = 100)]
    count: usize,
    #[arg(long, default_value_t = 4)]
    parallel: usize,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// File with the daemon's pid; the start command must write it anew
    #[arg(long)]
    pid_file: PathBuf,
    /// Shell command that starts the daemon (it may stay in the foreground)
    #[arg(long)]
    start: String,
    /// Leave this run's last daemon state as it is on failure
    #[arg(long, default_value_t = 60)]
    limit_s: u64,
}

pub async fn run(setup: Setup, o: Options) -> Result<Report> {
    let Setup { endpoint, mut cri, pods, .. } = setup;
    if !cri.has_image(&pods.image).await? {
        cri.pull(&pods.image).await?;
    }
    let running = start_many(&cri, &pods, o.count, o.parallel).await?;
    let (limit, step) = (Duration::from_secs(o.limit_s), Duration::from_millis(2));
    let mut series = Series::default();
    for _ in 0..o.rounds {
        let pid: i32 = std::fs::read_to_string(&o.pid_file)?.trim().parse().context("pid file")?;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
            .with_context(|| format!("kill {pid}"))?;
        while std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|s| !s.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
        {
            tokio::time::sleep(step).await;
        }
        let start = Instant::now();
        tokio::process::Command::new("sh")
            .args(["-c", &o.start])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting the daemon")?;
        let mut fresh = until(limit, step, || async {
            let mut cri = Cri::connect(&endpoint).await?;
            cri.version().await?;
            Ok(cri)
        })
        .await
        .context("Version after restart")?;
        series.add("Version answers", ms(start));
        until(limit, step, || async {
            let found = fresh.clone().count_running(&pods.run).await?;
            ensure!(found == (o.count, o.count), "{found:?} of {} run", o.count);
            Ok(())
        })
        .await
        .context("pods after restart")?;
        series.add("all pods and containers run", ms(start));
        fresh.exec(&running[0].container_id, &["/bin/true".into()]).await.context("exec after restart")?;
        series.add("ExecSync answers", ms(start));
        cri = fresh;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    remove_many(&cri, running, o.parallel).await?;
    let mut report = Report::default();
    report.latencies(&format!("after kill -9 with {} pods", o.count), &series);
    Ok(report)
}
