//! Times and sizes of the pod monitor on this machine: `latency MONITOR [ROUNDS]`, as root, needs busybox-static.
//!
//! What it prints is for people who compare two builds side by side; nothing is asserted.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot be made has failed")]

#[path = "../tests/harness/mod.rs"]
mod harness;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use harness::{Pod, process, shell, within};

#[derive(Default)]
struct Series(Vec<(&'static str, Vec<Duration>)>);

impl Series {
    fn add(&mut self, name: &'static str, since: Instant) {
        let took = since.elapsed();
        match self.0.iter_mut().find(|(n, _)| *n == name) {
            Some((_, all)) => all.push(took),
            None => self.0.push((name, vec![took])),
        }
    }

    fn print(&mut self) {
        println!("{:<34}{:>9}{:>9}{:>9}   ms", "", "min", "median", "p95");
        for (name, all) in &mut self.0 {
            all.sort();
            let ms = |d: Duration| d.as_secs_f64() * 1e3;
            let (min, median, p95) = (all[0], all[all.len() / 2], all[all.len() * 95 / 100]);
            println!("{name:<34}{:>9.2}{:>9.2}{:>9.2}", ms(min), ms(median), ms(p95));
        }
    }
}

async fn life(binary: &Path, series: &mut Series, rest: Duration) {
    let start = Instant::now();
    let mut pod = Pod::bare_with(binary).await;
    series.add("(layer made)", start);
    let start = Instant::now();
    within(pod.monitor.state()).await.unwrap();
    series.add("first answer after spawn", start);
    let start = Instant::now();
    pod.start_infra(|_| {}).await.unwrap();
    series.add("start_infra", start);
    tokio::time::sleep(rest).await;
    let wanted = pod.container(process(&["sleep", "1000"]));
    let id = wanted.container.clone();
    let start = Instant::now();
    within(pod.monitor.create(wanted, None)).await.unwrap();
    series.add("create", start);
    let start = Instant::now();
    within(pod.monitor.start(&id)).await.unwrap();
    series.add("start", start);
    for _ in 0..20 {
        tokio::time::sleep(rest).await;
        let start = Instant::now();
        let exec = within(pod.monitor.exec(pod.exec_of(&id, process(&["true"])), harness::null(), None))
            .await
            .unwrap();
        series.add("exec: started", start);
        within(exec.exit).await.unwrap();
        series.add("exec: ended", start);
    }
    let start = Instant::now();
    within(pod.monitor.signal(&id, 9, false)).await.unwrap();
    pod.exit_of(&id).await;
    series.add("kill", start);
    let start = Instant::now();
    within(pod.monitor.delete(&id)).await.unwrap();
    series.add("delete", start);
    let start = Instant::now();
    pod.end().await;
    series.add("shutdown", start);
}

async fn log(binary: &Path) {
    const LINES: u64 = 1 << 20;
    const SIZE: u64 = LINES * 80 * 12;
    let mut pod = Pod::bare_with(binary).await;
    pod.start_infra(|_| {}).await.unwrap();
    fs::write(pod.layer().join("lines"), format!("{}\n", "x".repeat(79)).repeat(LINES as usize)).unwrap();
    let wanted = pod.container(shell("for i in 1 2 3 4 5 6 7 8 9 10 11 12; do cat /lines; done"));
    let log = pod.log(&wanted.container);
    let start = Instant::now();
    let id = pod.run(wanted).await;
    pod.exit_of(&id).await;
    let took = start.elapsed();
    let cpu = fs::read_to_string(format!("/proc/{}/stat", pod.monitor_pid())).unwrap();
    let ticks: Vec<u64> =
        cpu.rsplit_once(')').unwrap().1.split_whitespace().filter_map(|f| f.parse().ok()).collect();
    println!(
        "log: {:.0} MB/s of 80-byte lines, {} bytes in the log, monitor {:.2} s of processor time",
        SIZE as f64 / took.as_secs_f64() / 1e6,
        fs::metadata(log).unwrap().len(),
        (ticks[10] + ticks[11]) as f64 / 100.0
    );
    pod.end().await;
}

fn pss(pid: i32) -> (u64, u64, u64) {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let field = |name: &str| {
        text.lines().find_map(|l| l.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0)
    };
    (field("Rss:"), field("Pss:"), field("Private_Dirty:"))
}

async fn memory(binary: &Path, pods: usize) {
    let mut all = Vec::new();
    for _ in 0..pods {
        let mut pod = Pod::bare_with(binary).await;
        pod.start_infra(|_| {}).await.unwrap();
        let id = pod.run(pod.container(process(&["sleep", "1000"]))).await;
        for _ in 0..3 {
            pod.exec(&id, process(&["true"])).await.unwrap();
        }
        all.push(pod);
    }
    let sum = |pids: Vec<i32>| {
        let each: Vec<_> = pids.iter().map(|p| pss(*p)).collect();
        let n = each.len() as u64;
        let total = |f: fn(&(u64, u64, u64)) -> u64| each.iter().map(f).sum::<u64>() / n;
        (total(|e| e.0), total(|e| e.1), total(|e| e.2))
    };
    let monitors = sum(all.iter().map(Pod::monitor_pid).collect());
    let infras = sum(all.iter().map(|p| p.infra.as_ref().unwrap().pid).collect());
    println!("{pods} pods: monitor rss/pss/private dirty {monitors:?} kB, infra {infras:?} kB");
    for pod in all {
        pod.end().await;
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut args = std::env::args().skip(1);
    let binary = PathBuf::from(args.next().expect("usage: latency MONITOR [ROUNDS] [PODS]"));
    let rounds: usize = args.next().map_or(20, |n| n.parse().unwrap());
    let pods: usize = args.next().map_or(20, |n| n.parse().unwrap());
    let mut series = Series::default();
    for _ in 0..rounds {
        life(&binary, &mut series, Duration::from_millis(20)).await;
    }
    series.print();
    log(&binary).await;
    memory(&binary, pods).await;
}
