//! SIGHUP: reads the configuration again and changes what can be changed in a running daemon.

use tokio::signal::unix::{SignalKind, signal};

use crate::{
    config::{Config, Sources, load::load},
    logging::Level,
    notify,
};

/// Waits for SIGHUP, for ever. A configuration that is wrong changes nothing.
pub async fn on_hangup(sources: Sources, started_with: Config, level: Level) {
    let mut hangups = match signal(SignalKind::hangup()) {
        Ok(hangups) => hangups,
        Err(error) => {
            tracing::warn!(%error, "cannot listen for SIGHUP; the configuration will not be reloaded");
            return;
        }
    };
    while hangups.recv().await.is_some() {
        notify::reloading();
        reload(&sources, &started_with, &level);
        notify::ready();
    }
}

fn reload(sources: &Sources, started_with: &Config, level: &Level) {
    let config = match load(sources) {
        Ok(loaded) => loaded.config,
        Err(error) => {
            tracing::error!(%error, "the configuration was not reloaded");
            return;
        }
    };
    match level.set(&config.log.level) {
        Ok(()) => tracing::info!(filter = config.log.level, "the configuration was reloaded"),
        Err(error) => tracing::error!(%error, "the level of the log was not changed"),
    }
    let mut rest = config;
    rest.log.level.clone_from(&started_with.log.level);
    if rest != *started_with {
        tracing::warn!(
            "other keys than log.level have changed too; they need a restart (pods go on running)"
        );
    }
}
