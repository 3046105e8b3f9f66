//! The daemon and the command line of crisp: CRI services, configuration, wiring.
//!
//! Wire types stop in this crate: `from_wire` checks requests and turns them into `crisp-model`'s types, `to_wire`
//! turns what came of them into answers, and the services only translate, call and map errors.

pub mod admin;
pub mod cli;
pub mod config;
pub mod facts;
pub mod from_wire;
pub mod layer;
pub mod logging;
pub mod notify;
pub mod reload;
pub mod scrape;
pub mod serve;
pub mod services;
pub mod settings;
pub mod status;
pub mod to_wire;
