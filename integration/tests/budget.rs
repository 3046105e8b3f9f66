//! Budgets that the noise of a machine cannot move: memory, sizes, processes, threads, descriptors and files of a pod, and what an
//! exec starts. Times are compared by `hack/bench.sh`, as ratios to a peer in the same run.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use crisp_integration::{
    bed::{Bed, Wishes, eventually},
    client::{Cri, container, pod},
};

const IMAGE: &str = "docker.io/library/busybox:latest";

/// Kibibytes of a process, shared pages divided among those who share them.
fn pss(pid: i32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|l| l.strip_prefix("Pss:")).context("no Pss")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn entries(folder: impl AsRef<Path>) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

fn files_below(folder: &Path) -> usize {
    let below = fs::read_dir(folder).into_iter().flatten().flatten();
    below.map(|e| if e.file_type().is_ok_and(|t| t.is_dir()) { files_below(&e.path()) } else { 1 }).sum()
}

/// Processes of the bed by name.
fn named(bed: &Bed, name: &str) -> Vec<i32> {
    let comm = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    bed.strays().into_iter().filter(|pid| comm(pid).trim_end() == name).collect()
}

fn binary(variable: &str) -> Result<PathBuf> {
    Ok(PathBuf::from(std::env::var_os(variable).with_context(|| format!("{variable} is not set"))?))
}

/// Budgets of memory and size are those of what is shipped: builds for debugging are larger.
fn shipped() -> Result<bool> {
    let monitor = fs::metadata(binary("CRISP_MONITOR_BIN")?)?.len();
    let yes = monitor < 12 << 20;
    if !yes {
        println!(
            "skipped: crisp-monitor has {monitor} bytes, so it is a build for debugging (use hack/build.sh)"
        );
    }
    Ok(yes)
}

async fn running(cri: &Cri, bed: &Bed, name: &str) -> Result<(String, String)> {
    let config = pod(name, &bed.logs());
    let sandbox = cri.run_pod(&config).await?;
    let container = cri.create(&sandbox, &container("main", IMAGE, &["sleep", "1000"]), &config).await?;
    cri.start(&container).await?;
    Ok((sandbox, container))
}

/// Bytes that the kernel maps of a program: without what only debuggers read.
fn loaded(path: &Path) -> Result<u64> {
    let file = fs::read(path)?;
    let short = |at: usize| u64::from(u16::from_le_bytes([file[at], file[at + 1]]));
    let long = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().unwrap_or_default());
    ensure!(file.starts_with(b"\x7fELF\x02\x01"), "{}: not a program", path.display());
    let (table, size, count) = (long(32) as usize, short(54) as usize, short(56) as usize);
    let segments = (0..count).map(|i| table + i * size);
    Ok(segments.filter(|at| file[*at..*at + 4] == [1, 0, 0, 0]).map(|at| long(at + 32)).sum())
}

#[test]
fn programs_are_small() -> Result<()> {
    if !shipped()? {
        return Ok(());
    }
    for (variable, limit) in [("CRISP_BIN", 24 << 20), ("CRISP_MONITOR_BIN", 6 << 20)] {
        let size = loaded(&binary(variable)?)?;
        println!("{variable}: {size} bytes loaded, at most {limit}");
        ensure!(size <= limit, "{variable}: {size} bytes are loaded, budget {limit}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_is_two_small_processes() -> Result<()> {
    const PODS: usize = 20;
    let bed = Bed::new(Wishes::default()).await?;
    let cri = bed.client().await?;
    cri.pull(IMAGE).await?;
    let daemon = i32::try_from(bed.daemon_pid().context("the daemon runs")?)?;
    let (running_first, _) = running(&cri, &bed, "warm").await?;
    let before = entries(format!("/proc/{daemon}/fd"));
    let mut sandboxes = vec![running_first];
    for number in 1..PODS {
        sandboxes.push(running(&cri, &bed, &format!("budget-{number}")).await?.0);
    }
    // Monitor, infra container, workload: nothing else runs for a pod. A monitor's workers live for a tenth of a second.
    let settled = async || {
        let (monitors, infras) = (named(&bed, "crisp-monitor"), named(&bed, "crisp-infra"));
        let three = monitors.len() == PODS && infras.len() == PODS && bed.strays().len() == 3 * PODS;
        three.then_some((monitors, infras))
    };
    let (monitors, infras) = eventually("three processes a pod", settled).await?;
    for pid in monitors.iter().chain(&infras) {
        let threads = entries(format!("/proc/{pid}/task"));
        ensure!(threads == 1, "process {pid} has {threads} threads");
    }
    for pid in &monitors {
        let descriptors = entries(format!("/proc/{pid}/fd"));
        ensure!(descriptors <= 16, "monitor {pid} has {descriptors} descriptors");
    }
    let threads = entries(format!("/proc/{daemon}/task"));
    println!("daemon: {threads} threads");
    let each = (entries(format!("/proc/{daemon}/fd")).saturating_sub(before)) / (PODS - 1);
    println!("daemon: {each} descriptors a pod");
    ensure!(each <= 8, "the daemon holds {each} descriptors a pod");
    for sandbox in &sandboxes {
        let files = files_below(&bed.folder.join("run/pods").join(sandbox));
        ensure!(files <= 16, "{files} files in the folder of {sandbox}");
    }
    if shipped()? {
        let sum = |pids: &[i32]| pids.iter().map(|pid| pss(*pid)).sum::<Result<u64>>();
        let (monitor, infra) = (sum(&monitors)? / PODS as u64, sum(&infras)? / PODS as u64);
        println!("PSS a pod: monitor {monitor} KiB, infra {infra} KiB; daemon {} KiB", pss(daemon)?);
        // 20 pods share the program's pages, 5.3 MiB at most; with a hundred it is a fifth of that.
        ensure!(monitor <= 512, "a monitor takes {monitor} KiB");
        ensure!(infra <= 16, "an infra container takes {infra} KiB");
        ensure!(pss(daemon)? <= 20 << 10, "the daemon takes {} KiB", pss(daemon)?);
    }
    for sandbox in sandboxes {
        cri.stop_pod(&sandbox).await?;
        cri.remove_pod(&sandbox).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exec_starts_nothing_but_its_command() -> Result<()> {
    const EXECS: usize = 10;
    let bed = Bed::new(Wishes::default()).await?;
    let cri = bed.client().await?;
    cri.pull(IMAGE).await?;
    let (sandbox, id) = running(&cri, &bed, "exec").await?;
    cri.exec(&id, &["/bin/true"], 10).await?;
    let alone = async || <[i32; 1]>::try_from(named(&bed, "crisp-monitor")).ok();
    let [monitor] = eventually("the monitor's workers have ended", alone).await?;
    let daemon = bed.daemon_pid().context("the daemon runs")?;
    let file = bed.folder.join("calls");
    let mut tracer = Command::new("strace")
        .args(["-f", "-qq", "-o"])
        .arg(&file)
        .args([
            "-e",
            "trace=execve,execveat,clone,clone3,fork,vfork,fsync,fdatasync,syncfs,mount,unlink,rename",
        ])
        .args(["-p", &monitor.to_string(), "-p", &daemon.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("start strace")?;
    let traced = |pid: i64| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|l| l.strip_prefix("TracerPid:").is_some_and(|t| t.trim() != "0"))
    };
    let both = async || (traced(monitor.into()) && traced(daemon.into())).then_some(());
    eventually("strace is attached", both).await?;
    for _ in 0..EXECS {
        cri.exec(&id, &["/bin/true"], 10).await?;
    }
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(tracer.id())?),
        nix::sys::signal::Signal::SIGINT,
    )?;
    tracer.wait()?;
    let text = fs::read_to_string(&file)?;
    // Without threads, which the daemon's pool makes and keeps, and without the second half of calls that were interrupted.
    let calls = |names: &[&str]| {
        let of = |line: &&str| {
            let call = line.split_whitespace().nth(1).unwrap_or_default();
            names.iter().any(|n| call.starts_with(&format!("{n}("))) && !line.contains("CLONE_THREAD")
        };
        text.lines().filter(of).count()
    };
    let (programs, forks) = (calls(&["execve", "execveat"]), calls(&["clone", "clone3", "fork", "vfork"]));
    let writes = calls(&["fsync", "fdatasync", "syncfs", "mount", "unlink", "rename"]);
    println!("{EXECS} execs: {programs} programs, {forks} processes, {writes} syncs, mounts and renames");
    ensure!(programs == EXECS, "{programs} programs for {EXECS} execs:\n{text}");
    ensure!(forks <= 2 * EXECS, "{forks} processes for {EXECS} execs:\n{text}");
    ensure!(writes == 0, "an exec writes or mounts:\n{text}");
    cri.stop_pod(&sandbox).await?;
    cri.remove_pod(&sandbox).await
}
