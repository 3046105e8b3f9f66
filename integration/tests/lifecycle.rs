//! Pods over their lives and the daemon's deaths: what is promised, and that nothing is left.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use crisp_integration::{
    bed::{Bed, Wishes, cgroup_folders, eventually},
    client::{Cri, pod, script},
};
use crisp_proto::v1::{ContainerState, PodSandboxState};
use tokio::task::JoinSet;

const IMAGE: &str = "docker.io/library/busybox:latest";

fn count(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

fn folders_below(folder: &Path) -> usize {
    let below = fs::read_dir(folder).into_iter().flatten().flatten().filter(|e| e.path().is_dir());
    below.map(|e| 1 + folders_below(&e.path())).sum()
}

/// Everything a pod may leave, counted.
fn leftovers(bed: &Bed) -> Result<BTreeMap<String, usize>> {
    let lines = |text: String| text.lines().count();
    let daemon = bed.daemon_pid().context("the daemon runs")?;
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", bed.holder()))?;
    let mut all = BTreeMap::from([
        ("mounts".to_owned(), lines(mounts)),
        ("network devices".to_owned(), lines(bed.run("ip", &["-o", "link"])?)),
        ("processes".to_owned(), bed.strays().len()),
        ("cgroups".to_owned(), cgroup_folders(&bed.cgroup).iter().map(|f| folders_below(f)).sum()),
        ("descriptors of the daemon".to_owned(), count(Path::new(&format!("/proc/{daemon}/fd")))),
        ("children of the daemon".to_owned(), children(daemon)?),
    ]);
    for folder in ["run/pods", "run/netns", "lib/containers", "lib/pods/sandboxes", "lib/pods/containers"] {
        all.insert(folder.to_owned(), count(&bed.folder.join(folder)));
    }
    Ok(all)
}

fn children(pid: u32) -> Result<usize> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    Ok(text.split_whitespace().count())
}

/// Waits until the counts are back; what does not come back is named.
async fn nothing_left(bed: &Bed, before: &BTreeMap<String, usize>) -> Result<()> {
    let mut last = None;
    let done = eventually("nothing is left", async || {
        let now = leftovers(bed).ok()?;
        let same = now.iter().all(|(what, number)| before.get(what).is_some_and(|was| number <= was));
        last = Some(now);
        same.then_some(())
    });
    let result = done.await;
    result.with_context(|| format!("before: {before:?}\nafter: {last:?}"))
}

async fn with_container(cri: &Cri, logs: &Path, name: &str, line: &str) -> Result<(String, String)> {
    let config = pod(name, logs);
    let sandbox = cri.run_pod(&config).await?;
    let container = cri.create(&sandbox, &script("main", IMAGE, line), &config).await?;
    cri.start(&container).await?;
    Ok((sandbox, container))
}

/// A life that other lives do not disturb: the first one makes what stays (bridge, rules, threads).
async fn one_life(bed: &Bed, name: &str) -> Result<()> {
    let cri = bed.client().await?;
    let (sandbox, _) = with_container(&cri, &bed.logs(), name, "exec sleep 600").await?;
    cri.stop_pod(&sandbox).await?;
    cri.remove_pod(&sandbox).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_pods_leave_nothing() -> Result<()> {
    let bed = Bed::new(Wishes::default()).await?;
    bed.client().await?.pull(IMAGE).await?;
    for warm in 0..4 {
        one_life(&bed, &format!("warm-{warm}")).await?;
    }
    let before = leftovers(&bed)?;
    let mut lives = JoinSet::new();
    let bed = std::sync::Arc::new(bed);
    for worker in 0..4 {
        let bed = bed.clone();
        lives.spawn(async move {
            for number in 0..25 {
                one_life(&bed, &format!("pod-{worker}-{number}")).await?;
            }
            anyhow::Ok(())
        });
    }
    for life in lives.join_all().await {
        life?;
    }
    ensure!(bed.client().await?.pods(None).await?.is_empty(), "a pod is still listed");
    nothing_left(&bed, &before).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_request_many_times_is_one_pod() -> Result<()> {
    let bed = Bed::new(Wishes::default()).await?;
    let mut same = JoinSet::new();
    for _ in 0..8 {
        let (cri, config) = (bed.client().await?, pod("one", &bed.logs()));
        same.spawn(async move { cri.run_pod(&config).await });
    }
    let mut ids: Vec<String> = same.join_all().await.into_iter().collect::<Result<_>>()?;
    ids.dedup();
    ensure!(ids.len() == 1, "several pods for one name: {ids:?}");
    let cri = bed.client().await?;
    let mut other = pod("one", &bed.logs());
    other.labels.insert("changed".into(), "yes".into());
    let refused = cri.run_pod(&other).await;
    ensure!(
        crisp_integration::client::code(&refused) == Some(tonic::Code::AlreadyExists),
        "the name with another configuration: {refused:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_daemon_loses_no_exit_code_and_no_line() -> Result<()> {
    let mut bed = Bed::new(Wishes::default()).await?;
    let cri = bed.client().await?;
    cri.pull(IMAGE).await?;
    let counting = "i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo line $i; sleep 0.005; done; exit 7";
    let (_, short) = with_container(&cri, &bed.logs(), "short", counting).await?;
    let (_, long) = with_container(&cri, &bed.logs(), "long", "exec sleep 600").await?;
    bed.kill_daemon()?;
    let log = cri_log(&bed, "short");
    let finished = async || fs::read_to_string(&log).ok()?.contains("line 300\n").then_some(());
    eventually("the container ends without a daemon", finished).await?;
    bed.start_daemon().await?;
    let cri = bed.client().await?;
    let status = cri.wait(&short).await?;
    ensure!((status.exit_code, status.reason.as_str()) == (7, "Error"), "{status:?}");
    let text = fs::read_to_string(&log)?;
    let lines: Vec<&str> = text.lines().filter_map(|l| l.split(" F ").nth(1)).collect();
    let expected: Vec<String> = (1..=300).map(|i| format!("line {i}")).collect();
    ensure!(lines == expected, "{} of 300 lines, in order", lines.len());
    ensure!(cri.status(&long).await?.state() == ContainerState::ContainerRunning);
    ensure!(cri.shell(&long, "echo alive").await?.trim() == "alive");
    Ok(())
}

fn cri_log(bed: &Bed, pod: &str) -> std::path::PathBuf {
    let found = walk(&bed.logs()).into_iter().find(|p| p.to_string_lossy().contains(pod));
    found.unwrap_or_else(|| bed.logs())
}

fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
    entries.flat_map(|p| if p.is_dir() { walk(&p) } else { vec![p] }).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_at_any_moment_of_a_pod_start_can_be_cleaned_up() -> Result<()> {
    let mut bed = Bed::new(Wishes::default()).await?;
    bed.client().await?.pull(IMAGE).await?;
    for warm in 0..3 {
        one_life(&bed, &format!("warm-{warm}")).await?;
    }
    bed.kill_daemon()?;
    bed.start_daemon().await?;
    let before = leftovers(&bed)?;
    for moment in 0..12u64 {
        let (cri, logs) = (bed.client().await?, bed.logs());
        let name = format!("moment-{moment}");
        let life = tokio::spawn(async move { with_container(&cri, &logs, &name, "exec sleep 600").await });
        // The moment is the point of the test: there is nothing to wait for.
        tokio::time::sleep(Duration::from_millis(moment * 4)).await;
        bed.kill_daemon()?;
        let _ = life.await;
        bed.start_daemon().await?;
        let cri = bed.client().await?;
        for sandbox in cri.pods(None).await? {
            cri.stop_pod(&sandbox.id).await?;
            cri.remove_pod(&sandbox.id).await?;
        }
        // Its connection is a descriptor of the daemon's too.
        drop(cri);
        nothing_left(&bed, &before)
            .await
            .with_context(|| format!("killed {} ms into a start", moment * 4))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_monitor_ends_its_pod_and_no_other() -> Result<()> {
    let bed = Bed::new(Wishes::default()).await?;
    let cri = bed.client().await?;
    cri.pull(IMAGE).await?;
    let (victim, container) = with_container(&cri, &bed.logs(), "victim", "exec sleep 600").await?;
    let (_, other) = with_container(&cri, &bed.logs(), "other", "exec sleep 600").await?;
    let monitor = bed
        .strays()
        .into_iter()
        .find(|pid| fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|c| c.contains(&victim)))
        .context("the monitor of the pod")?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(monitor), nix::sys::signal::Signal::SIGKILL)?;
    let status = cri.wait(&container).await?;
    ensure!(status.reason == "MonitorDied", "{status:?}");
    ensure!(cri.pod_status(&victim).await?.state() == PodSandboxState::SandboxNotready);
    ensure!(cri.shell(&other, "echo alive").await?.trim() == "alive");
    cri.stop_pod(&victim).await?;
    cri.remove_pod(&victim).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_reboot_pods_are_not_ready_and_can_be_removed() -> Result<()> {
    let mut bed = Bed::new(Wishes::default()).await?;
    let cri = bed.client().await?;
    cri.pull(IMAGE).await?;
    let (sandbox, container) = with_container(&cri, &bed.logs(), "old", "exec sleep 600").await?;
    bed.kill_daemon()?;
    for pid in bed.strays() {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
    // What a boot does: another boot id, and an empty state folder.
    let boot = bed.folder.join("boot_id");
    fs::write(&boot, "00000000-0000-4000-8000-000000000001\n")?;
    bed.run("mount", &["--bind", &boot.to_string_lossy(), "/proc/sys/kernel/random/boot_id"])?;
    let state = bed.folder.join("run");
    bed.run("sh", &["-c", &format!("awk '$5 ~ \"^{0}\" {{print $5}}' /proc/self/mountinfo | sort -r | xargs -r -n1 umount -l; rm -rf {0}", state.display())])?;
    bed.start_daemon().await?;
    let cri = bed.client().await?;
    ensure!(cri.pod_status(&sandbox).await?.state() == PodSandboxState::SandboxNotready);
    let status = cri.status(&container).await?;
    ensure!(status.state() == ContainerState::ContainerExited && status.exit_code != 0, "{status:?}");
    cri.stop_pod(&sandbox).await?;
    cri.remove_pod(&sandbox).await?;
    ensure!(cri.pods(None).await?.is_empty());
    Ok(())
}
