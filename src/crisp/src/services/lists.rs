//! Lists of pods and containers, whole or in batches.

use std::pin::Pin;

use crisp_proto::v1;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use super::{Services, answers};
use crate::from_wire::{At, ContainerFilter, SandboxFilter};

/// Items of one message of a streamed list: at 2 KiB an item a message stays far below gRPC's usual 4 MiB (KEP-5825).
const BATCH: usize = 500;

/// A list in bounded messages.
pub type Batches<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Cuts a list into messages. An empty list is one empty message, so that the client sees an answer.
pub fn batches<I, T>(items: Vec<I>, answer: impl Fn(Vec<I>) -> T + Send + 'static) -> Batches<T>
where
    I: Send + 'static,
    T: 'static,
{
    let mut rest = items.into_iter();
    let mut first = true;
    let parts = std::iter::from_fn(move || {
        let part: Vec<I> = rest.by_ref().take(BATCH).collect();
        let go_on = first || !part.is_empty();
        first = false;
        go_on.then_some(part)
    });
    Box::pin(tokio_stream::iter(parts).map(move |part| Ok(answer(part))))
}

impl Services {
    /// The sandboxes that a filter names, newest first.
    pub(super) fn sandboxes(
        &self,
        filter: Option<&v1::PodSandboxFilter>,
    ) -> Result<Vec<v1::PodSandbox>, Status> {
        let filter = SandboxFilter::from_wire(&At::root("filter"), filter)?;
        let views = self.pods.views();
        let sandboxes = views.iter().filter_map(|pod| pod.sandbox.as_ref());
        let mut list: Vec<v1::PodSandbox> = sandboxes
            .filter(|s| filter.matches(s.id.as_str(), s.state, &s.config.labels))
            .map(|s| answers::pod_sandbox(s))
            .collect();
        list.sort_by_key(|s| std::cmp::Reverse(s.created_at));
        Ok(list)
    }

    /// The containers that a filter names, newest first.
    pub(super) fn containers(
        &self,
        filter: Option<&v1::ContainerFilter>,
    ) -> Result<Vec<v1::Container>, Status> {
        let filter = ContainerFilter::from_wire(&At::root("filter"), filter)?;
        let views = self.pods.views();
        let containers = views.iter().flat_map(|pod| pod.containers.values());
        let mut list: Vec<v1::Container> = containers
            .filter(|c| filter.matches(c.id.as_str(), c.sandbox.as_str(), c.state, &c.config.labels))
            .map(|c| answers::container(c))
            .collect();
        list.sort_by_key(|c| std::cmp::Reverse(c.created_at));
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn batches_are_bounded_and_lose_nothing() {
        for (count, messages) in [(0usize, 1usize), (1, 1), (BATCH, 1), (BATCH + 1, 2), (3 * BATCH, 3)] {
            let all: Vec<Result<Vec<usize>, Status>> =
                batches((0..count).collect(), |part| part).collect().await;
            let parts: Vec<Vec<usize>> = all.into_iter().map(|m| m.expect("no error")).collect();
            assert_eq!(parts.len(), messages, "{count}");
            assert!(parts.iter().all(|p| p.len() <= BATCH));
            assert_eq!(parts.concat(), (0..count).collect::<Vec<_>>());
        }
    }
}
