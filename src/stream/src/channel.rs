//! The two ends of a client's stream, whatever the connection speaks: what the pumps read from and write to.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    inbox::Next,
    spdy::stream::{Gone, Stream},
    websocket::channels::{Receiver, Sender},
};

/// Bytes from the client.
#[derive(Debug, Clone)]
pub(crate) enum Input {
    Spdy(Arc<Stream>),
    WebSocket(Receiver),
}

impl Input {
    /// The next bytes or the end; dropping the future loses nothing.
    pub(crate) async fn next(&self) -> Next {
        match self {
            Self::Spdy(stream) => stream.next().await,
            Self::WebSocket(receiver) => receiver.next().await,
        }
    }

    /// Bytes have reached their goal.
    pub(crate) async fn used(&self, size: usize) {
        match self {
            Self::Spdy(stream) => stream.used(size).await,
            // WebSocket has no windows.
            Self::WebSocket(_) => {}
        }
    }

    /// Nobody wants the rest: throw away what comes, and tell the client if there is a way.
    pub(crate) async fn give_up(&self) {
        match self {
            Self::Spdy(stream) => {
                stream.inbox.discard();
                stream.finish().await;
            }
            Self::WebSocket(receiver) => receiver.discard(),
        }
    }
}

/// Bytes to the client.
#[derive(Debug)]
pub(crate) enum Output {
    Spdy(Arc<Stream>),
    WebSocket(Sender),
}

impl Output {
    /// Sends bytes, as fast as the client takes them.
    pub(crate) async fn send(&self, data: Bytes) -> Result<(), Gone> {
        match self {
            Self::Spdy(stream) => stream.send(data).await,
            Self::WebSocket(sender) => sender.send(data).await,
        }
    }

    /// Says that nothing follows, if there is a way.
    pub(crate) async fn finish(&self) {
        match self {
            Self::Spdy(stream) => stream.finish().await,
            Self::WebSocket(_) => {}
        }
    }
}
