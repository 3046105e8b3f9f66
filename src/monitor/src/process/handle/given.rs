//! What comes with a request: the rest of its body, its descriptors.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{fs::FileExt, net::UnixStream},
    },
    path::Path,
};

use crisp_host::namespace;
use crisp_model::security::UserNamespace;
use crisp_monitor::{frame, protocol};
use nix::unistd::{Gid, Uid, fchown};

use crate::process::{Failure, failed, host, invalid, request::Process};

/// Longest seccomp program, bytes: `BPF_MAXINSNS` instructions.
const SECCOMP: u64 = 4096 * 8;

/// The whole request, parsed in a worker.
pub(super) fn full(body: &[u8]) -> Result<protocol::Request, Failure> {
    frame::decode::<protocol::Call>(body).map(|call| call.request).map_err(failed("read the request"))
}

/// The program in the last descriptor.
pub(super) fn seccomp(sent: bool, descriptors: &mut Vec<OwnedFd>) -> Result<Option<Vec<u8>>, Failure> {
    if !sent {
        return Ok(None);
    }
    let file = descriptors.pop().ok_or_else(|| invalid("seccomp program", "no descriptor came with it"))?;
    let mut program = Vec::new();
    let file = File::from(file);
    // The descriptor's position is shared with whoever sent it, perhaps to another monitor at this moment.
    let mut at = 0;
    let mut chunk = [0; 4096];
    loop {
        let n = file.read_at(&mut chunk, at).map_err(host("read the seccomp program"))?;
        if n == 0 {
            break;
        }
        at += n as u64;
        if at > SECCOMP {
            return Err(invalid("seccomp program", format!("longer than {SECCOMP} bytes")));
        }
        program.extend_from_slice(&chunk[..n]);
    }
    Ok(Some(program))
}

/// Sorts the descriptors that came with an exec.
pub(super) fn stdio(
    named: [bool; 3],
    terminal: bool,
    descriptors: Vec<OwnedFd>,
) -> Result<[Option<OwnedFd>; 3], Failure> {
    let mut descriptors = descriptors.into_iter();
    let mut stdio = [None, None, None];
    if terminal {
        return Ok(stdio);
    }
    for (which, _) in named.iter().enumerate().filter(|(_, named)| **named) {
        let next = descriptors.next();
        stdio[which] = Some(next.ok_or_else(|| invalid("standard streams", "fewer descriptors than named"))?);
    }
    Ok(stdio)
}

/// The user of a container's process as the host sees it; `None` where it is not mapped.
pub(super) fn owner(process: &Process, user: Option<&UserNamespace>) -> (Option<Uid>, Option<Gid>) {
    let uid = namespace::outside(user.map(|u| u.uids.as_slice()), process.uid);
    let gid = namespace::outside(user.map(|u| u.gids.as_slice()), process.gid);
    (uid.map(Uid::from_raw), gid.map(Gid::from_raw))
}

/// Lets the user open `/dev/stdout` and the like anew.
pub(super) fn hand_over(pipe: &OwnedFd, (uid, gid): (Option<Uid>, Option<Gid>)) -> Result<(), Failure> {
    fchown(pipe.as_raw_fd(), uid, gid).map_err(failed("give a pipe to the container's user"))
}

/// What libcontainer's init waits for.
pub(super) fn notify(dir: &Path) -> io::Result<()> {
    let folder = File::open(dir)?;
    // A short name, however long the folder's is.
    let path = format!("/proc/self/fd/{}/notify.sock", folder.as_raw_fd());
    io::Write::write_all(&mut UnixStream::connect(path)?, b"start container")
}
