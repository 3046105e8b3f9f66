//! A client that can do what client-go does not: heed windows, break rules, go away, read slowly.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use crisp_stream::{
    ExecRequest, StreamConfig, StreamServer,
    spdy::{
        frame::{self, Decoder, Frame, StreamId},
        headers::{Deflater, Headers},
    },
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

use crate::local::Local;

/// A socket, of whatever kind.
pub trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Socket for S {}

/// A server over local processes.
pub struct Lab {
    pub server: StreamServer,
    pub backend: Arc<Local>,
}

impl Lab {
    pub async fn start(config: StreamConfig) -> Self {
        let backend = Arc::new(Local::default());
        let server = StreamServer::start(config, backend.clone()).await.unwrap();
        Self { server, backend }
    }

    /// The address for a shell script with all three streams.
    pub fn shell(&self, script: &str) -> String {
        self.server.exec_url(shell(script)).unwrap()
    }

    /// Waits until no session is left.
    pub async fn quiet(&self) {
        self.backend.live.subscribe().wait_for(|live| *live == 0).await.unwrap();
    }

    /// Waits until a session runs.
    pub async fn busy(&self) {
        self.backend.live.subscribe().wait_for(|live| *live > 0).await.unwrap();
    }
}

/// A shell script with all three streams.
pub fn shell(script: &str) -> ExecRequest {
    ExecRequest {
        container: crisp_model::ContainerId::random(),
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        tty: false,
        stdin: true,
        stdout: true,
        stderr: true,
    }
}

/// Splits an address into `host:port` and path.
pub fn parts(address: &str) -> (&str, &str) {
    let rest = address.split_once("://").unwrap().1;
    let slash = rest.find('/').unwrap();
    rest.split_at(slash)
}

/// Sends a request and reads the head of the answer; what follows is in the buffer.
pub async fn request(socket: &mut dyn Socket, path: &str, headers: &str) -> (String, BytesMut) {
    let text = format!("POST {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
    socket.write_all(text.as_bytes()).await.unwrap();
    let mut buffer = BytesMut::new();
    loop {
        if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = buffer.split_to(end + 4);
            return (String::from_utf8(head.to_vec()).unwrap(), buffer);
        }
        assert_ne!(socket.read_buf(&mut buffer).await.unwrap(), 0, "the server closed: {buffer:?}");
    }
}

/// The head of the answer to a request of its own connection.
pub async fn ask(address: &str, headers: &str) -> String {
    let (host, path) = parts(address);
    let mut socket = TcpStream::connect(host).await.unwrap();
    request(&mut socket, path, headers).await.0
}

pub const SPDY_V4: &str =
    "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n";
pub const SPDY_FORWARD: &str =
    "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: portforward.k8s.io\r\n";

/// The client's side of a SPDY session.
pub struct Spdy {
    socket: Box<dyn Socket>,
    buffer: BytesMut,
    decoder: Decoder,
    deflater: Deflater,
    next: StreamId,
}

impl Spdy {
    pub async fn connect(address: &str, headers: &str) -> Self {
        let socket = TcpStream::connect(parts(address).0).await.unwrap();
        Self::over(Box::new(socket), address, headers).await
    }

    pub async fn over(mut socket: Box<dyn Socket>, address: &str, headers: &str) -> Self {
        let (head, buffer) = request(socket.as_mut(), parts(address).1, headers).await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        Self { socket, buffer, decoder: Decoder::default(), deflater: Deflater::new().unwrap(), next: 1 }
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.unwrap();
    }

    /// Opens a stream without waiting for the reply.
    pub async fn open(&mut self, headers: &[(&str, &str)]) -> StreamId {
        let id = self.next;
        self.next += 2;
        let headers = Headers::new(headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())));
        let packed = self.deflater.pack(&headers).unwrap();
        self.write(&frame::syn_stream(id, false, &packed)).await;
        id
    }

    /// Opens error, stdin, stdout and stderr: 1, 3, 5, 7.
    pub async fn open_process(&mut self) {
        for kind in ["error", "stdin", "stdout", "stderr"] {
            self.open(&[("streamType", kind)]).await;
        }
    }

    pub async fn data(&mut self, stream: StreamId, bytes: &[u8], fin: bool) {
        self.write(&frame::data_head(stream, fin, bytes.len())).await;
        self.write(bytes).await;
    }

    /// The next frame, or `None` at the end of the connection.
    pub async fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.next(&mut self.buffer).unwrap() {
                return Some(frame);
            }
            match self.socket.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Everything until the end of the connection: the bytes of a stream, and all frames without data.
    pub async fn rest(&mut self, wanted: StreamId) -> (Vec<u8>, Vec<Frame>) {
        let (mut bytes, mut others) = (Vec::new(), Vec::new());
        while let Some(frame) = self.frame().await {
            match frame {
                Frame::Data { stream, payload, .. } if stream == wanted => bytes.extend_from_slice(&payload),
                Frame::GoAway { .. } => {
                    others.push(frame);
                    // The server waits for us to close after that.
                    let _ = self.socket.shutdown().await;
                }
                other => others.push(other),
            }
        }
        (bytes, others)
    }

    /// Data bytes of one stream that arrive before the answer to a ping.
    pub async fn until_pong(&mut self, id: u32, wanted: StreamId) -> usize {
        self.write(&frame::ping(id)).await;
        let mut size = 0;
        loop {
            match self.frame().await.expect("a connection") {
                Frame::Data { stream, payload, .. } if stream == wanted => size += payload.len(),
                Frame::Ping { id: got } if got == id => return size,
                _ => {}
            }
        }
    }
}

/// The bytes of a stream among frames.
pub fn bytes_of(frames: &[Frame], wanted: StreamId) -> Vec<u8> {
    let pieces = frames.iter().filter_map(|frame| match frame {
        Frame::Data { stream, payload, .. } if *stream == wanted => Some(payload.clone()),
        _ => None,
    });
    pieces.collect::<Vec<Bytes>>().concat()
}
