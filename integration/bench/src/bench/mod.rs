//! The benchmarks.

pub mod density;
pub mod exec;
pub mod logs;
pub mod pod;
pub mod pull;
pub mod restart;

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use anyhow::Result;

use crate::{
    cri::{Cri, Pod, PodOptions},
    stats::Series,
};

/// Milliseconds since `start`.
pub fn ms(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

/// CLOCK_MONOTONIC in nanoseconds: the clock that `probe` prints.
pub fn monotonic_ns() -> i64 {
    let now =
        nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).expect("every kernel has this clock");
    now.tv_sec() * 1_000_000_000 + now.tv_nsec()
}

/// Runs `job(0..count)` on `parallel` workers and merges what they measured.
pub async fn spread<F, Fut>(count: usize, parallel: usize, job: F) -> Result<Series>
where
    F: Fn(usize) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Series>> + Send,
{
    let (job, next) = (Arc::new(job), Arc::new(AtomicUsize::new(0)));
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..parallel.max(1) {
        let (job, next) = (job.clone(), next.clone());
        workers.spawn(async move {
            let mut series = Series::default();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= count {
                    return Ok::<_, anyhow::Error>(series);
                }
                series.merge(job(n).await?);
            }
        });
    }
    let mut all = Series::default();
    while let Some(worker) = workers.join_next().await {
        all.merge(worker??);
    }
    Ok(all)
}

/// A running pod with one running container.
pub struct Running {
    pub pod: Pod,
    pub pod_id: String,
    pub container_id: String,
}

impl Running {
    pub async fn start(cri: &mut Cri, options: &PodOptions, n: usize, command: &[&str]) -> Result<Self> {
        let pod = options.pod(n)?;
        let pod_id = cri.run_pod(&pod, &options.handler).await?;
        let container_id = cri.create_container(&pod, &pod_id, pod.container(command)).await?;
        cri.start_container(&container_id).await?;
        Ok(Self { pod, pod_id, container_id })
    }

    pub async fn remove(&self, cri: &mut Cri) -> Result<()> {
        cri.stop_container(&self.container_id, 10).await?;
        cri.stop_pod(&self.pod_id).await?;
        cri.remove_container(&self.container_id).await?;
        cri.remove_pod(&self.pod_id).await?;
        self.pod.forget();
        Ok(())
    }
}

/// Starts `count` pods, `parallel` at a time.
pub async fn start_many(
    cri: &Cri,
    options: &PodOptions,
    count: usize,
    parallel: usize,
) -> Result<Vec<Running>> {
    let pods = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (cri, options, out) = (cri.clone(), options.clone(), pods.clone());
    spread(count, parallel, move |n| {
        let (mut cri, options, out) = (cri.clone(), options.clone(), out.clone());
        async move {
            let running = Running::start(&mut cri, &options, n, &["/bin/probe", "wait"]).await?;
            out.lock().expect("no holder panics").push(running);
            Ok(Series::default())
        }
    })
    .await?;
    let started = std::mem::take(&mut *pods.lock().expect("no holder panics"));
    Ok(started)
}

/// Removes pods, `parallel` at a time.
pub async fn remove_many(cri: &Cri, pods: Vec<Running>, parallel: usize) -> Result<()> {
    let (cri, pods) = (cri.clone(), Arc::new(pods));
    spread(pods.len(), parallel, move |n| {
        let (mut cri, pods) = (cri.clone(), pods.clone());
        async move {
            pods[n].remove(&mut cri).await?;
            Ok(Series::default())
        }
    })
    .await?;
    Ok(())
}
