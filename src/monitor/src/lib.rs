//! The per-pod monitor: its protocol, its client, and the process that runs libcontainer.

pub mod protocol;
