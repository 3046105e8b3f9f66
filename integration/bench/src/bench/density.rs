//! Many pods at rest: memory, list latency, idle processor time, and what one more pod takes beside them.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;

use super::{ms, pod, remove_many, start_many};
use crate::{
    Setup,
    cri::{Cri, v1::*},
    procs::{self, CpuWatch},
    stats::{Report, Series},
};

#[derive(Args, Clone, Debug)]
pub struct Options {
    #[arg(long, default_value_t = 100)]
    count: usize,
    /// Pods started and removed at once
    #[arg(long, default_value_t = 4)]
    parallel: usize,
    /// Calls of each list
    #[arg(long, default_value_t = 30)]
    lists: usize,
    /// Further pods, started and removed one after the other
    #[arg(long, default_value_t = 10)]
    more: usize,
    /// Seconds of polling, as the kubelet does, while processor time is measured
    #[arg(long, default_value_t = 30)]
    idle: u64,
    /// Seconds to rest after starting the pods
    #[arg(long, default_value_t = 5)]
    settle: u64,
}

pub async fn run(setup: Setup, o: Options) -> Result<Report> {
    let Setup { mut cri, pods, patterns, .. } = setup;
    if !cri.has_image(&pods.image).await? {
        cri.pull(&pods.image).await?;
    }
    let mut report = Report::default();
    let empty = procs::memory(&patterns);
    let kernel = || -> Result<i64> {
        ["Slab", "KernelStack", "PageTables", "Percpu"].iter().map(|f| procs::meminfo(f)).sum()
    };
    let (available, kernel_before) = (procs::meminfo("MemAvailable")?, kernel()?);

    let start = Instant::now();
    let running = start_many(&cri, &pods, o.count, o.parallel).await?;
    report.heading("pods");
    report.value("time to start all", "s", start.elapsed().as_secs_f64());
    tokio::time::sleep(Duration::from_secs(o.settle)).await;

    let (ready, live) = cri.count_running(&pods.run).await?;
    report.note("ready pods", ready);
    report.note("running containers", live);

    report.heading("memory of the runtime's processes");
    let full = procs::memory(&patterns);
    let (mut total, mut before, mut private) = (0, 0, 0);
    for ((name, m), (_, e)) in full.iter().zip(&empty) {
        report.note(&format!("{name}: processes"), m.processes);
        report.value(&format!("{name}: PSS without pods"), "MiB", e.pss_kib as f64 / 1024.0);
        report.value(&format!("{name}: PSS"), "MiB", m.pss_kib as f64 / 1024.0);
        report.value(&format!("{name}: private"), "MiB", m.private_kib as f64 / 1024.0);
        report.value(&format!("{name}: RSS"), "MiB", m.rss_kib as f64 / 1024.0);
        (total, before, private) = (total + m.pss_kib, before + e.pss_kib, private + m.private_kib);
    }
    let n = o.count as f64;
    report.value("all: PSS", "MiB", total as f64 / 1024.0);
    report.value("all: private", "MiB", private as f64 / 1024.0);
    report.value("all: PSS per pod", "MiB", total as f64 / 1024.0 / n);
    report.value("all: PSS growth per pod", "MiB", (total as f64 - before as f64) / 1024.0 / n);
    report.value(
        "machine: MemAvailable drop per pod",
        "MiB",
        (available - procs::meminfo("MemAvailable")?) as f64 / 1024.0 / n,
    );
    report.value("machine: kernel memory per pod", "MiB", (kernel()? - kernel_before) as f64 / 1024.0 / n);

    let mut series = Series::default();
    for _ in 0..o.lists {
        lists(&mut cri, &mut series).await?;
    }
    report.latencies("lists", &series);

    let mut series = Series::default();
    for n in 0..o.more {
        series.merge(pod::life(&mut cri, &pods, o.count + n).await?);
    }
    report.latencies("one more pod", &series);

    report.heading("processor time of the runtime's processes");
    for (name, poll) in [("at rest", false), ("polled each second", true)] {
        let mut watch = CpuWatch::start(&patterns);
        let start = Instant::now();
        for second in 1..=o.idle {
            if poll {
                cri.runtime.list_pod_sandbox(ListPodSandboxRequest { filter: None }).await?;
                cri.runtime.list_containers(ListContainersRequest { filter: None }).await?;
            }
            tokio::time::sleep_until((start + Duration::from_secs(second)).into()).await;
        }
        watch.sample();
        for (class, seconds) in watch.seconds() {
            report.value(&format!("{class}: {name}"), "% of a core", 100.0 * seconds / o.idle as f64);
        }
    }
    let start = Instant::now();
    remove_many(&cri, running, o.parallel).await?;
    report.value("time to remove all", "s", start.elapsed().as_secs_f64());
    Ok(report)
}

async fn lists(cri: &mut Cri, series: &mut Series) -> Result<()> {
    macro_rules! timed {
        ($name:literal, $call:expr) => {{
            let start = Instant::now();
            match $call.await {
                Ok(_) => series.add($name, ms(start)),
                Err(e) if e.code() == tonic::Code::Unimplemented => {}
                Err(e) => return Err(anyhow::Error::from(e).context($name)),
            }
        }};
    }
    timed!("ListPodSandbox", cri.runtime.list_pod_sandbox(ListPodSandboxRequest { filter: None }));
    timed!("ListContainers", cri.runtime.list_containers(ListContainersRequest { filter: None }));
    timed!(
        "ListContainerStats",
        cri.runtime.list_container_stats(ListContainerStatsRequest { filter: None })
    );
    timed!(
        "ListPodSandboxStats",
        cri.runtime.list_pod_sandbox_stats(ListPodSandboxStatsRequest { filter: None })
    );
    timed!("ListImages", cri.images.list_images(ListImagesRequest { filter: None }));
    Ok(())
}
