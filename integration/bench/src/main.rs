//! cribench: the same measurements against any Kubernetes CRI v1 endpoint.

mod bench;
mod cri;
mod procs;
mod stats;

use std::{fs, path::PathBuf, time::SystemTime};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use serde_json::json;

use cri::{Cri, PodOptions};
use procs::Pattern;

#[derive(Parser)]
#[command(version, about)]
struct Args {
    /// Socket of the runtime (unix:///path or a path)
    #[arg(long, env = "CRI_ENDPOINT")]
    endpoint: String,
    /// Also write the result as JSON to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Free text kept in the JSON result
    #[arg(long, default_value = "")]
    label: String,
    /// Image of the workload; it holds /bin/probe and /bin/true
    #[arg(long, default_value = "127.0.0.1:5001/bench/busybox:1")]
    image: String,
    /// Runtime handler (runtime class)
    #[arg(long, default_value = "")]
    handler: String,
    #[arg(long, default_value = "/cribench")]
    cgroup_parent: String,
    #[arg(long, default_value = "/var/log/cribench")]
    log_root: PathBuf,
    /// Pods share the network namespace of the node
    #[arg(long)]
    host_network: bool,
    /// Use the runtime's default seccomp profile instead of none
    #[arg(long)]
    seccomp_default: bool,
    /// Class of runtime processes, NAME=REGEX on the command line (repeatable)
    #[arg(long = "proc")]
    procs: Vec<Pattern>,
    /// cgroup directory whose processor time is the runtime's (repeatable)
    #[arg(long)]
    cpu_cgroup: Vec<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    /// Pod life cycles: run, create, start, stop, remove
    Pod(bench::pod::Options),
    /// ExecSync latency
    Exec(bench::exec::Options),
    /// Memory, list latency and idle processor time with many pods
    Density(bench::density::Options),
    /// Cold image pulls
    Pull(bench::pull::Options),
    /// Kill the daemon, start it again, time until it serves and all pods still run
    Restart(bench::restart::Options),
    /// Log throughput and loss
    Logs(bench::logs::Options),
}

/// What every benchmark gets.
pub(crate) struct Setup {
    pub endpoint: String,
    pub cri: Cri,
    pub pods: PodOptions,
    pub patterns: Vec<Pattern>,
    pub cpu_cgroups: Vec<String>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let mut cri = Cri::connect(&args.endpoint).await?;
    let version = cri.version().await.context("Version")?;
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let context = Setup {
        endpoint: args.endpoint.clone(),
        cri,
        pods: PodOptions {
            run: format!("{:x}", since_epoch.as_millis()),
            image: args.image.clone(),
            handler: args.handler.clone(),
            cgroup_parent: args.cgroup_parent.clone(),
            log_root: args.log_root.clone(),
            host_network: args.host_network,
            seccomp_default: args.seccomp_default,
        },
        patterns: args.procs.clone(),
        cpu_cgroups: args.cpu_cgroup.clone(),
    };
    println!("{} {}  {}  {:?}", version.runtime_name, version.runtime_version, args.label, args.command);
    let load_before = load();
    let report = match args.command.clone() {
        Command::Pod(o) => bench::pod::run(context, o).await,
        Command::Exec(o) => bench::exec::run(context, o).await,
        Command::Density(o) => bench::density::run(context, o).await,
        Command::Pull(o) => bench::pull::run(context, o).await,
        Command::Restart(o) => bench::restart::run(context, o).await,
        Command::Logs(o) => bench::logs::run(context, o).await,
    }?;
    let load_after = load();
    println!("{}\n\n  load average before {load_before}, after {load_after}", report.text());
    if let Some(path) = args.json {
        let document = json!({
            "runtime": { "name": version.runtime_name, "version": version.runtime_version },
            "label": args.label,
            "command": format!("{:?}", args.command),
            "host_network": args.host_network,
            "seccomp_default": args.seccomp_default,
            "unix_time": since_epoch.as_secs(),
            "load": { "before": load_before, "after": load_after },
            "results": report.into_json(),
        });
        fs::write(&path, serde_json::to_string_pretty(&document)? + "\n")
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn load() -> String {
    fs::read_to_string("/proc/loadavg")
        .map(|s| s.split_whitespace().take(3).collect::<Vec<_>>().join(" "))
        .unwrap_or_default()
}
