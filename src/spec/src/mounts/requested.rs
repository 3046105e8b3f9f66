//! The mounts of the request.

use crisp_model::{Mount, container::Propagation};

use super::{Entry, clean, staging, text};
use crate::{error::SpecError, input::Input, plan::Idmapped};

/// Options that a bind mount can carry, by `mount_setattr(2)`; with an `r` before them for everything below, too.
const OPTIONS: [&str; 8] =
    ["ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "relatime", "strictatime"];

/// The request's mounts, in its order.
pub(super) fn entries(input: &Input<'_>) -> Result<Vec<Entry>, SpecError> {
    input.container.mounts.iter().enumerate().map(|(i, mount)| entry(input, i, mount)).collect()
}

fn entry(input: &Input<'_>, i: usize, mount: &Mount) -> Result<Entry, SpecError> {
    let field = |name: &str| format!("config.mounts[{i}].{name}");
    let destination = clean(&mount.container_path).filter(|path| path != "/").ok_or_else(|| {
        let reason = format!("{:?} is not an absolute path below the root", mount.container_path);
        SpecError::invalid(field("container_path"), reason)
    })?;
    let mut options = vec!["rbind".to_owned()];
    options.extend(access(input, i, mount)?);
    for option in &mount.mount_options {
        let plain = option.strip_prefix('r').filter(|rest| OPTIONS.contains(rest)).unwrap_or(option);
        if !OPTIONS.contains(&plain) {
            let reason = format!("{option:?} is not one of {}", OPTIONS.join(", "));
            return Err(SpecError::invalid(field("mount_options"), reason));
        }
        if !options.contains(option) {
            options.push(option.clone());
        }
    }
    let idmapped = idmapped(input, i, mount)?;
    let source = match &idmapped {
        Some(mapped) => text(&field("host_path"), &mapped.staging)?.to_owned(),
        None => source(input, i, mount)?,
    };
    Ok(Entry { destination, kind: "bind", source, options, propagation: mount.propagation, idmapped })
}

/// `ro`, `rro` or `rw`.
fn access(input: &Input<'_>, i: usize, mount: &Mount) -> Result<Vec<String>, SpecError> {
    let words = |words: &[&str]| Ok(words.iter().map(|w| (*w).to_owned()).collect());
    if mount.image.is_some() {
        return words(&["ro"]);
    }
    if !mount.recursive_readonly {
        return words(if mount.readonly { &["ro"] } else { &["rw"] });
    }
    let wrong =
        |reason: &str| Err(SpecError::invalid(format!("config.mounts[{i}].recursive_read_only"), reason));
    if !mount.readonly {
        return wrong("needs readonly too");
    }
    if mount.propagation != Propagation::Private {
        return wrong("needs private propagation: what is mounted later would be writable");
    }
    if !input.host.recursive_readonly {
        return wrong("this kernel cannot do it: Linux 5.12 is needed");
    }
    words(&["ro", "rro"])
}

fn source(input: &Input<'_>, i: usize, mount: &Mount) -> Result<String, SpecError> {
    if let Some(image) = &mount.image {
        let path = input.image_volumes.get(&mount.container_path).ok_or_else(|| {
            let reason = "pull it first";
            SpecError::not_found(format!("config.mounts[{i}].image"), format!("image {image:?}"), reason)
        })?;
        return Ok(text(&format!("config.mounts[{i}].image"), path)?.to_owned());
    }
    let field = format!("config.mounts[{i}].host_path");
    let path = text(&field, &mount.host_path)?;
    if !path.starts_with('/') || path.contains('\0') {
        let reason = format!("{path:?} is not an absolute path (and the mount names no image)");
        return Err(SpecError::invalid(field, reason));
    }
    Ok(path.to_owned())
}

fn idmapped(input: &Input<'_>, i: usize, mount: &Mount) -> Result<Option<Idmapped>, SpecError> {
    // The monitor maps the layers of an image volume as it maps those of the root file system.
    if mount.image.is_some() || (mount.uid_mappings.is_empty() && mount.gid_mappings.is_empty()) {
        return Ok(None);
    }
    let wrong =
        |name: &str, reason: &str| Err(SpecError::invalid(format!("config.mounts[{i}].{name}"), reason));
    if mount.uid_mappings.is_empty() {
        return wrong("uidMappings", "gidMappings are set, so these must be too");
    }
    if mount.gid_mappings.is_empty() {
        return wrong("gidMappings", "uidMappings are set, so these must be too");
    }
    if !input.host.idmapped_mounts {
        return wrong("uidMappings", "this kernel has no id-mapped mounts: Linux 5.12 is needed");
    }
    Ok(Some(Idmapped {
        source: source(input, i, mount)?.into(),
        staging: staging(input, i),
        uids: mount.uid_mappings.clone(),
        gids: mount.gid_mappings.clone(),
    }))
}
