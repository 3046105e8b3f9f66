//! Limits of containers and pods: at the start and while they run, read back in the kernel's files.

use anyhow::{Context, Result, ensure};
use crisp_integration::{
    bed::{Wishes, cgroup_folders},
    client::{code, resources},
};
use crisp_proto::v1;
use tonic::Code;

use super::place::Place;

const MIB: i64 = 1 << 20;

/// The first of some files that a container has below /sys/fs/cgroup: names differ between versions 1 and 2.
async fn limit(place: &Place, container: &str, files: &[&str]) -> Result<String> {
    let paths: Vec<String> =
        files.iter().map(|file| format!("cat /sys/fs/cgroup/{file} 2>/dev/null")).collect();
    Ok(place.cri.shell(container, &paths.join(" || ")).await?.trim().to_owned())
}

async fn memory(place: &Place, container: &str) -> Result<i64> {
    let text = limit(place, container, &["memory/memory.limit_in_bytes", "memory.max"]).await?;
    Ok(if text == "max" { -1 } else { text.parse()? })
}

/// Quota and period in microseconds.
async fn bandwidth(place: &Place, container: &str) -> Result<(String, String)> {
    if let Ok(both) = limit(place, container, &["cpu.max"]).await {
        let (quota, period) = both.split_once(' ').context("two numbers")?;
        return Ok((quota.into(), period.into()));
    }
    Ok((
        limit(place, container, &["cpu/cpu.cfs_quota_us"]).await?,
        limit(place, container, &["cpu/cpu.cfs_period_us"]).await?,
    ))
}

async fn processors(place: &Place, container: &str) -> Result<String> {
    let text = place.cri.shell(container, "grep Cpus_allowed_list /proc/self/status").await?;
    Ok(text.split_whitespace().nth(1).unwrap_or_default().to_owned())
}

async fn update(place: &Place, container: &str, linux: v1::LinuxContainerResources) -> Result<()> {
    let request = v1::UpdateContainerResourcesRequest {
        container_id: container.into(),
        linux: Some(linux),
        ..Default::default()
    };
    place.cri.runtime.clone().update_container_resources(request).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_hold_from_the_start() -> Result<()> {
    let place = Place::new("limits").await?;
    let id = place
        .idle("limited", |config| {
            *resources(config) = v1::LinuxContainerResources {
                cpu_period: 50_000,
                cpu_quota: 20_000,
                cpu_shares: 512,
                memory_limit_in_bytes: 64 * MIB,
                memory_swap_limit_in_bytes: 64 * MIB,
                cpuset_cpus: "0".into(),
                cpuset_mems: "0".into(),
                hugepage_limits: vec![v1::HugepageLimit { page_size: "2MB".into(), limit: 0 }],
                ..Default::default()
            };
        })
        .await?;
    ensure!(memory(&place, &id).await? == 64 * MIB);
    ensure!(bandwidth(&place, &id).await? == ("20000".into(), "50000".into()));
    ensure!(processors(&place, &id).await? == "0");
    let shares = limit(&place, &id, &["cpu/cpu.shares", "cpu.weight"]).await?;
    // 512 shares are a weight of 1 + (512 - 2) * 9999 / 262142 on version 2, or the newer curve's 59.
    ensure!(["512", "20", "59"].contains(&shares.as_str()), "{shares}");
    let status = place.cri.status(&id).await?.resources.and_then(|r| r.linux).context("resources")?;
    ensure!(
        (status.memory_limit_in_bytes, status.cpu_quota, status.cpuset_cpus.as_str())
            == (64 * MIB, 20_000, "0"),
        "{status:?}"
    );

    // The kernel kills what needs more.
    let script = "head -c 100000000 /dev/zero | tail -c 90000000 >/dev/null; echo $?";
    let output = place.cri.exec(&id, &["sh", "-c", script], 0).await?;
    ensure!(output.stdout.trim() == "137", "{output:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_version_2_are_written_as_they_are() -> Result<()> {
    let place = Place::new("unified").await?;
    let set = |name: &str, value: &str| {
        let unified = [(name.to_owned(), value.to_owned())].into();
        move |config: &mut v1::ContainerConfig| resources(config).unified = unified
    };
    let id = place.idle("high", set("memory.high", "67108864")).await?;
    if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        ensure!(limit(&place, &id, &["memory.high"]).await? == "67108864");
    } else {
        eprintln!("version 1: memory.high cannot be looked at, only that the container runs");
    }
    for name in ["cgroup.procs", "../x.y", "memory"] {
        let refused = place.idle("bad", set(name, "1")).await;
        ensure!(code(&refused) == Some(Code::InvalidArgument), "{name}: {refused:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_are_raised_and_lowered_while_it_runs() -> Result<()> {
    let place = Place::new("resize").await?;
    let id = place
        .idle("resized", |config| {
            *resources(config) = v1::LinuxContainerResources {
                memory_limit_in_bytes: 128 * MIB,
                cpu_period: 100_000,
                cpu_quota: 50_000,
                ..Default::default()
            };
        })
        .await?;
    let memory_of =
        |size: i64| v1::LinuxContainerResources { memory_limit_in_bytes: size, ..Default::default() };
    for size in [256 * MIB, 96 * MIB, 512 * MIB, 64 * MIB] {
        update(&place, &id, memory_of(size)).await?;
        ensure!(memory(&place, &id).await? == size);
        let said = place.cri.status(&id).await?.resources.and_then(|r| r.linux).context("resources")?;
        ensure!((said.memory_limit_in_bytes, said.cpu_quota) == (size, 50_000), "{said:?}");
    }
    for (quota, period) in [(200_000, 100_000), (10_000, 100_000), (5_000, 20_000), (300_000, 100_000)] {
        let change =
            v1::LinuxContainerResources { cpu_quota: quota, cpu_period: period, ..Default::default() };
        update(&place, &id, change).await?;
        ensure!(bandwidth(&place, &id).await? == (quota.to_string(), period.to_string()));
    }
    update(&place, &id, v1::LinuxContainerResources { cpuset_cpus: "0".into(), ..Default::default() })
        .await?;
    ensure!(processors(&place, &id).await? == "0");
    ensure!(memory(&place, &id).await? == 64 * MIB, "what was not named has changed");

    // 40 MiB in a tmpfs cannot be reclaimed: a limit below that is refused, and nothing is killed.
    place.cri.shell(&id, "dd if=/dev/zero of=/dev/shm/kept bs=1M count=40 2>/dev/null").await?;
    let refused = update(&place, &id, memory_of(16 * MIB)).await;
    ensure!(refused.is_err(), "a limit below what is in use was taken");
    let text = refused.err().map(|e| format!("{e:#}")).unwrap_or_default();
    ensure!(text.contains("memory"), "{text}");
    ensure!(memory(&place, &id).await? == 64 * MIB);
    ensure!(place.cri.shell(&id, "stat -c %s /dev/shm/kept").await?.trim() == "41943040");
    let said = place.cri.status(&id).await?.resources.and_then(|r| r.linux).context("resources")?;
    ensure!(said.memory_limit_in_bytes == 64 * MIB, "{said:?}");

    let created = place
        .create(&crisp_integration::client::container("later", super::place::IMAGE, &["sleep", "600"]))
        .await?;
    update(&place, &created, memory_of(80 * MIB)).await?;
    place.cri.start(&created).await?;
    ensure!(memory(&place, &created).await? == 80 * MIB, "a container that was not started yet");
    place.cri.stop(&id, 0).await?;
    let ended = update(&place, &id, memory_of(80 * MIB)).await;
    ensure!(code(&ended) == Some(Code::FailedPrecondition) || ended.is_err(), "{ended:?}");
    let nobody = update(&place, &"0".repeat(64), memory_of(80 * MIB)).await;
    ensure!(nobody.is_err());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_as_a_whole_is_limited_and_resized() -> Result<()> {
    let limits = |memory: i64, quota: i64| v1::LinuxContainerResources {
        memory_limit_in_bytes: memory,
        cpu_quota: quota,
        cpu_period: 100_000,
        ..Default::default()
    };
    let place = Place::with("whole", Wishes::default(), |config| {
        config.linux.get_or_insert_default().resources = Some(limits(256 * MIB, 80_000));
        config.linux.get_or_insert_default().overhead = Some(limits(16 * MIB, 1_000));
    })
    .await?;
    let id = place.idle("inside", |_| {}).await?;
    let group = format!("{}/{}", place.bed.cgroup, place.pod);
    let read = |names: [&str; 2]| -> Result<String> {
        let folders = cgroup_folders(&group);
        let found = folders
            .iter()
            .flat_map(|f| names.map(|n| f.join(n)))
            .find_map(|path| std::fs::read_to_string(path).ok());
        Ok(found.with_context(|| format!("{names:?} in {folders:?}"))?.trim().to_owned())
    };
    let memory = || read(["memory.limit_in_bytes", "memory.max"]);
    let before = (memory()?, read(["cpu.cfs_quota_us", "cpu.max"])?);
    for (size, quota) in [(512 * MIB, 150_000), (128 * MIB, 40_000)] {
        let request = v1::UpdatePodSandboxResourcesRequest {
            pod_sandbox_id: place.pod.clone(),
            overhead: Some(limits(16 * MIB, 1_000)),
            resources: Some(limits(size, quota)),
        };
        place.cri.runtime.clone().update_pod_sandbox_resources(request).await?;
        ensure!(memory()? == size.to_string(), "{before:?}: {}", memory()?);
        let now = read(["cpu.cfs_quota_us", "cpu.max"])?;
        ensure!(now == quota.to_string() || now == format!("{quota} 100000"), "{now}");
    }
    ensure!(place.cri.shell(&id, "echo alive").await? == "alive\n");
    let request =
        v1::UpdatePodSandboxResourcesRequest { pod_sandbox_id: "0".repeat(64), ..Default::default() };
    let nobody = place.cri.runtime.clone().update_pod_sandbox_resources(request).await;
    ensure!(nobody.is_err_and(|status| status.code() == Code::NotFound));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_without_a_parent_gets_its_limits_at_once() -> Result<()> {
    let limits = |config: &mut v1::PodSandboxConfig| {
        config.linux.get_or_insert_default().resources = Some(v1::LinuxContainerResources {
            memory_limit_in_bytes: 96 * MIB,
            cpu_period: 100_000,
            cpu_quota: 30_000,
            ..Default::default()
        });
    };
    let place = Place::with("pod-limits", Wishes::default(), limits).await?;
    let folder = |controller: &str| {
        let name = format!("{}/{}", place.bed.cgroup, place.pod);
        cgroup_folders(&name).into_iter().find(|path| path.join(controller).is_file())
    };
    let read = |files: [&str; 2]| {
        let found = files.into_iter().find_map(|file| std::fs::read_to_string(folder(file)?.join(file)).ok());
        found.with_context(|| format!("{files:?}"))
    };
    ensure!(read(["memory.limit_in_bytes", "memory.max"])?.trim() == (96 * MIB).to_string());
    let quota = read(["cpu.cfs_quota_us", "cpu.max"])?;
    ensure!(["30000", "30000 100000"].contains(&quota.trim()), "{quota}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_oom_score_reaches_every_process() -> Result<()> {
    let place = Place::new("oom-score").await?;
    let id = place
        .idle("scored", |config| {
            config.command = vec!["sh".into(), "-c".into(), "sleep 600 & sleep 600".into()];
            resources(config).oom_score_adj = 300;
        })
        .await?;
    // Of a process that is added.
    let added = async || place.cri.shell(&id, "cat /proc/self/oom_score_adj").await;
    ensure!(added().await? == "300\n");
    update(&place, &id, v1::LinuxContainerResources { oom_score_adj: 700, ..Default::default() }).await?;
    let first = place.pid(&id).await?;
    let pids = std::fs::read_to_string(format!("/proc/{first}/task/{first}/children"))?;
    let mut seen = 0;
    for pid in pids.split_whitespace().chain([first.to_string().as_str()]) {
        let score = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj"))?;
        ensure!(score == "700\n", "{pid}: {score}");
        seen += 1;
    }
    ensure!(seen >= 2, "{pids:?}");
    ensure!(added().await? == "700\n");
    let status = place.cri.status(&id).await?.resources.and_then(|r| r.linux).context("resources")?;
    ensure!(status.oom_score_adj == 700, "{status:?}");
    Ok(())
}
