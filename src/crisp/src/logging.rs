//! Logs on standard error, as text or JSON, and spans of operations as JSON lines in a file.
//!
//! The level can be changed while the daemon runs ([`Level::set`]); the form and the trace file cannot.

use std::{fs::OpenOptions, io, os::unix::fs::OpenOptionsExt as _, path::Path, sync::Mutex};

use tracing::{Metadata, subscriber::Interest};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    fmt::{self, format::FmtSpan},
    layer::{self, Filter, SubscriberExt as _},
    reload,
    util::SubscriberInitExt as _,
};

use crate::config::{LogFormat, LogSettings};

type Boxed = Box<dyn Layer<Registry> + Send + Sync>;

/// Why nothing can be logged.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The level is no filter.
    #[error("log.level: {0}")]
    Level(String),
    /// The trace file cannot be opened.
    #[error("trace.file: open {path}: {source}")]
    Trace {
        /// The file.
        path: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Logging was started before.
    #[error("logging was started twice")]
    Twice,
}

/// Handle on the level of the running program.
#[derive(Debug, Clone)]
pub struct Level(reload::Handle<EnvFilter, Registry>);

impl Level {
    /// Changes it, from the next line on.
    pub fn set(&self, level: &str) -> Result<(), LoggingError> {
        let filter = filter(level)?;
        self.0.reload(filter).map_err(|error| LoggingError::Level(error.to_string()))
    }
}

/// Starts logging for the whole program; once.
pub fn start(settings: &LogSettings, trace: Option<&Path>) -> Result<Level, LoggingError> {
    let (filter, handle) = reload::Layer::new(filter(&settings.level)?);
    let lines = fmt::layer().with_writer(io::stderr);
    let lines: Boxed = match settings.format {
        LogFormat::Text => lines.with_ansi(false).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    let layers: Vec<Boxed> = vec![lines.with_filter(filter).boxed()];
    let layers = layers.into_iter().chain(trace.map(spans).transpose()?).collect::<Vec<_>>();
    tracing_subscriber::registry().with(layers).try_init().map_err(|_| LoggingError::Twice)?;
    Ok(Level(handle))
}

/// A level alone is that of crisp's own code: the libraries below it are asked for warnings only.
fn filter(level: &str) -> Result<EnvFilter, LoggingError> {
    let own = match level.trim() {
        "off" | "error" | "warn" => level.trim().to_owned(),
        plain @ ("info" | "debug" | "trace") => format!("warn,crisp={plain}"),
        other => other.to_owned(),
    };
    EnvFilter::try_new(&own).map_err(|error| LoggingError::Level(format!("{level:?}: {error}")))
}

/// Each span of crisp as one line when it closes, with its fields, and the time it was busy and idle.
fn spans(path: &Path) -> Result<Boxed, LoggingError> {
    let failed = |source| LoggingError::Trace { path: path.display().to_string(), source };
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(failed)?;
    let layer = fmt::layer().json().with_span_events(FmtSpan::CLOSE).with_writer(Mutex::new(file));
    Ok(layer.with_filter(OwnSpans).boxed())
}

/// Crisp's own spans, not those of libraries, nor the lines of the log (the line of a span's end is no event).
struct OwnSpans;

impl<S: tracing::Subscriber> Filter<S> for OwnSpans {
    fn enabled(&self, meta: &Metadata<'_>, _: &layer::Context<'_, S>) -> bool {
        meta.is_span() && meta.target().starts_with("crisp")
    }

    /// Asked once for each place in the code, so that what is not wanted costs nothing.
    fn callsite_enabled(&self, meta: &'static Metadata<'static>) -> Interest {
        let wanted = meta.is_span() && meta.target().starts_with("crisp");
        if wanted { Interest::always() } else { Interest::never() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_crisps_own() {
        for (level, filter_text) in [
            ("info", "crisp=info,warn"),
            ("debug", "crisp=debug,warn"),
            ("warn", "warn"),
            ("info,crisp_image=debug", "crisp_image=debug,info"),
        ] {
            let mut parts: Vec<String> =
                filter(level).expect(level).to_string().split(',').map(str::to_owned).collect();
            parts.sort();
            assert_eq!(parts.join(","), filter_text);
        }
        assert!(filter("a=b=c").is_err());
    }

    #[test]
    fn levels_change_and_spans_are_written() {
        let folder = tempfile::tempdir().expect("folder");
        let trace = folder.path().join("trace.jsonl");
        let settings = LogSettings { level: "warn".into(), format: LogFormat::Json };
        let level = start(&settings, Some(&trace)).expect("started");
        let current = || level.0.with_current(ToString::to_string).expect("the program logs");
        assert_eq!(current(), "warn");
        level.set("debug").expect("changed");
        assert!(current().contains("crisp=debug"), "{}", current());
        tracing::info_span!(target: "crisp_pod", "run_pod", pod = "web").in_scope(|| {
            tracing::info!(target: "crisp_pod", "a line of the log");
        });
        let lines = std::fs::read_to_string(&trace).expect("trace");
        assert!(lines.contains("run_pod") && lines.contains("time.busy") && lines.contains("web"), "{lines}");
        assert!(!lines.contains("a line of the log"), "{lines}");
        assert!(matches!(start(&settings, None), Err(LoggingError::Twice)));
    }
}
