//! GetContainerEvents: what happened to pods and containers, in order.

use std::pin::Pin;

use crisp_observe::events::{EventKind, Subscription};
use crisp_proto::v1;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use super::{Services, answers};

/// Events as they come.
pub type Events = Pin<Box<dyn Stream<Item = Result<v1::ContainerEventResponse, Status>> + Send>>;

impl Services {
    pub(super) fn events(&self) -> Events {
        let pods = self.pods.clone();
        let events = self.pods.context().events.subscribe();
        let next = |mut events: Subscription| async move { Some((events.next().await?, events)) };
        Box::pin(futures::stream::unfold(events, next).map(move |event| {
            let event = event.map_err(|e| Status::data_loss(e.to_string()))?.event;
            // The kubelet takes the pod as it is now; an event whose pod has gone is still an event.
            let pod = pods.find(event.sandbox.as_str()).ok().map(|p| p.view());
            let kind = match event.kind {
                EventKind::Created => v1::ContainerEventType::ContainerCreatedEvent,
                EventKind::Started => v1::ContainerEventType::ContainerStartedEvent,
                EventKind::Stopped => v1::ContainerEventType::ContainerStoppedEvent,
                EventKind::Deleted => v1::ContainerEventType::ContainerDeletedEvent,
            };
            let id = event.container.as_ref().map_or(event.sandbox.as_str(), |c| c.as_str()).to_owned();
            Ok(v1::ContainerEventResponse {
                container_id: id,
                container_event_type: kind.into(),
                created_at: event.created_at.nanos(),
                pod_sandbox_status: pod
                    .as_ref()
                    .and_then(|p| p.sandbox.as_deref())
                    .map(answers::pod_sandbox_status),
                containers_statuses: pod
                    .iter()
                    .flat_map(|p| p.containers.values())
                    .map(|c| answers::container_status(c))
                    .collect(),
            })
        }))
    }
}
