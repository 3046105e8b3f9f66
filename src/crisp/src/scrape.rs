//! The page of crisp's own metrics, for Prometheus: `GET /metrics` over plain HTTP, in the OpenMetrics text format.
//!
//! It reads what is counted already and the published views of pods; it waits for nobody and changes nothing. Who cannot listen is told at
//! start; afterwards nothing here can end the daemon.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use crisp_model::{ContainerState, SandboxState};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore};

use crate::services::Services;

/// Clients at a time; a scraper has one connection, and more than this wait in the kernel's queue.
const CLIENTS: usize = 8;

/// How long a client may take to say what it wants.
const HEAD: Duration = Duration::from_secs(10);

/// How long a connection may live: a silent one would keep its place for ever. Scrapers come back.
const LIFE: Duration = Duration::from_secs(600);

/// How long to wait when the kernel has no descriptor for a new connection.
const PAUSE: Duration = Duration::from_millis(200);

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Listens, and serves in the background of the current runtime.
pub async fn serve(address: SocketAddr, services: Services) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| anyhow::anyhow!("metrics.address: listen on {address}: {error}"))?;
    tracing::info!(%address, "serving metrics");
    let places = Arc::new(Semaphore::new(CLIENTS));
    tokio::spawn(async move {
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let Ok((socket, _)) = listener.accept().await else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let services = services.clone();
            tokio::spawn(async move {
                let answer = service_fn(|request| {
                    let answer = respond(&request, &services);
                    async { Ok::<_, Infallible>(answer) }
                });
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD)
                    .serve_connection(TokioIo::new(socket), answer);
                // A client that leaves in the middle is its own affair.
                let _ = tokio::time::timeout(LIFE, connection).await;
                drop(place);
            });
        }
    });
    Ok(())
}

fn respond(request: &Request<Incoming>, services: &Services) -> Response<Full<Bytes>> {
    let plain = |status: StatusCode, text: &'static str| {
        let mut answer = Response::new(Full::from(text));
        *answer.status_mut() = status;
        answer
    };
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => {
            let mut answer = Response::new(Full::from(page(services)));
            answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(OPEN_METRICS));
            answer
        }
        (_, "/metrics") => plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n"),
        _ => plain(StatusCode::NOT_FOUND, "see /metrics\n"),
    }
}

fn page(services: &Services) -> String {
    let (mut pods, mut containers) = ([0; 2], [0; 4]);
    for pod in services.pods.views() {
        if let Some(sandbox) = &pod.sandbox {
            pods[usize::from(sandbox.state != SandboxState::Ready)] += 1;
        }
        for container in pod.containers.values() {
            containers[match container.state {
                ContainerState::Created => 0,
                ContainerState::Running => 1,
                ContainerState::Exited => 2,
                ContainerState::Unknown => 3,
            }] += 1;
        }
    }
    let context = services.pods.context();
    context.metrics.states(
        [("ready", pods[0]), ("notready", pods[1])],
        [
            ("created", containers[0]),
            ("running", containers[1]),
            ("exited", containers[2]),
            ("unknown", containers[3]),
        ],
    );
    context.metrics.render(&context.events)
}
