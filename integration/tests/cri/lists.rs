//! Lists: filters, and the streamed form of each.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use crisp_integration::client::{image_spec, pod, script};
use crisp_proto::v1::{self, ContainerState, PodSandboxState};

use super::place::{IMAGE, Place};

fn labels(pairs: &[(&str, &str)]) -> std::collections::HashMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_choose() -> Result<()> {
    let place = Place::new("first").await?;
    let cri = &place.cri;
    let mut second = pod("second", &place.bed.logs());
    second.labels = labels(&[("app", "two"), ("tier", "back")]);
    let second_id = cri.run_pod(&second).await?;
    let mut third = pod("third", &place.bed.logs());
    third.labels = labels(&[("app", "three"), ("tier", "back")]);
    let third_id = cri.run_pod(&third).await?;
    cri.stop_pod(&third_id).await?;

    let state = |state: PodSandboxState| Some(v1::PodSandboxStateValue { state: state.into() });
    let pods = async |filter: v1::PodSandboxFilter| -> Result<BTreeSet<String>> {
        Ok(cri.pods(Some(filter)).await?.into_iter().map(|p| p.id).collect())
    };
    let set = |ids: &[&String]| ids.iter().map(|id| (*id).clone()).collect::<BTreeSet<_>>();
    let none = v1::PodSandboxFilter::default;
    let (ready, gone) = (PodSandboxState::SandboxReady, PodSandboxState::SandboxNotready);
    ensure!(pods(none()).await? == set(&[&place.pod, &second_id, &third_id]));
    ensure!(
        pods(v1::PodSandboxFilter { state: state(ready), ..none() }).await? == set(&[&place.pod, &second_id])
    );
    ensure!(pods(v1::PodSandboxFilter { state: state(gone), ..none() }).await? == set(&[&third_id]));
    ensure!(
        pods(v1::PodSandboxFilter { label_selector: labels(&[("tier", "back")]), ..none() }).await?
            == set(&[&second_id, &third_id])
    );
    let both = labels(&[("tier", "back"), ("app", "two")]);
    ensure!(pods(v1::PodSandboxFilter { label_selector: both, ..none() }).await? == set(&[&second_id]));
    ensure!(
        pods(v1::PodSandboxFilter { label_selector: labels(&[("tier", "")]), ..none() }).await?.is_empty()
    );
    ensure!(
        pods(v1::PodSandboxFilter { id: third_id.clone(), state: state(gone), ..none() }).await?
            == set(&[&third_id])
    );
    ensure!(
        pods(v1::PodSandboxFilter { id: third_id.clone(), state: state(ready), ..none() }).await?.is_empty()
    );
    // A beginning of an id is enough, as with every runtime.
    ensure!(pods(v1::PodSandboxFilter { id: third_id[..12].into(), ..none() }).await? == set(&[&third_id]));

    let mut config = script("created", IMAGE, "true");
    config.labels = labels(&[("role", "new")]);
    let created = place.create(&config).await?;
    let running = place.idle("running", |config| config.labels = labels(&[("role", "work")])).await?;
    let other = cri.launch(&second_id, &script("other", IMAGE, "sleep 600"), &second).await?;
    let exited = place.launch(&script("exited", IMAGE, "exit 1")).await?;
    cri.wait(&exited).await?;
    let state = |state: ContainerState| Some(v1::ContainerStateValue { state: state.into() });
    let containers = async |filter: v1::ContainerFilter| -> Result<BTreeSet<String>> {
        Ok(cri.containers(Some(filter)).await?.into_iter().map(|c| c.id).collect())
    };
    let none = v1::ContainerFilter::default;
    for (wanted, ids) in [
        (ContainerState::ContainerCreated, set(&[&created])),
        (ContainerState::ContainerRunning, set(&[&running, &other])),
        (ContainerState::ContainerExited, set(&[&exited])),
        (ContainerState::ContainerUnknown, set(&[])),
    ] {
        ensure!(
            containers(v1::ContainerFilter { state: state(wanted), ..none() }).await? == ids,
            "{wanted:?}"
        );
    }
    ensure!(
        containers(v1::ContainerFilter { pod_sandbox_id: second_id.clone(), ..none() }).await?
            == set(&[&other])
    );
    ensure!(
        containers(v1::ContainerFilter { label_selector: labels(&[("role", "work")]), ..none() }).await?
            == set(&[&running])
    );
    ensure!(
        containers(v1::ContainerFilter { id: running[..10].into(), ..none() }).await? == set(&[&running])
    );
    let listed = cri.containers(Some(v1::ContainerFilter { id: exited.clone(), ..none() })).await?;
    ensure!(
        listed[0].state() == ContainerState::ContainerExited
            && listed[0].created_at > 0
            && !listed[0].image_id.is_empty(),
        "{listed:?}"
    );

    let stats = async |filter: v1::ContainerStatsFilter| -> Result<BTreeSet<String>> {
        let request = v1::ListContainerStatsRequest { filter: Some(filter) };
        let stats = cri.runtime.clone().list_container_stats(request).await?.into_inner().stats;
        Ok(stats.into_iter().filter_map(|s| s.attributes).map(|a| a.id).collect())
    };
    let none = v1::ContainerStatsFilter::default;
    ensure!(
        stats(v1::ContainerStatsFilter { pod_sandbox_id: second_id.clone(), ..none() }).await?
            == set(&[&other])
    );
    ensure!(
        stats(v1::ContainerStatsFilter { label_selector: labels(&[("role", "work")]), ..none() }).await?
            == set(&[&running])
    );
    ensure!(stats(v1::ContainerStatsFilter { id: other.clone(), ..none() }).await? == set(&[&other]));
    let request = v1::ListPodSandboxStatsRequest {
        filter: Some(v1::PodSandboxStatsFilter {
            label_selector: labels(&[("app", "two")]),
            ..Default::default()
        }),
    };
    let found = cri.runtime.clone().list_pod_sandbox_stats(request).await?.into_inner().stats;
    ensure!(found.len() == 1 && found[0].attributes.as_ref().is_some_and(|a| a.id == second_id), "{found:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streamed_lists_are_the_same_lists() -> Result<()> {
    let place = Place::new("streams").await?;
    place.cri.pull("docker.io/library/changing:1").await?;
    for name in ["a", "b", "c"] {
        place.idle(name, |_| {}).await?;
    }
    let (mut runtime, mut images) = (place.cri.runtime.clone(), place.cri.images.clone());

    /// All messages of a stream, put together.
    macro_rules! collected {
        ($call:expr, $field:ident) => {{
            let mut stream = $call.await?.into_inner();
            let mut all = Vec::new();
            while let Some(message) = stream.message().await? {
                all.extend(message.$field);
            }
            all
        }};
    }
    let pods =
        collected!(runtime.stream_pod_sandboxes(v1::StreamPodSandboxesRequest::default()), pod_sandboxes);
    ensure!(pods == place.cri.pods(None).await? && pods.len() == 1);
    let containers =
        collected!(runtime.stream_containers(v1::StreamContainersRequest::default()), containers);
    ensure!(containers == place.cri.containers(None).await? && containers.len() == 3);
    let filter = Some(v1::ContainerFilter { id: containers[1].id.clone(), ..Default::default() });
    let one = collected!(runtime.stream_containers(v1::StreamContainersRequest { filter }), containers);
    ensure!(one == [containers[1].clone()]);
    let nothing = Some(v1::ContainerFilter { id: "0".repeat(64), ..Default::default() });
    ensure!(
        collected!(runtime.stream_containers(v1::StreamContainersRequest { filter: nothing }), containers)
            .is_empty()
    );

    let ids = |stats: &[v1::ContainerStats]| -> BTreeSet<String> {
        stats.iter().filter_map(|s| s.attributes.as_ref()).map(|a| a.id.clone()).collect()
    };
    let all: BTreeSet<String> = containers.iter().map(|c| c.id.clone()).collect();
    let stats = collected!(
        runtime.stream_container_stats(v1::StreamContainerStatsRequest::default()),
        container_stats
    );
    ensure!(ids(&stats) == all && stats.iter().all(|s| s.cpu.is_some() && s.memory.is_some()));
    let stats = collected!(
        runtime.stream_pod_sandbox_stats(v1::StreamPodSandboxStatsRequest::default()),
        pod_sandbox_stats
    );
    ensure!(
        stats.len() == 1 && ids(&stats[0].linux.as_ref().context("linux")?.containers) == all,
        "{stats:?}"
    );
    let metrics = collected!(
        runtime.stream_pod_sandbox_metrics(v1::StreamPodSandboxMetricsRequest::default()),
        pod_sandbox_metrics
    );
    ensure!(
        metrics.len() == 1
            && metrics[0].pod_sandbox_id == place.pod
            && metrics[0].container_metrics.len() == 3
    );

    let streamed = collected!(images.stream_images(v1::StreamImagesRequest::default()), images);
    let listed = images.list_images(v1::ListImagesRequest::default()).await?.into_inner().images;
    ensure!(streamed == listed && listed.len() == 2, "{listed:?}");
    let filter = Some(v1::ImageFilter { image: image_spec(IMAGE) });
    let one = images.list_images(v1::ListImagesRequest { filter: filter.clone() }).await?.into_inner().images;
    ensure!(one.len() == 1 && one[0].repo_tags == [IMAGE], "{one:?}");
    ensure!(collected!(images.stream_images(v1::StreamImagesRequest { filter }), images) == one);
    Ok(())
}
