//! A small netlink client: rtnetlink for links, addresses and routes; nfnetlink for nftables and connection tracking.
//!
//! The kernel handles what is sent within `send` itself, so all answers lie in the socket when it returns: nothing
//! here ever waits, and a lost answer is an error and not a hang. A socket belongs to the network namespace of the
//! thread that opened it. Nothing is kept here, so a crash loses nothing.

pub mod conntrack;
pub mod message;
pub mod nftables;
pub mod route;

use std::os::fd::{AsRawFd, OwnedFd};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt,
        socket, sockopt,
    },
};

use message::{Batch, Received, messages};

const NLMSG_ERROR: u16 = libc::NLMSG_ERROR as u16;
const NLMSG_DONE: u16 = libc::NLMSG_DONE as u16;
/// A request.
pub const REQUEST: u16 = libc::NLM_F_REQUEST as u16;
/// Answer even if all is well.
pub const ACK: u16 = libc::NLM_F_ACK as u16;
/// Make it.
pub const CREATE: u16 = libc::NLM_F_CREATE as u16;
/// Fail if it is there.
pub const EXCLUSIVE: u16 = libc::NLM_F_EXCL as u16;
/// Put it in the place of what is there.
pub const REPLACE: u16 = libc::NLM_F_REPLACE as u16;
/// Add at the end.
pub const APPEND: u16 = libc::NLM_F_APPEND as u16;
/// All objects.
pub const DUMP: u16 = libc::NLM_F_DUMP as u16;

/// The kernel's datagrams are at most this long (`NLMSG_GOODSIZE` is 8 KiB; dumps use up to 32 KiB).
const BUFFER: usize = 64 * 1024;
/// A dump longer than this is cut: 1 million messages are more than any host has links or connections worth reading.
const MAX_MESSAGES: usize = 1 << 20;

/// The kernel refused the message with this number within its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("message {index}: {errno}")]
pub struct NetlinkError {
    /// Position in the batch, from 0.
    pub index: u32,
    /// Why.
    pub errno: Errno,
}

impl From<Errno> for NetlinkError {
    fn from(errno: Errno) -> Self {
        Self { index: 0, errno }
    }
}

/// A connection to the kernel.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// To rtnetlink in the network namespace of this thread.
    pub fn route() -> Result<Self, NetlinkError> {
        Self::open(SockProtocol::NetlinkRoute)
    }

    /// To nfnetlink in the network namespace of this thread.
    pub fn netfilter() -> Result<Self, NetlinkError> {
        Self::open(SockProtocol::NetlinkNetFilter)
    }

    fn open(protocol: SockProtocol) -> Result<Self, NetlinkError> {
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        // Room for the answers to one large batch; a hint, so failing does not matter.
        let _ = setsockopt(&fd, sockopt::RcvBuf, &(1 << 20));
        Ok(Self { fd, sequence: 1, buffer: Vec::new() })
    }

    fn send(&mut self, batch: Batch) -> Result<u32, NetlinkError> {
        let first = self.sequence;
        self.sequence = self.sequence.wrapping_add(batch.len());
        let bytes = batch.numbered(first);
        sendto(self.fd.as_raw_fd(), &bytes, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        Ok(first)
    }

    /// The next datagram; `None` when there is no more.
    fn receive(&mut self) -> Result<Option<Vec<Received>>, NetlinkError> {
        if self.buffer.is_empty() {
            self.buffer.resize(BUFFER, 0);
        }
        loop {
            match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(len) => return Ok(Some(messages(&self.buffer[..len]))),
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Sends messages that all ask for an [`ACK`]. The first refusal is returned; rtnetlink still carries out the
    /// others, nftables none of them.
    pub fn run(&mut self, batch: Batch) -> Result<(), NetlinkError> {
        self.run_acked(batch, 0..u32::MAX)
    }

    /// The same, where only the messages within `acked` ask for an answer.
    pub fn run_acked(&mut self, batch: Batch, acked: std::ops::Range<u32>) -> Result<(), NetlinkError> {
        let count = batch.len();
        let expected = acked.end.min(count).saturating_sub(acked.start);
        let first = self.send(batch)?;
        let (mut answered, mut refused) = (0, None);
        while let Some(received) = self.receive()? {
            for message in received {
                let index = message.sequence.wrapping_sub(first);
                if message.kind != NLMSG_ERROR || index >= count {
                    continue;
                }
                match error_code(&message.body) {
                    0 => answered += 1,
                    code => {
                        refused.get_or_insert(NetlinkError { index, errno: Errno::from_raw(-code) });
                    }
                }
            }
        }
        match refused {
            Some(error) => Err(error),
            None if answered < expected => Err(NetlinkError { index: answered, errno: Errno::ENOBUFS }),
            None => Ok(()),
        }
    }

    /// Sends one question and returns all that is answered.
    pub fn ask(&mut self, batch: Batch) -> Result<Vec<Received>, NetlinkError> {
        let first = self.send(batch)?;
        let mut found = Vec::new();
        'datagrams: while let Some(received) = self.receive()? {
            for message in received.into_iter().filter(|m| m.sequence == first) {
                match message.kind {
                    NLMSG_DONE => break 'datagrams,
                    NLMSG_ERROR => match error_code(&message.body) {
                        0 => {}
                        code => return Err(Errno::from_raw(-code).into()),
                    },
                    _ if found.len() < MAX_MESSAGES => found.push(message),
                    _ => {}
                }
            }
        }
        Ok(found)
    }
}

fn error_code(body: &[u8]) -> i32 {
    body.get(..4).and_then(|b| b.try_into().ok()).map_or(-libc::EBADMSG, i32::from_ne_bytes)
}
