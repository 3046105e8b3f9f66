//! Namespaces: id maps, the loopback device of a new network namespace, and joining those of a process.
//!
//! Owns nothing. Joining changes the calling process for good: for freshly forked children only.
#![allow(unsafe_code)]

use std::{
    fs, io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    path::Path,
};

use crisp_model::security::{IdMapping, UserNamespace};
use nix::{
    errno::Errno,
    libc,
    sched::{CloneFlags, setns, unshare},
    unistd::Pid,
};

use crate::mountpoint;

/// The text of `/proc/<pid>/uid_map`.
pub fn id_map(mappings: &[IdMapping]) -> String {
    mappings.iter().map(|m| format!("{} {} {}\n", m.container_id, m.host_id, m.length)).collect()
}

/// Writes the maps of the user namespace that `pid` was made in.
pub fn write_id_maps(pid: Pid, maps: &UserNamespace) -> io::Result<()> {
    fs::write(format!("/proc/{pid}/uid_map"), id_map(&maps.uids))?;
    fs::write(format!("/proc/{pid}/gid_map"), id_map(&maps.gids))
}

/// The maps of the user namespace that `pid` is in, seen from that of the caller.
pub fn read_id_maps(pid: i32) -> io::Result<UserNamespace> {
    let read = |kind: &str| -> io::Result<Vec<IdMapping>> {
        let path = format!("/proc/{pid}/{kind}_map");
        let text = fs::read_to_string(&path)?;
        parse_id_map(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, path))
    };
    Ok(UserNamespace { uids: read("uid")?, gids: read("gid")? })
}

fn parse_id_map(text: &str) -> Option<Vec<IdMapping>> {
    let line = |line: &str| {
        let mut fields = line.split_ascii_whitespace().map(|f| f.parse::<u32>().ok());
        let (container_id, host_id, length) = (fields.next()??, fields.next()??, fields.next()??);
        Some(IdMapping { host_id, container_id, length })
    };
    text.lines().map(line).collect()
}

/// The id outside that `id` inside stands for; itself without a user namespace, `None` where it is not mapped.
pub fn outside(mappings: Option<&[IdMapping]>, id: u32) -> Option<u32> {
    let Some(mappings) = mappings else { return Some(id) };
    mappings.iter().find_map(|m| {
        let offset = id.checked_sub(m.container_id)?;
        if offset < m.length { m.host_id.checked_add(offset) } else { None }
    })
}

/// Makes a network namespace with its loopback device up, and keeps it alive at `at`, which is made with its parents. The
/// caller's own stays what it is: another thread makes it, and ends.
pub fn new_network(at: &Path) -> io::Result<()> {
    if let Some(folder) = at.parent() {
        fs::create_dir_all(folder)?;
    }
    let make = || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        loopback_up()?;
        mountpoint::pin(Path::new("/proc/thread-self/ns/net"), at)
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("crisp-netns".to_owned()).spawn_scoped(scope, make)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread has panicked")))
    })
}

/// Joins the network namespace that is kept at `at`.
pub fn join_network(at: &Path) -> io::Result<()> {
    Ok(setns(fs::File::open(at)?, CloneFlags::CLONE_NEWNET)?)
}

/// Joins namespaces of a process by its pidfd, all at once (Linux 5.8). `namespaces`: `CLONE_NEW…` flags.
pub fn join(process: BorrowedFd<'_>, namespaces: libc::c_int) -> io::Result<()> {
    // SAFETY: numbers only.
    Errno::result(unsafe { libc::setns(process.as_raw_fd(), namespaces) })?;
    Ok(())
}

/// Sets the loopback device of the present network namespace up.
pub fn loopback_up() -> io::Result<()> {
    // SAFETY: numbers only; a new descriptor is owned by nobody else.
    let socket = unsafe {
        let fd = Errno::result(libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0))?;
        OwnedFd::from_raw_fd(fd)
    };
    // SAFETY: all zeros is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    // A new namespace has no other flag on it that would have to be kept.
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: a valid ifreq that lives over the call.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_made_and_kept() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().expect("folder");
        let at = folder.path().join("netns/pod");
        let own = || fs::metadata("/proc/thread-self/ns/net").expect("stat").ino();
        let before = own();
        new_network(&at).expect("made");
        assert_eq!(own(), before, "this thread has been moved");
        let made = fs::metadata(&at).expect("stat").ino();
        assert_ne!(made, before);
        assert!(new_network(&at).is_err(), "made twice");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                join_network(&at).expect("joined");
                assert_eq!(own(), made);
                let devices = fs::read_to_string("/proc/thread-self/net/dev").expect("devices");
                assert!(devices.contains("lo:"), "{devices}");
            });
        });
        mountpoint::unmount_if_mounted(&at).expect("unpin");
    }

    #[test]
    fn maps_read_inside_outside_length() {
        let maps = [
            IdMapping { host_id: 100_000, container_id: 0, length: 1000 },
            IdMapping { host_id: 7, container_id: 5000, length: 1 },
        ];
        assert_eq!(id_map(&maps), "0 100000 1000\n5000 7 1\n");
        assert_eq!(parse_id_map(&id_map(&maps)).unwrap(), maps);
        assert_eq!(parse_id_map("  0  100000  1000\n5000 7 1").unwrap(), maps);
        assert_eq!(parse_id_map("0 x 1"), None);
        for (inside, expected) in
            [(0, Some(100_000)), (999, Some(100_999)), (1000, None), (5000, Some(7)), (5001, None)]
        {
            assert_eq!(outside(Some(&maps), inside), expected, "{inside}");
        }
        assert_eq!(outside(None, 42), Some(42));
    }
}
