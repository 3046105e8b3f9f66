//! Connections of the daemon. There may be several: a new daemon may come before the kernel has closed the old one's.

use std::{
    collections::VecDeque,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use crisp_host::socket;
use crisp_monitor::frame::{self, HEADER};

/// Bytes that a connection may be behind in reading answers and events. A daemon that hangs is let go then: it asks for the
/// state when it comes back.
const BEHIND: usize = 4 << 20;

/// A frame on its way out.
#[derive(Debug)]
struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    descriptors: Vec<OwnedFd>,
}

/// A frame that has come in, and what came with it.
pub(super) type Incoming = (Vec<u8>, Vec<OwnedFd>);

/// One connection.
#[derive(Debug)]
pub(super) struct Peer {
    stream: UnixStream,
    header: [u8; HEADER],
    /// Bytes of the header, then of the body.
    have: usize,
    body: Option<Vec<u8>>,
    descriptors: Vec<OwnedFd>,
    outgoing: VecDeque<Outgoing>,
    behind: usize,
}

impl Peer {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            header: [0; HEADER],
            have: 0,
            body: None,
            descriptors: Vec::new(),
            outgoing: VecDeque::new(),
            behind: 0,
        })
    }

    /// The next frame, if all of it is there. An error is the connection's end.
    pub(super) fn receive(&mut self) -> io::Result<Option<Incoming>> {
        loop {
            let buffer = match &mut self.body {
                None => &mut self.header[self.have..],
                Some(body) => &mut body[self.have..],
            };
            if !buffer.is_empty() {
                match socket::receive(self.stream.as_fd(), buffer) {
                    Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok((n, more)) => {
                        self.have += n;
                        self.descriptors.extend(more);
                        if n < buffer.len() {
                            continue;
                        }
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                    Err(e) => return Err(e),
                }
            }
            self.have = 0;
            match self.body.take() {
                None => {
                    let length = frame::length(self.header).map_err(io::Error::other)?;
                    self.body = Some(vec![0; length]);
                }
                Some(body) => return Ok(Some((body, std::mem::take(&mut self.descriptors)))),
            }
        }
    }

    /// Sends a frame, or keeps what the socket does not take. `true`: something is kept.
    pub(super) fn send(&mut self, bytes: Vec<u8>, descriptors: Vec<OwnedFd>) -> io::Result<bool> {
        self.behind += bytes.len();
        if self.behind > BEHIND {
            return Err(io::Error::other("the daemon does not read its answers"));
        }
        self.outgoing.push_back(Outgoing { bytes, sent: 0, descriptors });
        self.flush()
    }

    /// Sends what is kept. `true`: something is still kept.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        while let Some(frame) = self.outgoing.front_mut() {
            let attached: Vec<BorrowedFd<'_>> = frame.descriptors.iter().map(AsFd::as_fd).collect();
            match socket::send(self.stream.as_fd(), &frame.bytes[frame.sent..], &attached) {
                Ok(n) => {
                    frame.sent += n;
                    frame.descriptors.clear();
                    if frame.sent == frame.bytes.len() {
                        self.behind -= frame.bytes.len();
                        self.outgoing.pop_front();
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.outgoing = VecDeque::new();
        Ok(false)
    }

    /// Waits until everything is sent: for the last answer of a monitor that ends.
    pub(super) fn finish(&mut self) {
        let blocking = self.stream.set_nonblocking(false);
        let bounded = self.stream.set_write_timeout(Some(std::time::Duration::from_secs(1)));
        if blocking.and(bounded).is_ok() {
            let _ = self.flush();
        }
    }
}

impl AsFd for Peer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
