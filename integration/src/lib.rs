//! Drives the real binaries.

pub mod bed;
pub mod client;
