//! What a worker, or the process it has made, tells the loop.
//!
//! One packet a report, over a sequenced-packet socket that is close-on-exec in the process that becomes the program: the
//! end of the stream says that execve has succeeded, or that everybody on the other side has died.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use crisp_host::socket;
use serde::{Deserialize, Serialize};

use crisp_monitor::protocol::Failure;

/// Longest packet, bytes; longer texts are cut.
pub(super) const PACKET: usize = 16 << 10;
/// Longest text of an error.
const TEXT: usize = 2 << 10;

/// One report.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// The infra container's process.
    Infra { pid: i32, start_time: u64 },
    /// A container's init waits to be started. `own_pids`: it is process 1 of a pid namespace of its own.
    Created { pid: i32, own_pids: bool },
    /// An exec's process.
    Exec { pid: i32 },
    /// The worker's work goes on in another process, and it ends.
    Handed { pid: i32 },
    /// The master of the terminal comes with this packet.
    Terminal,
    /// A line of libcontainer's, for the reason of a failure.
    Trace(String),
    /// It came to nothing; the first one counts.
    Failed(Failure),
    /// A worker that only does something has done it.
    Done,
}

/// The telling side.
#[derive(Debug)]
pub(super) struct Reporter(pub(super) OwnedFd);

impl Reporter {
    /// Tells. Nobody is there to hear of an error: the loop sees the stream end.
    pub(super) fn tell(&self, report: &Report) {
        self.tell_with(report, &[]);
    }

    pub(super) fn tell_with(&self, report: &Report, descriptors: &[BorrowedFd<'_>]) {
        let packet = serde_json::to_vec(report).unwrap_or_default();
        if packet.len() <= PACKET {
            let _ = socket::send(self.0.as_fd(), &packet, descriptors);
        }
    }

    pub(super) fn fail(&self, failure: Failure) {
        self.tell(&Report::Failed(cut(failure)));
    }
}

/// Cuts a text at this many bytes.
pub(super) fn shorten(mut text: String, most: usize) -> String {
    if text.len() > most {
        let end = (0..=most).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

fn cut(failure: Failure) -> Failure {
    let shorten = |text| shorten(text, TEXT);
    match failure {
        Failure::Invalid { object, reason } => {
            Failure::Invalid { object: shorten(object), reason: shorten(reason) }
        }
        Failure::Host { operation, reason } => {
            Failure::Host { operation: shorten(operation), reason: shorten(reason) }
        }
        other => other,
    }
}

/// What there is to hear on the loop's side.
pub(super) enum Heard {
    Report(Report, Vec<OwnedFd>),
    /// Nothing now.
    Nothing,
    /// Everybody on the other side is gone.
    End,
}

/// Takes one report.
pub(super) fn hear(from: BorrowedFd<'_>, buffer: &mut Vec<u8>) -> io::Result<Heard> {
    buffer.resize(PACKET, 0);
    match socket::receive(from, buffer) {
        Ok((0, _)) => Ok(Heard::End),
        Ok((n, descriptors)) => {
            Ok(Heard::Report(serde_json::from_slice(&buffer[..n]).map_err(io::Error::other)?, descriptors))
        }
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(Heard::Nothing),
        Err(e) => Err(e),
    }
}
