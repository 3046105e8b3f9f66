//! Cold image pulls.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;

use super::ms;
use crate::{
    Setup,
    procs::{self, CpuWatch},
    stats::{Report, Series, summarize},
};

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Image to pull
    #[arg(long)]
    pull_image: String,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Bytes of the compressed layers, for MB/s
    #[arg(long, default_value_t = 0)]
    compressed: u64,
    /// Bytes of the layers unpacked, for MB/s
    #[arg(long, default_value_t = 0)]
    uncompressed: u64,
}

pub async fn run(setup: Setup, o: Options) -> Result<Report> {
    let Setup { mut cri, patterns, cpu_cgroups, .. } = setup;
    let (mut series, mut pulls) = (Series::default(), Vec::new());
    let mut cpu = vec![0.0; patterns.len()];
    let mut used = 0.0;
    if !cri.has_image(&o.pull_image).await? {
        cri.pull(&o.pull_image).await?; // so that every round removes the same thing
    }
    for _ in 0..o.rounds {
        let start = Instant::now();
        cri.remove_image(&o.pull_image).await?;
        series.add("RemoveImage", ms(start));
        anyhow::ensure!(!cri.has_image(&o.pull_image).await?, "image is still there");
        nix::unistd::sync(); // writes of the round before are not charged to this one
        tokio::time::sleep(Duration::from_millis(500)).await;
        let mut watch = CpuWatch::start(&patterns);
        let before = procs::cgroup_cpu(&cpu_cgroups);
        let start = Instant::now();
        watch.during(Duration::from_millis(100), cri.pull(&o.pull_image)).await?;
        let took = ms(start);
        used += procs::cgroup_cpu(&cpu_cgroups) - before;
        series.add("PullImage", took);
        pulls.push(took);
        for (sum, (_, s)) in cpu.iter_mut().zip(watch.seconds()) {
            *sum += s;
        }
    }
    let start = Instant::now();
    cri.pull(&o.pull_image).await?;
    series.add("PullImage (present)", ms(start));
    cri.remove_image(&o.pull_image).await?;

    let mut report = Report::default();
    report.latencies("latency", &series);
    report.heading("throughput and processor time");
    let median = summarize(&pulls).map_or(0.0, |s| s.median) / 1e3;
    for (name, bytes) in [("compressed", o.compressed), ("uncompressed", o.uncompressed)] {
        if bytes > 0 {
            report.value(&format!("{name} throughput"), "MB/s", bytes as f64 / 1e6 / median);
        }
    }
    for (pattern, sum) in patterns.iter().zip(cpu) {
        report.value(&format!("{}: processor time per pull", pattern.name), "s", sum / o.rounds as f64);
    }
    if !cpu_cgroups.is_empty() {
        report.value("cgroups: processor time per pull", "s", used / o.rounds as f64);
    }
    Ok(report)
}
