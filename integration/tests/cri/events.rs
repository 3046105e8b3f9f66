//! GetContainerEvents: everything, in order, also over a daemon's death.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crisp_integration::client::{Cri, pod, script};
use crisp_proto::v1::{self, ContainerEventType as Kind, ContainerState};
use tonic::Streaming;

use super::place::{IMAGE, Place};

type Events = Streaming<v1::ContainerEventResponse>;

/// Reads until an event comes that is `last`; kinds of those about `id`.
async fn until(events: &mut Events, id: &str, last: Kind) -> Result<Vec<v1::ContainerEventResponse>> {
    let mut found = Vec::new();
    let reading = async {
        loop {
            let event = events.message().await?.context("the events ended")?;
            if event.container_id == id {
                found.push(event);
                if found.last().is_some_and(|e| e.container_event_type() == last) {
                    return anyhow::Ok(());
                }
            }
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(30), reading).await;
    done.with_context(|| format!("no {last:?} of {id}; so far {found:?}"))??;
    Ok(found)
}

fn kinds(events: &[v1::ContainerEventResponse]) -> Vec<Kind> {
    events.iter().map(v1::ContainerEventResponse::container_event_type).collect()
}

const LIFE: [Kind; 4] = [
    Kind::ContainerCreatedEvent,
    Kind::ContainerStartedEvent,
    Kind::ContainerStoppedEvent,
    Kind::ContainerDeletedEvent,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_life_in_order_with_the_state_of_the_pod() -> Result<()> {
    let place = Place::new("life").await?;
    let mut events = place.cri.events().await?;
    let mut second = place.cri.events().await?;
    let id = place.launch(&script("short", IMAGE, "exit 9")).await?;
    place.cri.wait(&id).await?;
    place.cri.remove(&id).await?;
    let seen = until(&mut events, &id, Kind::ContainerDeletedEvent).await?;
    ensure!(kinds(&seen) == LIFE, "{:?}", kinds(&seen));
    ensure!(seen.windows(2).all(|pair| pair[0].created_at <= pair[1].created_at));
    let stopped = &seen[2];
    ensure!(stopped.pod_sandbox_status.as_ref().is_some_and(|s| s.id == place.pod), "{stopped:?}");
    ensure!(kinds(&until(&mut second, &id, Kind::ContainerDeletedEvent).await?) == LIFE, "a second client");

    // A pod that is removed takes its containers along, each with its end.
    let id = place.idle("taken", |_| {}).await?;
    place.cri.stop_pod(&place.pod).await?;
    place.cri.remove_pod(&place.pod).await?;
    ensure!(kinds(&until(&mut events, &id, Kind::ContainerDeletedEvent).await?) == LIFE);
    let of_pod = until(&mut events, &place.pod, Kind::ContainerDeletedEvent).await?;
    ensure!(
        kinds(&of_pod) == [Kind::ContainerDeletedEvent] || kinds(&of_pod) == LIFE[2..],
        "{:?}",
        kinds(&of_pod)
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn none_is_lost_while_the_daemon_is_down() -> Result<()> {
    let mut place = Place::new("restart").await?;
    let mut events = place.cri.events().await?;
    let waits = "until [ -e /tmp/go ]; do sleep 0.05; done; exit 3";
    let id = place.launch(&script("ends-alone", IMAGE, waits)).await?;
    until(&mut events, &id, Kind::ContainerStartedEvent).await?;
    let pid = place.pid(&id).await?;
    place.bed.kill_daemon()?;
    ensure!(
        events.message().await.is_err() || events.message().await?.is_none(),
        "the stream outlived the daemon"
    );
    std::fs::write(format!("/proc/{pid}/root/tmp/go"), "")?;
    let gone = async || (!std::path::Path::new(&format!("/proc/{pid}/root/tmp")).exists()).then_some(());
    crisp_integration::bed::eventually("the container's end", gone).await?;
    place.bed.start_daemon().await?;
    place.cri = place.bed.client().await?;
    let mut events = place.cri.events().await?;
    let seen = until(&mut events, &id, Kind::ContainerStoppedEvent).await?;
    ensure!(seen.last().is_some_and(|e| e.containers_statuses.iter().any(|c| c.id == id)), "{seen:?}");
    let status = place.cri.status(&id).await?;
    ensure!((status.state(), status.exit_code) == (ContainerState::ContainerExited, 3), "{status:?}");
    Ok(())
}

async fn short_life(cri: &Cri, config: v1::PodSandboxConfig) -> Result<String> {
    let sandbox = cri.run_pod(&config).await?;
    cri.stop_pod(&sandbox).await?;
    cri.remove_pod(&sandbox).await?;
    Ok(sandbox)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_loses_none_and_delays_nobody() -> Result<()> {
    let place = Place::new("slow").await?;
    let mut slow = place.cri.events().await?;
    let mut lives = Vec::new();
    for number in 0..30 {
        lives.push(short_life(&place.cri, pod(&format!("many-{number}"), &place.bed.logs())).await?);
    }
    for id in &lives {
        let seen = until(&mut slow, id, Kind::ContainerDeletedEvent).await?;
        ensure!(kinds(&seen) == LIFE, "{id}: {:?}", kinds(&seen));
    }
    Ok(())
}
