//! The HTTP server and the addresses it hands out.

use std::{io, net::SocketAddr, os::fd::AsFd, sync::Arc, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::{
    backend::{AttachRequest, Backend, ExecRequest, PortForwardRequest},
    liveness::Hangup,
    service::{Context, Socket, respond},
    tls::Tls,
    token::{Ticket, Tokens},
};

/// Connections at the same time; more wait in the kernel's queue. Each may hold some MiB of unread data.
const MAX_CONNECTIONS: usize = 512;

/// How long a client may take to send the head of its request.
const HEAD: Duration = Duration::from_secs(10);

/// A silent client is asked for a sign of life after this many seconds, and given up after four questions.
const KEEP_ALIVE: u32 = 60;

/// How the server listens.
#[derive(Debug, Clone)]
pub struct StreamConfig {
    /// Where it listens and what its addresses say. Port 0 is replaced by a free one.
    pub address: SocketAddr,
    /// Without it, plain HTTP.
    pub tls: Option<Tls>,
    /// How long an address that was handed out is valid.
    pub token_life: Duration,
    /// How long a client may take to open its streams.
    pub creation_timeout: Duration,
    /// A connection on which nothing moves for so long is closed.
    pub idle_timeout: Duration,
    /// How long a forwarded connection whose pod takes nothing may hold up the others of its session. Clients do not
    /// heed the windows of SPDY, so there is no other way to keep them apart.
    pub stall_timeout: Duration,
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: None,
            token_life: Duration::from_secs(60),
            creation_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(4 * 60 * 60),
            stall_timeout: Duration::from_secs(30),
        }
    }
}

/// Why the server does not start, or gives no address.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The socket.
    #[error("listen for streams on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The request contradicts itself.
    #[error("{0}")]
    Invalid(&'static str),
    /// Too many addresses wait for their use; later ones will find room.
    #[error("too many stream requests are waiting for their client")]
    TooMany,
}

/// A running server. Dropped, it closes its socket and every connection.
#[derive(Debug)]
pub struct StreamServer {
    context: Arc<Context>,
    base: String,
    address: SocketAddr,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("tokens", &self.tokens).finish_non_exhaustive()
    }
}

impl Drop for StreamServer {
    fn drop(&mut self) {
        self.context.shutdown.cancel();
    }
}

impl StreamServer {
    /// Listens, and serves in the background of the current runtime.
    pub async fn start(config: StreamConfig, backend: Arc<dyn Backend>) -> Result<Self, ServerError> {
        let listen = |source| ServerError::Listen { address: config.address, source };
        let listener = TcpListener::bind(config.address).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let scheme = if config.tls.is_some() { "https" } else { "http" };
        let context = Arc::new(Context {
            tokens: Tokens::new(config.token_life),
            backend,
            tls: config.tls,
            idle: config.idle_timeout,
            stall: config.stall_timeout,
            creation: config.creation_timeout,
            shutdown: CancellationToken::new(),
        });
        tokio::spawn(accept(listener, Arc::clone(&context)));
        Ok(Self { context, base: format!("{scheme}://{address}"), address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address for an exec.
    pub fn exec_url(&self, request: ExecRequest) -> Result<String, ServerError> {
        check(request.tty, request.stdin, request.stdout, request.stderr)?;
        self.issue(Ticket::Exec(request))
    }

    /// The address for an attach.
    pub fn attach_url(&self, request: AttachRequest) -> Result<String, ServerError> {
        check(request.tty, request.stdin, request.stdout, request.stderr)?;
        self.issue(Ticket::Attach(request))
    }

    /// The address for port-forward.
    pub fn port_forward_url(&self, request: PortForwardRequest) -> Result<String, ServerError> {
        self.issue(Ticket::PortForward(request))
    }

    fn issue(&self, ticket: Ticket) -> Result<String, ServerError> {
        let kind = ticket.path();
        let token = self.context.tokens.issue(ticket).map_err(|_| ServerError::TooMany)?;
        Ok(format!("{}/{kind}/{token}", self.base))
    }
}

fn check(tty: bool, stdin: bool, stdout: bool, stderr: bool) -> Result<(), ServerError> {
    if tty && stderr {
        return Err(ServerError::Invalid("tty and stderr cannot both be true"));
    }
    if !stdin && !stdout && !stderr {
        return Err(ServerError::Invalid("one of stdin, stdout, or stderr must be set"));
    }
    Ok(())
}

async fn accept(listener: TcpListener, context: Arc<Context>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&slots).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = context.shutdown.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                tokio::spawn(serve(stream, permit, Arc::clone(&context)));
            }
            Err(error) => {
                // Out of descriptors, most likely: others must end first, and trying at once would only burn time.
                tracing::warn!(%error, "stream: accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, permit: OwnedSemaphorePermit, context: Arc<Context>) {
    let hangup = match options(&stream).and_then(|()| Hangup::new(&stream)) {
        Ok(hangup) => hangup,
        Err(error) => return tracing::debug!(%error, "stream: set up the connection"),
    };
    let socket = Arc::new(Socket { hangup: Arc::new(hangup), _permit: permit });
    let shutdown = context.shutdown.clone();
    let tls = context.tls.clone();
    let work = async {
        let Some(tls) = tls else { return http(stream, context, socket).await };
        match timeout(HEAD, TlsAcceptor::from(tls.0).accept(stream)).await {
            Ok(Ok(stream)) => http(stream, context, socket).await,
            Ok(Err(error)) => tracing::debug!(%error, "stream: TLS"),
            Err(_) => tracing::debug!("stream: the TLS handshake takes too long"),
        }
    };
    tokio::select! {
        () = work => {}
        () = shutdown.cancelled() => {}
    }
}

async fn http<S>(stream: S, context: Arc<Context>, socket: Arc<Socket>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request| respond(request, Arc::clone(&context), Arc::clone(&socket)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(%error, "stream: HTTP");
    }
}

/// Small frames go out at once, and a client whose machine died is noticed.
fn options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let fd = stream.as_fd();
    setsockopt(&fd, sockopt::KeepAlive, &true)?;
    setsockopt(&fd, sockopt::TcpKeepIdle, &KEEP_ALIVE)?;
    setsockopt(&fd, sockopt::TcpKeepInterval, &KEEP_ALIVE)?;
    setsockopt(&fd, sockopt::TcpKeepCount, &4)?;
    Ok(())
}
