//! What of the CRI neither critest nor crictl reach: remote procedures and fields of requests, each with its effect looked at
//! from inside the container, in the kernel's files or on the wire.

#![allow(missing_docs)]

#[path = "cri/devices.rs"]
mod devices;
#[path = "cri/events.rs"]
mod events;
#[path = "cri/images.rs"]
mod images;
#[path = "cri/lists.rs"]
mod lists;
#[path = "cri/metrics.rs"]
mod metrics;
#[path = "cri/modes.rs"]
mod modes;
#[path = "cri/namespaces.rs"]
mod namespaces;
#[path = "cri/place.rs"]
mod place;
#[path = "cri/ports.rs"]
mod ports;
#[path = "cri/process.rs"]
mod process;
#[path = "cri/refusals.rs"]
mod refusals;
#[path = "cri/resources.rs"]
mod resources;
#[path = "cri/stats.rs"]
mod stats;
#[path = "cri/volumes.rs"]
mod volumes;
