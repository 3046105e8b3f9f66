//! Stats, events, metrics.
