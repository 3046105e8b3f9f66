//! What the spec of a container is made of and has to be read from the host: account files of the image, device nodes,
//! sources of volumes.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use crisp_model::{ContainerConfig, container::Device};
use crisp_spec::{DeviceKind, DeviceNode, Plan, cdi};

use super::propagation;
use crate::error::PodError;

/// Makes the source of each volume final: links are resolved (the container must see what the kubelet meant, not what
/// somebody puts there later), a missing one becomes a folder as with every runtime.
pub(crate) fn settle_volumes(config: &mut ContainerConfig) -> Result<(), PodError> {
    for mount in config.mounts.iter_mut().filter(|m| m.image.is_none()) {
        let object = format!("mount source {} of {}", mount.host_path.display(), mount.container_path);
        let invalid = |reason| PodError::Invalid { object, reason };
        let source = match fs::canonicalize(&mount.host_path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(&mount.host_path).and_then(|()| fs::canonicalize(&mount.host_path))
            }
            other => other,
        };
        match source {
            Ok(path) => mount.host_path = path,
            Err(e) => return Err(invalid(e.to_string())),
        }
        propagation::check(mount).map_err(invalid)?;
    }
    Ok(())
}

/// Makes the folder of a log file. The kubelet has made its own already; other clients expect it of the runtime.
pub(crate) fn make_log_folder(log: Option<&Path>) -> Result<(), PodError> {
    let Some(folder) = log.and_then(Path::parent) else { return Ok(()) };
    fs::create_dir_all(folder).map_err(|e| PodError::Invalid {
        object: format!("log folder {}", folder.display()),
        reason: e.to_string(),
    })
}

/// The kernel would say no at execve only, and not why.
pub(crate) fn check_apparmor(profile: &str) -> Result<(), PodError> {
    match crisp_host::apparmor::is_loaded(profile) {
        Ok(false) => Err(PodError::Invalid {
            object: format!("AppArmor profile {profile:?}"),
            reason: "it is not loaded on this host".into(),
        }),
        Ok(true) => Ok(()),
        Err(error) => Err(PodError::host("read the loaded AppArmor profiles", error)),
    }
}

/// A device node of the host; `None` for anything else.
pub(crate) fn node(path: &Path) -> io::Result<Option<DeviceNode>> {
    let meta = fs::metadata(path)?;
    let file_type = meta.file_type();
    let kind = if file_type.is_char_device() {
        DeviceKind::Char
    } else if file_type.is_block_device() {
        DeviceKind::Block
    } else {
        return Ok(None);
    };
    let (major, minor) = (nix::sys::stat::major(meta.rdev()), nix::sys::stat::minor(meta.rdev()));
    Ok(Some(DeviceNode {
        kind,
        major: i64::try_from(major).unwrap_or_default(),
        minor: i64::try_from(minor).unwrap_or_default(),
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
    }))
}

/// Gives CDI devices to a planned container, as the host's files describe them now.
pub(crate) fn inject_cdi(mut plan: Plan, wanted: &[cdi::Wanted]) -> Result<Plan, PodError> {
    let find = |path: &Path| node(path)?.ok_or_else(|| io::Error::other("it is not a device"));
    cdi::inject(&mut plan, wanted, &cdi::load(&cdi::FOLDERS), &find)?;
    Ok(plan)
}

/// Most nodes below a device folder: `/dev/snd` has dozens.
const NODES: usize = 4096;

/// The nodes behind the devices asked for; a folder stands for all nodes below it.
pub(crate) fn devices(wanted: &[Device]) -> Result<BTreeMap<PathBuf, DeviceNode>, PodError> {
    let mut nodes = BTreeMap::new();
    for device in wanted {
        let path = &device.host_path;
        let invalid = |e: &dyn std::fmt::Display| PodError::Invalid {
            object: format!("device {}", path.display()),
            reason: e.to_string(),
        };
        if fs::metadata(path).map_err(|e| invalid(&e))?.is_dir() {
            below(path, &mut nodes).map_err(|e| invalid(&e))?;
        } else {
            let found = node(path).map_err(|e| invalid(&e))?;
            nodes.insert(path.clone(), found.ok_or_else(|| invalid(&"it is not a device"))?);
        }
    }
    Ok(nodes)
}

/// All device nodes below a folder, not following links.
pub fn below(folder: &Path, into: &mut BTreeMap<PathBuf, DeviceNode>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            below(&entry.path(), into)?;
        } else if !kind.is_symlink()
            && let Ok(Some(found)) = node(&entry.path())
        {
            into.insert(entry.path(), found);
        }
        if into.len() > NODES {
            return Err(io::Error::other(format!(
                "more than {NODES} device nodes below {}",
                folder.display()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_of_devices_and_folders() {
        let device = |path: &str| Device {
            host_path: path.into(),
            container_path: path.into(),
            permissions: "rw".into(),
        };
        let nodes = devices(&[device("/dev/null"), device("/dev/pts")]).expect("nodes");
        assert_eq!((nodes[Path::new("/dev/null")].major, nodes[Path::new("/dev/null")].minor), (1, 3));
        let missing = devices(&[device("/dev/no-such-thing")]).expect_err("missing");
        assert!(missing.to_string().contains("/dev/no-such-thing"), "{missing}");
        let plain = devices(&[device("/etc/passwd")]).expect_err("no device");
        assert!(plain.to_string().contains("not a device"), "{plain}");
    }

    #[test]
    fn volumes_are_resolved_or_made() {
        let folder = tempfile::tempdir().expect("folder");
        let (real, link, missing) =
            (folder.path().join("real"), folder.path().join("link"), folder.path().join("a/b"));
        fs::create_dir(&real).expect("real");
        std::os::unix::fs::symlink(&real, &link).expect("link");
        let mount = |path: &Path| crisp_model::Mount {
            host_path: path.to_owned(),
            container_path: "/x".into(),
            ..Default::default()
        };
        let mut config =
            ContainerConfig { mounts: vec![mount(&link), mount(&missing)], ..Default::default() };
        settle_volumes(&mut config).expect("settle");
        assert_eq!(config.mounts[0].host_path, fs::canonicalize(&real).expect("real"));
        assert!(missing.is_dir());
    }
}
