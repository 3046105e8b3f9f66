//! The CRI services: translate, call, map the error. No rule of the domain lives here.

pub mod answers;
pub mod events;
mod image;
pub mod info;
pub mod lists;
mod metrics;
mod runtime;
pub mod stats;
pub mod streaming;

use std::{future::Future, sync::Arc, time::Duration};

use crisp_host::probe::Host;
use crisp_image::ImageStore;
use crisp_network::Network;
use crisp_pod::{PodError, Pods, admit::Key, registry::Handle};
use crisp_stream::StreamServer;
use tonic::{Request, Status};

use crate::{config::Config, status};

/// What the RPCs work with. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Services {
    /// Pods and containers.
    pub pods: Pods,
    /// Images.
    pub images: ImageStore,
    /// Pod networks.
    pub network: Network,
    /// exec, attach and port-forward.
    pub streams: Arc<StreamServer>,
    /// The configuration as it is in force.
    pub config: Arc<Config>,
    /// What this host can do.
    pub host: Arc<Host>,
}

/// Part of the caller's time that is kept for the answer to travel: an answer with the stage beats a bare time-out.
const MARGIN: Duration = Duration::from_millis(100);

/// The deadline that the client sent (`grpc-timeout`, gRPC over HTTP/2), less the margin.
pub(crate) fn patience<T>(request: &Request<T>) -> Option<Duration> {
    let text = request.metadata().get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at(text.len().checked_sub(1)?);
    let count: u64 = digits.parse().ok()?;
    let whole = match unit {
        "H" => Duration::from_secs(count.checked_mul(3600)?),
        "M" => Duration::from_secs(count.checked_mul(60)?),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    };
    Some(whole.saturating_sub(MARGIN).max(whole / 2))
}

/// Waits for an operation as long as the caller has time; then says what the operation is doing. The operation goes on.
pub(crate) async fn within<T>(
    patience: Option<Duration>,
    operation: &str,
    stage: impl Fn() -> Option<(String, Duration)>,
    work: impl Future<Output = Result<T, PodError>>,
) -> Result<T, Status> {
    let Some(patience) = patience else { return work.await.map_err(status::of_pod) };
    match tokio::time::timeout(patience, work).await {
        Ok(result) => result.map_err(status::of_pod),
        Err(_) => {
            let (stage, since) = stage().unwrap_or_else(|| ("waiting for its turn".into(), patience));
            let since_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
            let error = PodError::Deadline { operation: operation.into(), stage, since_ms };
            tracing::warn!(%error, "an operation outlived its caller");
            Err(status::of_pod(error))
        }
    }
}

/// The stage of a pod's operation.
pub(crate) fn stage_of(pod: &Handle, key: Key) -> impl Fn() -> Option<(String, Duration)> {
    let pod = pod.clone();
    move || pod.stage(&key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_of_the_wire() {
        for (text, expected) in [
            ("2M", Some(Duration::from_millis(119_900))),
            ("1000m", Some(Duration::from_millis(900))),
            ("100m", Some(Duration::from_millis(50))),
            ("1000000u", Some(Duration::from_millis(900))),
            ("", None),
            ("S", None),
            ("xS", None),
            ("1x", None),
        ] {
            let mut request = Request::new(());
            request.metadata_mut().insert("grpc-timeout", text.parse().expect("ascii"));
            assert_eq!(patience(&request), expected, "{text}");
        }
    }
}
