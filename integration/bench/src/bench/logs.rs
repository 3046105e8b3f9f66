//! Log throughput: a container writes numbered lines as fast as it can.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::ms;
use crate::{
    Setup,
    cri::v1::ContainerState,
    procs::CpuWatch,
    stats::{Report, Series},
};

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Megabytes to write
    #[arg(long, default_value_t = 200)]
    megabytes: u64,
    /// Length of a line, its newline included
    #[arg(long, default_value_t = 80)]
    line: u64,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Pods writing at once
    #[arg(long, default_value_t = 1)]
    writers: usize,
}

pub async fn run(setup: Setup, o: Options) -> Result<Report> {
    let Setup { mut cri, pods, patterns, .. } = setup;
    if !cri.has_image(&pods.image).await? {
        cri.pull(&pods.image).await?;
    }
    let lines = o.megabytes * 1_000_000 / o.line;
    let (mut series, mut lost, mut rates) = (Series::default(), 0, Series::default());
    let mut cpu = vec![0.0; patterns.len()];
    let mut file_bytes = 0;
    for round in 0..o.rounds {
        let mut made = Vec::new();
        for n in 0..o.writers {
            let pod = pods.pod(round * o.writers + n)?;
            let pod_id = cri.run_pod(&pod, &pods.handler).await?;
            let config = pod.container(&["/bin/probe", "spew", &lines.to_string(), &o.line.to_string()]);
            let id = cri.create_container(&pod, &pod_id, config).await?;
            made.push((pod, pod_id, id));
        }
        let mut watch = CpuWatch::start(&patterns);
        let start = Instant::now();
        let work = async {
            for (_, _, id) in &made {
                cri.start_container(id).await?;
            }
            for (_, _, id) in &made {
                while cri.container_state(id).await? != ContainerState::ContainerExited {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            Ok::<_, anyhow::Error>(ms(start))
        };
        let took = watch.during(Duration::from_millis(20), work).await?;
        series.add("start to exit", took);
        rates.add("MB/s", (o.megabytes * o.writers as u64) as f64 / took * 1e3);
        for (sum, (_, s)) in cpu.iter_mut().zip(watch.seconds()) {
            *sum += s;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        for (pod, pod_id, id) in &made {
            let (got, bytes) = check(&pod.log_path, o.line as usize)?;
            lost += lines.saturating_sub(got);
            file_bytes = bytes;
            cri.stop_pod(pod_id).await?;
            cri.remove_container(id).await?;
            cri.remove_pod(pod_id).await?;
            pod.forget();
        }
    }
    let mut report = Report::default();
    report.latencies("time", &series);
    report.latencies("throughput of content in MB per s, not ms", &rates);
    report.heading("log file and processor time");
    report.note("lines lost in all rounds", lost);
    report.value("log file", "MB", file_bytes as f64 / 1e6);
    for (pattern, sum) in patterns.iter().zip(cpu) {
        report.value(&format!("{}: processor time per round", pattern.name), "s", sum / o.rounds as f64);
    }
    Ok(report)
}

/// Reads a log in the CRI format; fails where a line is malformed or out of order.
/// Returns the numbered lines found and the file's size.
fn check(path: &Path, length: usize) -> Result<(u64, u64)> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let size = file.metadata()?.len();
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let (mut raw, mut content, mut next) = (Vec::new(), Vec::new(), 0u64);
    loop {
        raw.clear();
        if reader.read_until(b'\n', &mut raw)? == 0 {
            return Ok((next, size));
        }
        let mut fields = raw.strip_suffix(b"\n").unwrap_or(&raw).splitn(4, |b| *b == b' ');
        let (time, stream, tag) = (fields.next(), fields.next(), fields.next());
        ensure!(
            time.is_some_and(|t| t.len() >= 20) && stream == Some(b"stdout"),
            "malformed log line {:?}",
            String::from_utf8_lossy(&raw)
        );
        content.extend_from_slice(fields.next().unwrap_or_default());
        match tag {
            Some(b"P") => continue,
            Some(b"F") => {}
            _ => anyhow::bail!("malformed tag in {:?}", String::from_utf8_lossy(&raw)),
        }
        if !content.starts_with(b"END ") {
            let number: u64 = std::str::from_utf8(content.get(..10).unwrap_or_default())?.parse()?;
            ensure!(
                number >= next && content.len() == length - 1,
                "line {number} after {next}, {} bytes",
                content.len()
            );
            next += 1; // a gap leaves `next` behind the true number: counted as lost
        }
        content.clear();
    }
}
