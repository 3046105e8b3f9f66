//! What surrounds every RPC: a span with its name, its time and its outcome in the log and in the metrics. The methods
//! tell none of this.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use crisp_observe::metrics::Metrics;
use tonic::{
    Code,
    codegen::{Service, http},
};
use tracing::Instrument as _;

/// Puts [`Observed`] around the services.
#[derive(Debug, Clone)]
pub struct Observe(pub Arc<Metrics>);

impl<S> tower::Layer<S> for Observe {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        Observed { inner, metrics: self.0.clone() }
    }
}

/// A service whose requests are told about.
#[derive(Debug, Clone)]
pub struct Observed<S> {
    inner: S,
    metrics: Arc<Metrics>,
}

impl<S, A, B> Service<http::Request<A>> for Observed<S>
where
    S: Service<http::Request<A>, Response = http::Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<A>) -> Self::Future {
        let rpc = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let span = tracing::info_span!("rpc", method = rpc);
        let begin = Instant::now();
        let answer = self.inner.call(request);
        let metrics = self.metrics.clone();
        let observed = async move {
            let answer = answer.await;
            if let Ok(answer) = &answer {
                let code = tell(&rpc, begin, answer.headers());
                metrics.call(&rpc, &format!("{code:?}"), begin.elapsed());
            }
            answer
        };
        Box::pin(observed.instrument(span))
    }
}

/// A failed call has its status in the head; one that succeeds has it after its body, and so has a stream.
fn tell(rpc: &str, begin: Instant, head: &http::HeaderMap) -> Code {
    let millis = begin.elapsed().as_secs_f64() * 1000.0;
    let text = |name: &str| head.get(name).map(http::HeaderValue::as_bytes);
    let code = text("grpc-status").map_or(Code::Ok, Code::from_bytes);
    match code {
        Code::Ok => tracing::debug!(rpc, millis, "answered"),
        // Everyday answers: what is asked for has gone, or the client has lost its patience and will come back.
        Code::NotFound | Code::Cancelled | Code::Unimplemented => {
            tracing::debug!(rpc, millis, ?code, "refused")
        }
        _ => {
            let message = text("grpc-message").map(decoded).unwrap_or_default();
            tracing::warn!(rpc, millis, ?code, message, "failed");
        }
    }
    code
}

/// gRPC writes bytes outside of printable ASCII as `%` and two hexadecimal digits.
fn decoded(message: &[u8]) -> String {
    let digit = |at: usize| message.get(at).and_then(|b| char::from(*b).to_digit(16));
    let mut bytes = Vec::with_capacity(message.len());
    let mut at = 0;
    while let Some(&byte) = message.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                bytes.extend(u8::try_from(high * 16 + low));
                at += 3;
            }
            _ => {
                bytes.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_decoded() {
        for (wire, text) in [
            ("a b", "a b"),
            ("%C3%BC", "ü"),
            ("100%", "100%"),
            ("%zz%4", "%zz%4"),
            ("a%0Ab", "a\nb"),
            ("", ""),
        ] {
            assert_eq!(decoded(wire.as_bytes()), text, "{wire}");
        }
    }

    #[tokio::test]
    async fn answers_pass_unchanged() {
        use tower::{Layer as _, Service as _, service_fn};
        let inner = service_fn(async |request: http::Request<&str>| {
            Ok::<_, std::convert::Infallible>(
                http::Response::builder().status(207).body(request.into_body().len()),
            )
        });
        let inner = service_fn(move |request| {
            let mut inner = inner;
            async move { inner.call(request).await.map(|answer| answer.expect("a response")) }
        });
        let request = http::Request::builder().uri("/runtime.v1.RuntimeService/Status").body("four");
        let answer =
            Observe(Arc::default()).layer(inner).call(request.expect("a request")).await.expect("infallible");
        assert_eq!((answer.status().as_u16(), answer.into_body()), (207, 4));
    }
}
