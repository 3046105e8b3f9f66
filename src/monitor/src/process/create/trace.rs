//! libcontainer's own words about a failure: its errors are short, and what they are about is only in its trace.
//!
//! Installed in the worker, never in the loop; what libcontainer's processes say goes to the loop by the worker's socket, so
//! that nothing of it gets into the container's output.

use std::{fmt::Write, io};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

use crate::process::report::{Report, Reporter, shorten};

/// Bytes of a line; the arguments of some are whole structures.
const LINE: usize = 512;

/// Tells errors as lines.
struct Errors(Reporter);

/// For the rest of this process and those it forks.
pub(super) fn collect(reporter: &Reporter) -> io::Result<()> {
    let errors = Errors(Reporter(reporter.0.try_clone()?));
    // A second one cannot be set; there is none, as the loop sets none.
    let _ = tracing::subscriber::set_global_default(errors);
    Ok(())
}

#[derive(Default)]
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let separator = if self.0.is_empty() { "" } else { ", " };
        let _ = match field.name() {
            "message" => write!(self.0, "{separator}{value:?}"),
            name => write!(self.0, "{separator}{name}: {value:?}"),
        };
    }
}

impl Subscriber for Errors {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(tracing::level_filters::LevelFilter::ERROR)
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        self.0.tell(&Report::Trace(shorten(line.0, LINE)));
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}
