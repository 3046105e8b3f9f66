//! One HTTP request: checks the address and the upgrade, answers, and serves the upgraded connection.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::{sync::OwnedSemaphorePermit, time::timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    backend::Backend,
    channel::{Input, Output},
    forward::{self, Forwarder},
    liveness::Hangup,
    negotiate::{self, ACCEPTED_PROTOCOLS, ProcessProtocol, STREAM_PROTOCOL, Transport, Version},
    outlet::{Envelope, Packet},
    process::{self, Channels},
    spdy::{self, frame::Reset, headers::Headers, stream::Stream},
    tls::Tls,
    token::{Ticket, Tokens},
    upgraded::Connection,
    websocket::{channels, handshake},
};

/// What all requests of a server share.
pub(crate) struct Context {
    pub(crate) tokens: Tokens,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) tls: Option<Tls>,
    pub(crate) idle: Duration,
    pub(crate) stall: Duration,
    pub(crate) creation: Duration,
    pub(crate) shutdown: CancellationToken,
}

/// What belongs to one TCP connection: kept as long as its streams run.
pub(crate) struct Socket {
    pub(crate) hangup: Arc<Hangup>,
    pub(crate) _permit: OwnedSemaphorePermit,
}

type Answer = Response<Full<Bytes>>;

fn answer(status: StatusCode, text: &str) -> Answer {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())));
    *response.status_mut() = status;
    response
}

/// What a request agreed on.
#[derive(Debug, Clone, Copy)]
enum Agreement {
    Process(ProcessProtocol),
    Forward(&'static str),
}

impl Agreement {
    fn name(self) -> &'static str {
        match self {
            Self::Process(protocol) => protocol.name,
            Self::Forward(name) => name,
        }
    }
}

/// Answers a request; an upgrade goes on in a task of its own.
pub(crate) async fn respond(
    request: Request<Incoming>,
    context: Arc<Context>,
    socket: Arc<Socket>,
) -> Result<Answer, Infallible> {
    Ok(match prepare(&request, &context) {
        Err(refusal) => *refusal,
        Ok((ticket, transport, agreement, response)) => {
            let upgrade = hyper::upgrade::on(request);
            tokio::spawn(async move {
                let upgraded = match upgrade.await {
                    Ok(upgraded) => upgraded,
                    Err(error) => return tracing::debug!(%error, "stream: the upgrade failed"),
                };
                let tunnel = transport == Transport::WebSocket && matches!(agreement, Agreement::Forward(_));
                let envelope = if tunnel { Envelope::WebSocket } else { Envelope::None };
                let Some(connection) = Connection::new(upgraded, Arc::clone(&socket.hangup), envelope) else {
                    return;
                };
                let shutdown = context.shutdown.clone();
                tokio::select! {
                    () = serve(connection, ticket, transport, agreement, &context) => {}
                    () = shutdown.cancelled() => {}
                }
                drop(socket);
            });
            response
        }
    })
}

/// Checks everything that is in the request's head. The token is used up in any case.
fn prepare(
    request: &Request<Incoming>,
    context: &Context,
) -> Result<(Ticket, Transport, Agreement, Answer), Box<Answer>> {
    let ticket = context.tokens.redeem(request.uri().path());
    let ticket = ticket.ok_or_else(|| refuse(StatusCode::NOT_FOUND, "404 page not found\n"))?;
    if !matches!(*request.method(), Method::GET | Method::POST) {
        return Err(refuse(StatusCode::METHOD_NOT_ALLOWED, "GET or POST is needed\n"));
    }
    let headers = request.headers();
    let no_upgrade = || refuse(StatusCode::BAD_REQUEST, "an upgrade to SPDY/3.1 or websocket is needed\n");
    let transport = negotiate::transport(headers).ok_or_else(no_upgrade)?;
    let agreement = match &ticket {
        Ticket::PortForward(_) => negotiate::forward(headers, transport).map(Agreement::Forward),
        _ => negotiate::process(headers, transport).map(Agreement::Process),
    };
    let agreement = agreement.map_err(|known| no_protocol(&known))?;
    let mut response = answer(StatusCode::SWITCHING_PROTOCOLS, "");
    let out = response.headers_mut();
    out.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    let name = HeaderValue::from_static(agreement.name());
    match transport {
        Transport::Spdy => {
            out.insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
            if !name.is_empty() {
                out.insert(STREAM_PROTOCOL, name);
            }
        }
        Transport::WebSocket => {
            let accept = handshake::accept(headers).ok_or_else(no_upgrade)?;
            out.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            out.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
            if !name.is_empty() {
                out.insert(header::SEC_WEBSOCKET_PROTOCOL, name);
            }
        }
    }
    Ok((ticket, transport, agreement, response))
}

fn refuse(status: StatusCode, text: &str) -> Box<Answer> {
    Box::new(answer(status, text))
}

fn no_protocol(known: &[&'static str]) -> Box<Answer> {
    let mut refusal = refuse(StatusCode::FORBIDDEN, "none of the offered protocols is spoken here\n");
    for name in known {
        refusal.headers_mut().append(ACCEPTED_PROTOCOLS, HeaderValue::from_static(name));
    }
    refusal
}

async fn serve(
    connection: Connection,
    ticket: Ticket,
    transport: Transport,
    agreement: Agreement,
    context: &Context,
) {
    let activity = connection.wire.activity.clone();
    let work = async {
        match (agreement, transport) {
            (Agreement::Process(protocol), Transport::Spdy) => {
                spdy_process(connection, ticket, protocol, context).await;
            }
            (Agreement::Process(protocol), Transport::WebSocket) => {
                websocket_process(connection, ticket, protocol, context).await;
            }
            (Agreement::Forward(_), _) => forward(connection, ticket, transport, context).await,
        }
    };
    tokio::select! {
        () = work => {}
        () = activity.idle(context.idle) => tracing::info!("stream: closed a connection that was idle for too long"),
    }
}

fn accept_process(headers: &Headers) -> Result<(), Reset> {
    match headers.get("streamtype") {
        Some("error" | "stdin" | "stdout" | "stderr" | "resize") => Ok(()),
        _ => Err(Reset::Protocol),
    }
}

async fn spdy_process(connection: Connection, ticket: Ticket, protocol: ProcessProtocol, context: &Context) {
    let Connection { wire, writer } = connection;
    let outlet = writer.outlet.clone();
    let Ok((reader, mut opened)) = spdy::session::Reader::new(wire, outlet.clone(), accept_process, None)
    else {
        return;
    };
    let gone = CancellationToken::new();
    let reader = AbortOnDropHandle::new(tokio::spawn(reader.run(gone.clone())));
    let work = async {
        let expected = expected(&ticket, protocol.version);
        let collected = timeout(context.creation, collect(&mut opened, &expected, protocol.version)).await;
        match collected {
            Ok(Some(channels)) => process::serve(channels, ticket, Arc::clone(&context.backend)).await,
            _ => tracing::info!(?expected, "stream: the client did not open its streams in time"),
        }
        let _ = outlet.send(spdy::frame::go_away(0, spdy::frame::GoAway::Ok).into()).await;
    };
    tokio::select! {
        () = work => writer.finish(&gone).await,
        () = gone.cancelled() => {}
    }
    drop(reader);
}

async fn forward(connection: Connection, ticket: Ticket, transport: Transport, context: &Context) {
    let Ticket::PortForward(request) = ticket else { return };
    let Connection { wire, writer } = connection;
    let outlet = writer.outlet.clone();
    let wire = if transport == Transport::WebSocket { wire.tunnelled(outlet.clone()) } else { wire };
    let patience = Some(context.stall);
    let Ok((reader, opened)) = spdy::session::Reader::new(wire, outlet, forward::accept, patience) else {
        return;
    };
    let gone = CancellationToken::new();
    let reader = AbortOnDropHandle::new(tokio::spawn(reader.run(gone.clone())));
    let forwarder = Forwarder::new(Arc::clone(&context.backend), request.sandbox, context.creation);
    tokio::select! {
        () = forwarder.run(opened) => writer.finish(&gone).await,
        () = gone.cancelled() => {}
    }
    drop(reader);
}

/// The streams that a client opens for a request.
fn expected(ticket: &Ticket, version: Version) -> Vec<&'static str> {
    let (stdin, stdout, stderr, tty) = match ticket {
        Ticket::Exec(request) => (request.stdin, request.stdout, request.stderr, request.tty),
        Ticket::Attach(request) => (request.stdin, request.stdout, request.stderr, request.tty),
        Ticket::PortForward(_) => (false, false, false, false),
    };
    let wanted = [
        ("error", true),
        ("stdin", stdin),
        ("stdout", stdout),
        ("stderr", stderr),
        ("resize", tty && version >= Version::V3),
    ];
    wanted.into_iter().filter_map(|(kind, wanted)| wanted.then_some(kind)).collect()
}

/// Waits for the expected streams. Others that come meanwhile are closed: a client need not use all it may.
async fn collect(
    opened: &mut tokio::sync::mpsc::Receiver<Arc<Stream>>,
    expected: &[&'static str],
    version: Version,
) -> Option<Channels> {
    let mut found: Vec<(&'static str, Arc<Stream>)> = Vec::new();
    while found.len() < expected.len() {
        let stream = opened.recv().await?;
        let kind = expected.iter().find(|kind| stream.headers.get("streamtype") == Some(kind));
        match kind {
            Some(kind) if found.iter().all(|(known, _)| known != kind) => found.push((*kind, stream)),
            _ => {
                stream.inbox.discard();
                stream.finish().await;
            }
        }
    }
    let mut take =
        |kind| found.iter().position(|(known, _)| *known == kind).map(|at| found.swap_remove(at).1);
    let error = take("error")?;
    Some(Channels {
        error: Output::Spdy(error),
        stdin: take("stdin").map(Input::Spdy),
        stdout: take("stdout").map(Output::Spdy),
        stderr: take("stderr").map(Output::Spdy),
        resize: take("resize").map(Input::Spdy),
        version,
    })
}

async fn websocket_process(
    connection: Connection,
    ticket: Ticket,
    protocol: ProcessProtocol,
    context: &Context,
) {
    let Connection { wire, writer } = connection;
    let senders = channels::Senders::new(&writer.outlet, protocol);
    let (reader, stdin, resize) = channels::Reader::new(wire, writer.outlet.clone(), protocol);
    let gone = CancellationToken::new();
    let reader = AbortOnDropHandle::new(tokio::spawn(reader.run(gone.clone())));
    let expected = expected(&ticket, protocol.version);
    let wants = |kind| expected.contains(&kind);
    let streams = Channels {
        stdin: wants("stdin").then_some(Input::WebSocket(stdin)),
        stdout: wants("stdout").then(|| Output::WebSocket(senders.stdout.clone())),
        stderr: wants("stderr").then(|| Output::WebSocket(senders.stderr.clone())),
        resize: Some(Input::WebSocket(resize)),
        error: Output::WebSocket(senders.error.clone()),
        version: protocol.version,
    };
    let work = async {
        // Old clients wait for a first, empty message.
        let first = [&streams.stdout, &streams.stderr].into_iter().flatten().next().unwrap_or(&streams.error);
        let _ = first.send(Bytes::new()).await;
        process::serve(streams, ticket, Arc::clone(&context.backend)).await;
        let close = crate::websocket::frame::close(crate::websocket::frame::CLOSE_NORMAL);
        let _ = writer.outlet.send(Packet::Raw(close)).await;
    };
    tokio::select! {
        () = work => writer.finish(&gone).await,
        () = gone.cancelled() => {}
    }
    drop(reader);
}
