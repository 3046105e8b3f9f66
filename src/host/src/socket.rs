//! Unix sockets that carry descriptors (`unix(7)`, `SCM_RIGHTS`).
//!
//! Owns nothing: the caller's socket is borrowed, and what arrives is an [`OwnedFd`] from the first moment, so a caller that
//! fails half-way leaks nothing. May call the kernel only.
#![allow(unsafe_code)]

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use nix::{
    cmsg_space,
    sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg},
};

/// Most descriptors that [`receive`] takes with one message; more are closed by the kernel and reported as an error.
pub const MOST: usize = 16;

/// Sends `bytes`, with `descriptors` attached to the first of them. Returns how many bytes went; those that did not are to be
/// sent again *without* the descriptors. Never raises SIGPIPE.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    let flags = MsgFlags::MSG_NOSIGNAL;
    Ok(sendmsg::<UnixAddr>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, flags, None)?)
}

/// Receives into `buffer`; 0 is the end of the stream. Descriptors come close-on-exec.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut parts = [IoSliceMut::new(buffer)];
    let mut control = cmsg_space!([RawFd; MOST]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    let mut descriptors = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = part {
            // SAFETY: the kernel has just made these descriptors for this call; nobody else knows of them.
            descriptors.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    if message.flags.contains(MsgFlags::MSG_CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "more descriptors than a message may carry"));
    }
    Ok((message.bytes, descriptors))
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{Read, Write},
        os::{fd::AsFd, unix::net::UnixStream},
    };

    use super::*;

    #[test]
    fn a_descriptor_arrives_with_the_first_byte() {
        let (a, b) = UnixStream::pair().unwrap();
        let (reader, writer) = nix::unistd::pipe().unwrap();
        assert_eq!(send(a.as_fd(), b"plain", &[]).unwrap(), 5);
        assert_eq!(send(a.as_fd(), b"with", &[reader.as_fd()]).unwrap(), 4);
        let mut buffer = [0u8; 5];
        let (n, fds) = receive(b.as_fd(), &mut buffer).unwrap();
        assert_eq!((n, fds.len()), (5, 0));
        let (n, mut fds) = receive(b.as_fd(), &mut buffer[..1]).unwrap();
        assert_eq!((n, fds.len()), (1, 1));
        File::from(writer).write_all(b"x").unwrap();
        let mut text = String::new();
        File::from(fds.remove(0)).read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
    }

    #[test]
    fn the_end_is_zero_bytes() {
        let (a, b) = UnixStream::pair().unwrap();
        drop(a);
        assert_eq!(receive(b.as_fd(), &mut [0; 4]).unwrap().0, 0);
    }
}
