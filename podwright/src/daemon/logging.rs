//! Log lines on standard error.

use std::io::IsTerminal;

use crate::config::{LogFilter, LogFormat};

/// Sends every event of the process from now on to standard error.
pub(crate) fn start(level: &LogFilter, format: LogFormat) {
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(level.to_filter())
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => subscriber.init(),
        LogFormat::Json => subscriber.json().flatten_event(true).init(),
    }
}
