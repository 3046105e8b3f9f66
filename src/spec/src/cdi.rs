//! Devices by name: the Container Device Interface (CDI, `cncf-tags/container-device-interface`, SPEC 1.1).
//!
//! Vendors leave files in `/etc/cdi` and `/var/run/cdi` that say what a container needs to use a device: nodes, mounts,
//! variables, hooks. This is the one part of the crate that reads files ([`load()`]); the rest of it changes a finished
//! [`Plan`]. Nothing is kept between two containers: few ask for such devices, and a file may change at any time.

mod edits;
mod file;
mod load;

use std::{io, path::Path};

use crisp_model::ContainerConfig;

pub use self::{
    file::{FileError, parse},
    load::{Registry, load},
};
use crate::{error::SpecError, input::DeviceNode, plan::Plan};

/// Folders that are looked at; later ones win.
pub const FOLDERS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// Prefix of annotations that name devices, from the time before the CRI had a field for them.
const ANNOTATION: &str = "cdi.k8s.io/";

/// Most devices of one container: a node with 16 accelerators in 7 parts each stays far below.
const MAX_DEVICES: usize = 1024;

/// A device asked for, and the field that asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// `config.CDI_devices[0].name`
    field: String,
    /// `vendor.example/class=name`
    name: String,
}

/// The devices that a request names: by field, then by annotation, each once.
pub fn requested(config: &ContainerConfig) -> Result<Vec<Wanted>, SpecError> {
    let mut wanted: Vec<Wanted> = Vec::new();
    let fields = config.cdi_devices.iter().enumerate();
    let fields = fields.map(|(i, name)| (format!("config.CDI_devices[{i}].name"), name.as_str()));
    let annotations = config.annotations.iter().filter(|(key, _)| key.starts_with(ANNOTATION));
    let annotations = annotations.flat_map(|(key, value)| {
        let names = value.split(',').map(str::trim).filter(|name| !name.is_empty());
        names.map(move |name| (format!("config.annotations[{key}]"), name))
    });
    for (field, name) in fields.chain(annotations) {
        if !is_qualified(name) {
            let reason =
                format!("{name:?} is not the name of a CDI device such as vendor.example/class=name");
            return Err(SpecError::invalid(field, reason));
        }
        if !wanted.iter().any(|w| w.name == name) {
            wanted.push(Wanted { field, name: name.to_owned() });
        }
    }
    if wanted.len() > MAX_DEVICES {
        let reason = format!("{} devices; at most {MAX_DEVICES} can be had", wanted.len());
        return Err(SpecError::invalid("config.CDI_devices", reason));
    }
    Ok(wanted)
}

/// `vendor/class=device`.
fn is_qualified(text: &str) -> bool {
    text.split_once('=').is_some_and(|(kind, device)| file::is_kind(kind) && file::is_device(device))
}

/// Gives the devices to a planned container. `node` finds a device node of the host. Unknown devices are `NotFound`, by
/// name, with what is wrong with the files if something is.
pub fn inject(
    plan: &mut Plan,
    wanted: &[Wanted],
    registry: &Registry,
    node: &dyn Fn(&Path) -> io::Result<DeviceNode>,
) -> Result<(), SpecError> {
    let mut shared = Vec::new();
    for Wanted { field, name } in wanted {
        let device = registry
            .device(name)
            .map_err(|reason| SpecError::not_found(field, format!("CDI device {name}"), reason))?;
        // What holds for all devices of a file is done once a file.
        if !shared.contains(&device.file) {
            shared.push(device.file);
            edits::apply(plan, device.common, field, node)?;
        }
        edits::apply(plan, device.own, field, node)?;
    }
    edits::sort_mounts(plan);
    Ok(())
}

#[cfg(test)]
mod tests;
