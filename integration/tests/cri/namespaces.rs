//! Namespaces in their other modes.

use anyhow::{Context, Result, ensure};
use crisp_integration::{
    bed::Wishes,
    client::{script, security},
};
use crisp_proto::v1::{self, NamespaceMode};

use super::place::{IMAGE, Place};

pub const MAPPING: v1::IdMapping = v1::IdMapping { host_id: 200_000, container_id: 0, length: 65_536 };

pub fn own_users() -> v1::UserNamespace {
    v1::UserNamespace { mode: NamespaceMode::Pod.into(), uids: vec![MAPPING], gids: vec![MAPPING] }
}

fn options(config: &mut v1::PodSandboxConfig) -> &mut v1::NamespaceOption {
    let context = config.linux.get_or_insert_default().security_context.get_or_insert_default();
    context.namespace_options.get_or_insert_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_sees_the_processes_of_its_target() -> Result<()> {
    let own = |config: &mut v1::PodSandboxConfig| options(config).pid = NamespaceMode::Container.into();
    let place = Place::with("target", Wishes::default(), own).await?;
    let alone = |config: &mut v1::ContainerConfig| {
        security(config).namespace_options =
            Some(v1::NamespaceOption { pid: NamespaceMode::Container.into(), ..Default::default() });
    };
    let target = place.idle("target", alone).await?;
    ensure!(place.cri.shell(&target, "tr '\\0' ' ' </proc/1/cmdline").await? == "sleep 600 ");
    let mut config = script("debugger", IMAGE, "tr '\\0' ' ' </proc/1/cmdline; echo; sleep 600");
    security(&mut config).namespace_options = Some(v1::NamespaceOption {
        pid: NamespaceMode::Target.into(),
        target_id: target.clone(),
        ..Default::default()
    });
    let debugger = place.launch(&config).await?;
    let lines = place.lines_when("debugger.log", |lines| !lines.is_empty()).await?;
    ensure!(lines[0].text == "sleep 600 ", "{lines:?}");
    ensure!(place.cri.shell(&debugger, "true").await.is_ok());
    // The target's end is that of its pid namespace.
    place.cri.stop(&target, 0).await?;
    place.cri.wait(&debugger).await?;

    let mut config = script("lost", IMAGE, "true");
    security(&mut config).namespace_options = Some(v1::NamespaceOption {
        pid: NamespaceMode::Target.into(),
        target_id: "0".repeat(64),
        ..Default::default()
    });
    let refused = place.create(&config).await;
    ensure!(refused.as_ref().is_err_and(|e| format!("{e:#}").contains("target")), "{refused:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_with_users_of_its_own() -> Result<()> {
    let own = |config: &mut v1::PodSandboxConfig| options(config).userns_options = Some(own_users());
    let place = Place::with("users", Wishes::default(), own).await?;
    let mapped = |config: &mut v1::ContainerConfig| {
        security(config).namespace_options =
            Some(v1::NamespaceOption { userns_options: Some(own_users()), ..Default::default() });
    };
    let id = place.idle("mapped", mapped).await?;
    ensure!(
        place.cri.shell(&id, "cat /proc/self/uid_map").await?.split_whitespace().eq(["0", "200000", "65536"])
    );
    ensure!(place.cri.shell(&id, "touch /made && stat -c %u:%g /made /bin/busybox").await? == "0:0\n0:0\n");
    ensure!(place.cri.shell(&id, "chown 7:8 /made && stat -c %u:%g /made").await? == "7:8\n");
    let host = std::fs::read_to_string(format!("/proc/{}/status", place.pid(&id).await?))?;
    ensure!(host.contains("Uid:\t200000\t"), "{host}");
    ensure!(place.cri.exec(&id, &["mount", "-t", "tmpfs", "x", "/mnt"], 0).await?.code != 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_of_its_own_with_the_hosts_network() -> Result<()> {
    let own = |config: &mut v1::PodSandboxConfig| {
        options(config).userns_options = Some(own_users());
        options(config).network = NamespaceMode::Node.into();
    };
    let place = Place::with("users-host", Wishes::default(), own).await?;
    let mapped = |config: &mut v1::ContainerConfig| {
        security(config).namespace_options = Some(v1::NamespaceOption {
            userns_options: Some(own_users()),
            network: NamespaceMode::Node.into(),
            ..Default::default()
        });
    };
    let id = place.idle("mapped", mapped).await?;
    ensure!(
        place.cri.shell(&id, "cat /proc/self/uid_map").await?.split_whitespace().eq(["0", "200000", "65536"])
    );
    let (inside, host) = (place.pid(&id).await?, place.bed.holder());
    ensure!(
        std::fs::read_link(format!("/proc/{inside}/ns/net"))?
            == std::fs::read_link(format!("/proc/{host}/ns/net"))?
    );
    let status = place.cri.runtime.clone().status(v1::StatusRequest::default()).await?.into_inner();
    ensure!(
        status.features.context("features")?.user_namespaces_host_network,
        "it works and is not advertised"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_names_the_namespaces_and_the_handler() -> Result<()> {
    let place = Place::with("named", Wishes::default(), |config| {
        let context = config.linux.get_or_insert_default().security_context.get_or_insert_default();
        // For the infra container, of which nobody sees more than that it runs.
        context.run_as_user = Some(v1::Int64Value { value: 1000 });
        context.run_as_group = Some(v1::Int64Value { value: 1000 });
        context.readonly_rootfs = true;
        context.supplemental_groups = vec![5, 6];
        options(config).ipc = NamespaceMode::Node.into();
    })
    .await?;
    let request = v1::PodSandboxStatusRequest { pod_sandbox_id: place.pod.clone(), verbose: false };
    let id = place.idle("main", |_| {}).await?;
    let answer = place.cri.runtime.clone().pod_sandbox_status(request).await?.into_inner();
    ensure!(answer.timestamp > 0 && answer.info.is_empty(), "{answer:?}");
    ensure!(answer.containers_statuses.iter().map(|c| c.id.as_str()).eq([id.as_str()]), "{answer:?}");
    let status = answer.status.context("status")?;
    let options = status.linux.and_then(|l| l.namespaces).and_then(|n| n.options).context("options")?;
    ensure!((options.ipc(), options.network()) == (NamespaceMode::Node, NamespaceMode::Pod), "{options:?}");
    ensure!(place.cri.shell(&id, "id -u").await?.trim() == "0");
    let network = status.network.context("network")?;
    ensure!(place.cri.shell(&id, "ip -o addr show eth0").await?.contains(&network.ip), "{network:?}");
    Ok(())
}
