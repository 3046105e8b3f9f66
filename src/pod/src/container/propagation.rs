//! Whether a volume's mount can do what its propagation promises (`mount_namespaces(7)`): a container that is to see later mounts of the
//! host, or the host those of the container, needs a source on a mount that passes them on. Where it does not, the container would
//! run and the mounts would silently be missing: it is refused, as with every runtime.

use std::{
    fs::{self, OpenOptions},
    io,
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::Path,
};

use crisp_model::{Mount, container::Propagation};
use nix::fcntl::OFlag;

/// Of the daemon's mount namespace, in which containers' namespaces begin.
const MOUNTS: &str = "/proc/thread-self/mountinfo";

/// Says what is wrong. Blocks.
pub(super) fn check(mount: &Mount) -> Result<(), String> {
    if mount.propagation == Propagation::Private {
        return Ok(());
    }
    let found = mount_id(&mount.host_path)
        .and_then(|id| Ok(of_mount(&fs::read_to_string(MOUNTS)?, id)))
        .map_err(|error| format!("find the mount that it is on: {error}"))?;
    let Some((point, shared, slave)) = found else {
        return Err("find the mount that it is on: it has just gone".into());
    };
    match mount.propagation {
        Propagation::Bidirectional if !shared => Err(format!(
            "it is on the mount {point}, which is not shared, so Bidirectional propagation cannot work; \
             `mount --make-rshared {point}` makes it so"
        )),
        Propagation::HostToContainer if !shared && !slave => Err(format!(
            "it is on the mount {point}, which is neither shared nor a slave, so HostToContainer propagation cannot work; \
             `mount --make-rshared {point}` makes it so"
        )),
        _ => Ok(()),
    }
}

/// The number of the mount that a path is on, by a descriptor of it (`proc(5)`, fdinfo).
fn mount_id(path: &Path) -> io::Result<u64> {
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_PATH.bits()).open(path)?;
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
    let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    id.ok_or_else(|| io::Error::other("the kernel does not say"))
}

/// Mount point, whether it is shared, whether it is a slave; `None`: there is no such mount.
fn of_mount(mountinfo: &str, id: u64) -> Option<(String, bool, bool)> {
    let line = mountinfo.lines().find(|line| line.split(' ').next() == Some(&id.to_string()))?;
    let point = line.split(' ').nth(4)?.to_owned();
    // Optional fields end with a hyphen of its own.
    let fields: Vec<&str> = line.split(' ').skip(6).take_while(|field| *field != "-").collect();
    let has = |kind: &str| fields.iter().any(|field| field.starts_with(kind));
    Some((point, has("shared:"), has("master:")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_mount_passes_on() {
        let text = "21 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n\
                    212 21 0:5 / /shared rw shared:7 - tmpfs tmpfs rw\n\
                    23 21 0:6 / /slave rw master:7 propagate_from:2 - tmpfs shared: rw\n\
                    24 21 0:7 / /both rw shared:9 master:7 - tmpfs - rw\n";
        for (id, expected) in [
            (21, Some(("/", false, false))),
            (212, Some(("/shared", true, false))),
            (23, Some(("/slave", false, true))),
            (24, Some(("/both", true, true))),
            (2, None),
        ] {
            let expected = expected.map(|(point, shared, slave)| (point.to_owned(), shared, slave));
            assert_eq!(of_mount(text, id), expected, "{id}");
        }
    }

    #[test]
    fn the_mount_of_a_path_is_found_and_private_asks_for_nothing() {
        let id = mount_id(Path::new("/proc/self")).expect("an id");
        let text = fs::read_to_string(MOUNTS).expect("mountinfo");
        assert_eq!(of_mount(&text, id).map(|(point, ..)| point).as_deref(), Some("/proc"));
        let gone = Mount { host_path: "/no/such/path".into(), ..Mount::default() };
        assert_eq!(check(&gone), Ok(()));
        let gone = Mount { propagation: Propagation::Bidirectional, ..gone };
        assert!(check(&gone).is_err());
    }
}
