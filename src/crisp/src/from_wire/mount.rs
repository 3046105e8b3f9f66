//! Volumes and devices of a container.

use std::path::PathBuf;

use crisp_model::container::{Device, Mount, Propagation};
use crisp_proto::v1;

use super::{
    error::{At, Invalid, Shown},
    namespaces::mount_mappings,
    text,
};

/// Most volumes and devices of one container: several system calls each, and no pod comes near it.
const MOUNTS_MAX: usize = 4096;

/// Options that a bind mount can have of its own (`mount_setattr(2)`), in the spelling of `mount(8)`.
const OPTIONS: [&str; 20] = [
    "atime",
    "dev",
    "diratime",
    "exec",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "relatime",
    "rnodev",
    "rnoexec",
    "rnosuid",
    "rnosymfollow",
    "strictatime",
    "suid",
    "symfollow",
];

/// Checks volumes. Two with one path inside are refused: the second would hide the first.
pub fn mounts(at: &At<'_>, list: &[v1::Mount]) -> Result<Vec<Mount>, Invalid> {
    bounded(at, list.len())?;
    let mut mounts: Vec<Mount> = Vec::with_capacity(list.len());
    let mut taken = std::collections::BTreeSet::new();
    for (i, wire) in list.iter().enumerate() {
        let at = at.index(i);
        let mount = mount(&at, wire)?;
        if !taken.insert(mount.container_path.clone()) {
            let reason = format!("{} is the path of an earlier mount too", Shown(&mount.container_path));
            return Err(at.field("container_path").invalid(reason));
        }
        mounts.push(mount);
    }
    Ok(mounts)
}

fn bounded(at: &At<'_>, length: usize) -> Result<(), Invalid> {
    if length > MOUNTS_MAX {
        return Err(at.invalid(format!("has {length} entries; {MOUNTS_MAX} are allowed")));
    }
    Ok(())
}

fn mount(at: &At<'_>, wire: &v1::Mount) -> Result<Mount, Invalid> {
    let propagation = propagation(&at.field("propagation"), wire.propagation)?;
    let container_path = text::container_path(&at.field("container_path"), &wire.container_path)?;
    if container_path == "/" {
        return Err(at.field("container_path").invalid("is the root itself"));
    }
    if wire.recursive_read_only {
        let at = at.field("recursive_read_only");
        if !wire.readonly {
            return Err(at.invalid("is set, but readonly is not"));
        }
        if propagation != Propagation::Private {
            return Err(at.invalid("is set, but propagation is not PROPAGATION_PRIVATE"));
        }
    }
    let (host_path, image) = source(at, wire)?;
    let (uid_mappings, gid_mappings) = mount_mappings(at, wire)?;
    Ok(Mount {
        container_path,
        host_path,
        readonly: wire.readonly,
        recursive_readonly: wire.recursive_read_only,
        propagation,
        selinux_relabel: wire.selinux_relabel,
        uid_mappings,
        gid_mappings,
        image,
        image_sub_path: text::relative_path(&at.field("image_sub_path"), &wire.image_sub_path)?,
        mount_options: options(&at.field("mount_options"), &wire.mount_options)?,
    })
}

/// A folder or file of the host, or an image: one of the two.
fn source(at: &At<'_>, wire: &v1::Mount) -> Result<(PathBuf, Option<String>), Invalid> {
    let named = wire.image.as_ref().map(|image| &image.image).filter(|name| !name.is_empty());
    let Some(image) = named else {
        if !wire.image_sub_path.is_empty() {
            return Err(at.field("image_sub_path").invalid("is set, but image is not"));
        }
        return Ok((text::host_path(&at.field("host_path"), &wire.host_path)?, None));
    };
    if !wire.host_path.is_empty() {
        return Err(at.field("host_path").invalid("is set beside image; only one of them may be"));
    }
    if !wire.readonly {
        return Err(at.field("readonly").invalid("must be set: the files of an image cannot be written to"));
    }
    if wire.propagation != 0 {
        return Err(at.field("propagation").invalid("must be PROPAGATION_PRIVATE for an image"));
    }
    let image = text::required(&at.field("image").field("image"), image)?;
    Ok((PathBuf::new(), Some(image)))
}

fn propagation(at: &At<'_>, value: i32) -> Result<Propagation, Invalid> {
    match v1::MountPropagation::try_from(value) {
        Ok(v1::MountPropagation::PropagationPrivate) => Ok(Propagation::Private),
        Ok(v1::MountPropagation::PropagationHostToContainer) => Ok(Propagation::HostToContainer),
        Ok(v1::MountPropagation::PropagationBidirectional) => Ok(Propagation::Bidirectional),
        Err(_) => Err(at.invalid(format!("{value} is not a MountPropagation"))),
    }
}

fn options(at: &At<'_>, list: &[String]) -> Result<Vec<String>, Invalid> {
    for (i, option) in list.iter().enumerate() {
        if OPTIONS.binary_search(&option.as_str()).is_err() {
            let reason = format!("{} is not an option of a bind mount", Shown(option));
            return Err(at.index(i).invalid(reason).hint("noexec, nosuid, nodev and the like"));
        }
    }
    Ok(list.to_vec())
}

/// Checks devices of the host.
pub fn devices(at: &At<'_>, list: &[v1::Device]) -> Result<Vec<Device>, Invalid> {
    bounded(at, list.len())?;
    list.iter().enumerate().map(|(i, wire)| device(&at.index(i), wire)).collect()
}

fn device(at: &At<'_>, wire: &v1::Device) -> Result<Device, Invalid> {
    let host_path = text::host_path(&at.field("host_path"), &wire.host_path)?;
    let inside = if wire.container_path.is_empty() { &wire.host_path } else { &wire.container_path };
    let container_path = text::container_path(&at.field("container_path"), inside)?;
    if wire.permissions.chars().any(|c| !"rwm".contains(c)) {
        let reason = format!("{} is not made of r, w and m", Shown(&wire.permissions));
        return Err(at.field("permissions").invalid(reason));
    }
    let all = wire.permissions.is_empty();
    let permissions = "rwm".chars().filter(|c| all || wire.permissions.contains(*c)).collect();
    Ok(Device { host_path, container_path, permissions })
}

/// Checks names of CDI devices, `vendor.com/class=name` (CDI specification, "kind" and "name").
pub fn cdi_devices(at: &At<'_>, list: &[v1::CdiDevice]) -> Result<Vec<String>, Invalid> {
    bounded(at, list.len())?;
    let mut names = Vec::with_capacity(list.len());
    for (i, wire) in list.iter().enumerate() {
        if !is_cdi_name(&wire.name) {
            let at = at.index(i);
            let reason = format!("{} is not the name of a CDI device", Shown(&wire.name));
            return Err(at.field("name").invalid(reason).hint("vendor.com/class=name"));
        }
        names.push(wire.name.clone());
    }
    Ok(names)
}

fn is_cdi_name(text: &str) -> bool {
    let word = |text: &str, first: fn(&u8) -> bool, others: &[u8]| {
        let bytes = text.as_bytes();
        bytes.first().is_some_and(first)
            && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || others.contains(b))
    };
    let Some((kind, device)) = text.split_once('=') else { return false };
    let Some((vendor, class)) = kind.split_once('/') else { return false };
    word(vendor, u8::is_ascii_alphabetic, b"_-.")
        && word(class, u8::is_ascii_alphabetic, b"_-")
        && word(device, u8::is_ascii_alphanumeric, b"_-.:")
}

#[cfg(test)]
mod tests;
